"""Sizes that are said must be the sizes that are."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from marks import slow
from weft.models.config import AudioSection, Connector, DialectSection, VisionSection, WeftConfig
from weft.models.half import cast_once
from weft.training.outline import layer_bytes
from weft.training.recipe import Lora, PartTraining, Recipe, Stage
from weft.training.sizes import model_size, stage_size


def kept_by_a_layer(width, keys, inner, learned, half, tokens=64):
    """Bytes a token that autograd saves for one more layer, weights aside."""
    found = []
    for layers in (1, 3):
        config = AutoConfig.for_model("llama", hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
                                      num_attention_heads=width // 32, num_key_value_heads=keys // 32, vocab_size=96,
                                      attn_implementation="sdpa")  # fmt: skip
        model = AutoModelForCausalLM.from_config(config).requires_grad_(learned)
        cast_once(model)
        shapes = {shape for p in model.parameters() for shape in (p.shape, p.t().shape if p.ndim == 2 else p.shape)}
        saved = {}

        def keep(tensor, saved=saved, shapes=shapes):
            if tensor.shape not in shapes:
                saved[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        rows = torch.randn(1, tokens, width, requires_grad=True)
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=half),
        ):
            out = model.model(inputs_embeds=rows, use_cache=False).last_hidden_state  # noqa: F841  keeps the graph
        found.append(sum(t.untyped_storage().nbytes() for t in saved.values()))
    return (found[1] - found[0]) / 2 / tokens


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("half", [True, slow(False)])
def test_activations_of_a_layer_are_as_autograd_keeps_them(learned, half):
    for width, keys, inner in ((128, 128, 352), (256, 128, 704)):
        measured = kept_by_a_layer(width, keys, inner, learned, half)
        assert layer_bytes(width, keys, inner, learned=learned, half=half) == pytest.approx(measured, rel=0.1)


@pytest.fixture(scope="module")
def minigpt():
    """MiniGPT-v2 at its published size."""
    tower = {"hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16,
             "patch_size": 14, "image_size": 448}  # fmt: skip
    vision = VisionSection(kind="eva", config=tower, size=(448, 448), final_norm=False, extra_norm=1e-5,
                    connector=Connector(merge=4))  # fmt: skip
    text = AutoConfig.for_model("llama", vocab_size=32000)
    return WeftConfig(text_config=text, vision=vision, dialect=DialectSection(name="minigpt_v2"), image_token_id=32000)


def test_published_sizes_are_found_without_weights(minigpt):
    size = model_size(minigpt, None)
    # 39 blocks of EVA-CLIP-g at 448 px; Linear(5632, 4096); Llama-2-7B
    parts = {part.name: part.parameters for part in size.parts}
    assert parts["vision_connector"] == 23_072_768
    assert parts["language"] == 6_738_415_616
    assert round(parts["vision"] / 1e6) == 987
    assert size.image["tokens"] == 256


def test_published_trained_parameters(minigpt):
    lora = Lora(r=64, alpha=16, targets=("q_proj", "v_proj"))
    stage = Stage(
        parts={"language": PartTraining(train="lora", lora=lora), "vision_connector": PartTraining(train="full")}
    )
    found = stage_size(minigpt, stage, Recipe(name="x", model={}, stages=(stage,)))
    assert found.trained == {"vision_connector": 23_072_768, "language": 33_554_432}
    assert found.memory.optimizer == 8 * (23_072_768 + 33_554_432)
    lean = stage.model_copy(update={"checkpoint_activations": True})
    less = stage_size(minigpt, lean, Recipe(name="x", model={}, stages=(lean,)))
    assert less.memory.activations < 0.6 * found.memory.activations


def test_sound_is_counted_by_window():
    audio = AudioSection(kind="whisper_decoder", config={"d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
                  "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64,
                  "decoder_ffn_dim": 64, "vocab_size": 100, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
                  "decoder_start_token_id": 1}, decoder_tokens=64)  # fmt: skip
    text = AutoConfig.for_model("llama", vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
                                num_attention_heads=2)  # fmt: skip
    size = model_size(WeftConfig(text_config=text, audio=audio, audio_token_id=3), None)
    assert (size.sound["tokens_second"], size.sound["tokens_window"]) == (64, 64)
