"""The published checkpoints by name and shape alone: every tensor finds its place in a model of the published size.

Nothing is allocated: the tensors are shapes, the model is on the meta device. Names and shapes: specifications of the
released checkpoints (a MiniGPT-v2 checkpoint's key set, EVA-CLIP-g as in BLIP-2, Qwen-Audio's index of 8.40 B values).
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from weft.formats import llasm, llava, minigpt_v2, qwen_audio
from weft.formats.checkpoints import Tensors
from weft.formats.eva import eva_section
from weft.formats.llava_vision import converted_vision, released_vision
from weft.formats.lora import with_lora
from weft.formats.mapping import Input, read, wanted_by
from weft.models.config import DialectSection, WeftConfig
from weft.models.encoders import image_kind, sound_kind


def shapes_only(shapes: dict[str, tuple[int, ...]]) -> Tensors:
    def read(name: str) -> torch.Tensor:
        return torch.empty(shapes[name], device="meta")

    dtypes = dict.fromkeys(shapes, torch.float16)
    return Tensors("published", shapes, dtypes, read)


def count(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def test_minigpt_v2_has_39_blocks_and_128_adapter_tensors() -> None:
    tower = {"cls_token": (1, 1, 1408), "pos_embed": (1, 257, 1408)}
    tower |= {"patch_embed.proj.weight": (1408, 3, 14, 14), "patch_embed.proj.bias": (1408,)}
    for n in range(40):
        at = f"blocks.{n}."
        tower |= {f"{at}{norm}.{part}": (1408,) for norm in ("norm1", "norm2") for part in ("weight", "bias")}
        tower |= {at + "attn.q_bias": (1408,), at + "attn.v_bias": (1408,), at + "attn.qkv.weight": (4224, 1408)}
        tower |= {at + "attn.proj.weight": (1408, 1408), at + "attn.proj.bias": (1408,)}
        tower |= {at + "mlp.fc1.weight": (6144, 1408), at + "mlp.fc1.bias": (6144,)}
        tower |= {at + "mlp.fc2.weight": (1408, 6144), at + "mlp.fc2.bias": (1408,)}
    tower |= {"norm.weight": (1408,), "norm.bias": (1408,), "head.weight": (1024, 1408), "head.bias": (1024,)}
    trained = {"llama_proj.weight": (4096, 5632), "llama_proj.bias": (4096,)}
    llama = {"model.embed_tokens.weight": (32000, 4096), "model.norm.weight": (4096,), "lm_head.weight": (32000, 4096)}
    for n in range(32):
        at = f"model.layers.{n}."
        llama |= {f"{at}self_attn.{p}_proj.weight": (4096, 4096) for p in "qkvo"}
        llama |= {f"{at}mlp.{p}_proj.weight": (11008, 4096) for p in ("gate", "up")}
        llama |= {at + "mlp.down_proj.weight": (4096, 11008)}
        llama |= {f"{at}{norm}.weight": (4096,) for norm in ("input_layernorm", "post_attention_layernorm")}
        for p in "qv":
            lora = f"llama_model.base_model.model.{at}self_attn.{p}_proj.lora_"
            trained |= {lora + "A.weight": (64, 4096), lora + "B.weight": (4096, 64)}
    assert count(trained) == 33_554_432 + 23_072_768

    text = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32)
    section, left = eva_section(shapes_only(tower), None, None)
    assert section.size == (448, 448) and image_kind(section).view_tokens == 256 and left == ["blocks.39.*"]
    config = section.config
    assert (config["num_hidden_layers"], config["num_attention_heads"], config["intermediate_size"]) == (39, 16, 6144)
    whole = WeftConfig(text_config=text, vision=section, dialect=DialectSection(name="minigpt_v2"))
    parts = shapes_only(tower), left, shapes_only(llama), shapes_only(trained)
    outputs, lora = minigpt_v2.plan(whole, *parts, 16)
    assert {update.scale for update in lora.values()} == {0.25} and len(lora) == 64
    assert {o.name: o.shape for o in with_lora(outputs, lora, "it", "language_model.")} == wanted_by(whole)


@pytest.mark.slow
def test_qwen_audio_has_8_4_billion_values() -> None:
    raw = {
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "kv_channels": 128,
        "vocab_size": 155947,
        "audio": {"n_state": 1280, "n_head": 20, "n_layer": 32, "n_mels": 80, "n_ctx": 1500, "output_dim": 4096},
    }
    shapes = {
        "transformer.wte.weight": (155947, 4096),
        "lm_head.weight": (155947, 4096),
        "transformer.ln_f.weight": (4096,),
    }
    for n in range(32):
        at = f"transformer.h.{n}."
        shapes |= {f"{at}ln_{k}.weight": (4096,) for k in (1, 2)}
        shapes |= {at + "attn.c_attn.weight": (12288, 4096), at + "attn.c_attn.bias": (12288,)}
        shapes |= {at + "attn.c_proj.weight": (4096, 4096), at + "mlp.c_proj.weight": (4096, 11008)}
        shapes |= {f"{at}mlp.w{k}.weight": (11008, 4096) for k in (1, 2)}
        at = f"transformer.audio.blocks.{n}."
        shapes |= {f"{at}attn.{p}.weight": (1280, 1280) for p in ("query", "key", "value", "out")}
        shapes |= {f"{at}attn.{p}.bias": (1280,) for p in ("query", "value", "out")}
        shapes |= {f"{at}{norm}.{part}": (1280,) for norm in ("attn_ln", "mlp_ln") for part in ("weight", "bias")}
        shapes |= {at + "mlp.0.weight": (5120, 1280), at + "mlp.0.bias": (5120,)}
        shapes |= {at + "mlp.2.weight": (1280, 5120), at + "mlp.2.bias": (1280,)}
    at = "transformer.audio."
    shapes |= {at + "conv1.weight": (1280, 80, 3), at + "conv1.bias": (1280,)}
    shapes |= {at + "conv2.weight": (1280, 1280, 3), at + "conv2.bias": (1280,)}
    shapes |= {at + "positional_embedding": (1500, 1280), at + "ln_post.weight": (1280,), at + "ln_post.bias": (1280,)}
    shapes |= {
        at + "proj.weight": (4096, 1280),
        at + "proj.bias": (4096,),
        at + "audio_bos_eos_token.weight": (2, 4096),
    }
    assert 2 * count(shapes) == 16_792_444_928  # bytes of the nine published files, bfloat16

    config = qwen_audio.qwen_audio_config(raw)
    section = config.audio_section
    assert [w.tokens for w in sound_kind(section).windows(16000)] == [25]
    assert [w.tokens for w in sound_kind(section).windows(31 * 16000)] == [750, 25]
    outputs = read(wanted_by(config), [Input(shapes_only(shapes), qwen_audio.RULES)])
    assert sum(math.prod(o.shape) for o in outputs) == count(shapes)


def named(kind: type, config: object) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a class of transformers."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in kind(config).state_dict().items()}


LLAMA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["converted", "released", "released, encoder apart"])
def test_llava_1_5_has_7_06_billion_values(tmp_path: Path, layout: str) -> None:
    """llava-hf/llava-1.5-7b-hf, whose sizes are the class's defaults, and liuhaotian/llava-v1.5-7b."""
    converted = layout == "converted"
    text = LlamaConfig(vocab_size=32064 if converted else 32000, **LLAMA_7B)
    published = LlavaConfig(text_config=text)
    shapes = named(LlavaForConditionalGeneration, published)
    assert count(shapes) == 7_063_427_072 - (not converted) * 2 * 64 * 4096
    new = {
        "model.language_model.": ("language_model.model.", "model."),
        "lm_head.": ("language_model.lm_head.", "lm_head."),
        "model.vision_tower.": ("vision_tower.vision_model.", "model.vision_tower.vision_tower.vision_model."),
        "model.multi_modal_projector.linear_1.": ("multi_modal_projector.linear_1.", "model.mm_projector.0."),
        "model.multi_modal_projector.linear_2.": ("multi_modal_projector.linear_2.", "model.mm_projector.2."),
    }
    disk = {}
    for name, shape in shapes.items():
        old = next(prefix for prefix in new if name.startswith(prefix))
        disk[new[old][not converted] + name.removeprefix(old)] = shape
    if converted:
        section = converted_vision(published, tmp_path)
    else:
        raw = {"mm_vision_tower": "openai/clip-vit-large-patch14-336", "image_aspect_ratio": "pad"}
        section = released_vision(raw | {"mm_projector_type": "mlp2x_gelu"}, tmp_path, None)
    tower = None
    if layout.endswith("apart"):
        apart = {n: disk.pop(n) for n in list(disk) if "vision_tower." in n}
        tower = shapes_only({n.rpartition("vision_tower.")[2]: s for n, s in apart.items()})
        tower.shapes |= {"logit_scale": (), "text_model.final_layer_norm.weight": (768,)}
    weights = shapes_only(disk)
    config = WeftConfig(text_config=text, vision=section, dialect=DialectSection(name="llava"), image_token_id=32000)
    outputs = llava.plan(config, weights, tower)
    assert image_kind(section).view_tokens == 576 and section.fit == ("crop" if converted else "pad")
    held = (tower or weights).surplus
    assert {n.rpartition("vision_model.")[2].split(".")[0] for n in held if "vision_model" in n} == {
        "encoder",
        "post_layernorm",
    }
    assert sum("encoder.layers.23." in n for n in held) == 16
    assert {o.name: o.shape for o in outputs} == wanted_by(config)


@pytest.mark.slow
def test_llasm_has_a_whole_whisper_and_one_linear_layer(tmp_path: Path) -> None:
    """LinkSoul/LLaSM-Cllama2 with openai/whisper-large-v2, whose head is all that is left out."""
    whisper = WhisperConfig(
        d_model=1280,
        encoder_layers=32,
        decoder_layers=32,
        encoder_attention_heads=20,
        decoder_attention_heads=20,
        encoder_ffn_dim=5120,
        decoder_ffn_dim=5120,
        vocab_size=51865,
    )
    whisper.save_pretrained(tmp_path)
    tower = shapes_only(named(WhisperForConditionalGeneration, whisper))
    section = llasm.whisper_section(tmp_path, 64)
    text = LlamaConfig(vocab_size=32003, **LLAMA_7B)
    shapes = named(LlamaForCausalLM, text) | {
        "model.mm_projector.weight": (4096, 1280),
        "model.mm_projector.bias": (4096,),
    }
    config = WeftConfig(text_config=text, audio=section, dialect=DialectSection(name="llasm"))
    outputs = llasm.plan(config, shapes_only(shapes), tower)
    assert tower.surplus == {"proj_out.weight"}
    assert [w.tokens for w in sound_kind(section).windows(16000)] == [64]
    assert {o.name: o.shape for o in outputs} == wanted_by(config)
