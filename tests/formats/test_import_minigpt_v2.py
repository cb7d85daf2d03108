"""Kits of several sizes made here: an import computes what the published layout says, and refuses what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from published_kits import MiniGPT
from safetensors.torch import save_file
from transformers import AutoModelForMultimodalLM, AutoProcessor

import weft  # noqa: F401  registers with transformers
from weft.formats.checkpoints import CheckpointError
from weft.formats.eva import interpolate_positions, vision_heads
from weft.formats.minigpt_v2 import import_minigpt_v2

SIZES = [
    {},
    {"seed": 5, "width": 48, "heads": 3, "depth": 3, "grid": 3, "hidden": 32, "text_heads": 2, "kv": 2, "rank": 2},
    {"seed": 9, "width": 88, "heads": 1, "depth": 1, "hidden": 64, "kv": 2, "layers": 3, "rank": 16, "norm": True},
]


def run(kit: MiniGPT, out: Path, **options) -> None:
    import_minigpt_v2(**kit.arguments(), out=out, **{"dtype": "float32", **options})


def prompt(processor, side: int) -> tuple[dict, torch.Tensor]:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)) for _ in range(2)]
    parts = [*({"type": "image", "image": i} for i in images), {"type": "text", "text": "[vqa] what is this? "}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": parts}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    return inputs, inputs["pixel_values"]


def segments(ids: list[int], placeholder: int, tokens: torch.Tensor) -> list:
    """Ids split at each run of placeholders, whose place one image's tokens take."""
    out: list = [[]]
    images = iter(tokens)
    for i, token in enumerate(ids):
        if token != placeholder:
            out[-1].append(token)
        elif ids[i - 1] != placeholder:
            out += [next(images), []]
    return [s for s in out if len(s)]


@pytest.mark.parametrize("sizes", SIZES, ids=["kit size", "other", "wide heads"])
def test_logits_equal_the_published_computation(tmp_path: Path, sizes: dict) -> None:
    kit = MiniGPT(tmp_path / "kit", **sizes)
    run(kit, tmp_path / "out")
    model = AutoModelForMultimodalLM.from_pretrained(tmp_path / "out").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    inputs, pixels = prompt(processor, kit.side)
    ids = inputs["input_ids"][0].tolist()
    tokens = kit.image_tokens(pixels)
    parts = segments(ids, model.config.image_token_id, tokens)
    text = ["[INST] <Img>", "</Img> <Img>", "</Img> [vqa] what is this?  [/INST]"]
    assert [s for s in parts if isinstance(s, list)] == [
        ([1, 1] if i == 0 else []) + kit.tokenizer.encode(t) for i, t in enumerate(text)
    ]
    with torch.no_grad():
        got = model(**inputs).logits[0]
        # A generated answer goes on from the same state, and no published row was added to the vocabulary.
        answer = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, len(ids) :].tolist()
    want = kit.logits(parts)
    assert got.shape == want.shape == (len(ids), kit.tokenizer.vocab_size())
    assert (got - want).abs().max() < 2e-4 * want.abs().max()
    assert answer[0] == int(want[-1].argmax())


def test_sizes_that_the_files_do_not_show() -> None:
    assert vision_heads(1408) == 16
    assert [vision_heads(w) for w in (16, 32, 48, 64, 88, 176, 24, 40)] == [1, 2, 3, 4, 1, 2, 2, 2]


def test_positions_are_interpolated_in_float32_and_the_class_row_kept() -> None:
    table = torch.randn(1, 1 + 256, 8, dtype=torch.float16)
    wide = interpolate_positions(table, 32)
    assert wide.shape == (1, 1025, 8) and wide.dtype == torch.float32
    assert torch.equal(wide[:, 0], table[:, 0].float())
    grid = table[:, 1:].float().reshape(1, 16, 16, 8).permute(0, 3, 1, 2)
    want = torch.nn.functional.interpolate(grid, size=(32, 32), mode="bicubic", align_corners=False)
    assert torch.equal(wide[:, 1:], want.permute(0, 2, 3, 1).flatten(1, 2))


def test_settings_in_the_checkpoint_are_followed(tmp_path: Path) -> None:
    kit = MiniGPT(tmp_path / "kit")
    file = kit.folder / "minigptv2_checkpoint.pth"
    held = torch.load(file)
    held["config"]["model"] |= {"image_size": 28, "lora_alpha": 8}
    torch.save(held, file)
    run(kit, tmp_path / "a")
    run(kit, tmp_path / "b", image_size=56, lora_alpha=16)
    configs = [json.loads((tmp_path / o / "config.json").read_text()) for o in "ab"]
    assert [c["vision"]["size"] for c in configs] == [[28, 28], [56, 56]]
    models = [AutoModelForMultimodalLM.from_pretrained(tmp_path / o) for o in "ab"]
    name = "model.layers.0.self_attn.q_proj.weight"
    changes = [m.language_model.state_dict()[name] - kit.llama[name] for m in models]
    assert torch.allclose(2 * changes[0], changes[1], atol=1e-5)


def test_a_configuration_from_before_grouped_keys(tmp_path: Path) -> None:
    kit = MiniGPT(tmp_path / "kit", kv=2)
    file = kit.folder / "llama" / "config.json"
    raw = json.loads(file.read_text())
    del raw["num_key_value_heads"]
    file.write_text(json.dumps(raw))
    run(kit, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]["num_key_value_heads"] == 2


def test_other_forms_of_the_same_inputs(tmp_path: Path) -> None:
    """Language model in safetensors shards, adapter in later peft's naming, a tower already cut: the same weights."""
    kit = MiniGPT(tmp_path / "kit")
    run(kit, tmp_path / "a")
    llama = kit.folder / "llama"
    (llama / "pytorch_model.bin").unlink()
    names = list(kit.llama)
    where = {n: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, n in enumerate(names)}
    for file in set(where.values()):
        save_file({n: kit.llama[n].half().contiguous() for n in names if where[n] == file}, llama / file)
    (llama / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    renamed = {
        n.replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default."): t for n, t in kit.trained.items()
    }
    torch.save({"model": renamed}, kit.folder / "minigptv2_checkpoint.pth")
    cut = {n: t for n, t in kit.eva.items() if not n.startswith(("norm", "head", f"blocks.{kit.depth}."))}
    torch.save(cut, kit.folder / "eva_vit_g.pth")
    run(kit, tmp_path / "b")
    a, b = ((tmp_path / o / "model.safetensors").read_bytes() for o in "ab")
    assert a == b


def test_auto_keeps_the_type_of_the_language_model(tmp_path: Path) -> None:
    kit = MiniGPT(tmp_path / "kit")
    run(kit, tmp_path / "out", dtype="auto")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float16"
    change(kit.folder / "llama" / "pytorch_model.bin", lambda w: w.update({n: t.double() for n, t in w.items()}))
    run(kit, tmp_path / "double", dtype="auto")
    assert json.loads((tmp_path / "double" / "config.json").read_text())["dtype"] == "float32"
    with pytest.raises(CheckpointError, match="not one of auto, float32"):
        run(kit, tmp_path / "other", dtype="int8")


def change(file: Path, edit) -> None:
    held = torch.load(file)
    edit(held.get("model", held))
    torch.save(held, file)


@pytest.mark.parametrize(
    ("file", "edit", "said"),
    [
        ("eva_vit_g.pth", lambda w: w.pop("blocks.0.mlp.fc1.bias"), r"1 missing: blocks.0.mlp.fc1.bias \(139\)"),
        ("eva_vit_g.pth", lambda w: w.update(extra=torch.ones(2)), r"1 unexpected: extra \(2\)"),
        (
            "eva_vit_g.pth",
            lambda w: w.update({"blocks.1.attn.q_bias": torch.ones(3)}),
            r"another shape: .*q_bias \(3\) for",
        ),
        ("eva_vit_g.pth", lambda w: w.pop("pos_embed"), "not an EVA tower: expected pos_embed"),
        ("llama/pytorch_model.bin", lambda w: w.pop("model.norm.weight"), "1 missing: model.norm.weight"),
        (
            "llama/pytorch_model.bin",
            lambda w: w.update({"lm_head.weight": torch.ones(9, 48)}),
            r"lm_head.weight \(9, 48\)",
        ),
        ("minigptv2_checkpoint.pth", lambda w: w.pop("llama_proj.bias"), "1 missing: llama_proj.bias"),
        (
            "minigptv2_checkpoint.pth",
            lambda w: w.update({"visual_encoder.x": torch.ones(1)}),
            "unexpected: visual_encoder.x",
        ),
        (
            "minigptv2_checkpoint.pth",
            lambda w: w.pop("llama_model.base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"),
            "1 missing: .*layers.1.self_attn.v_proj.lora_B.weight",
        ),
        (
            "minigptv2_checkpoint.pth",
            lambda w: [w.pop(n) for n in list(w) if ".layers.1." in n and ".v_proj" in n],
            "1 missing: LoRA tensors of model.layers.1.self_attn.v_proj",
        ),
        (
            "minigptv2_checkpoint.pth",
            lambda w: [w.pop(n) for n in list(w) if "lora" in n],
            "holds no LoRA tensors",
        ),
        (
            "minigptv2_checkpoint.pth",
            lambda w: w.update(
                {
                    f"llama_model.base_model.model.model.layers.7.self_attn.q_proj.lora_{p}.weight": torch.ones(4, 4)
                    for p in "AB"
                }
            ),
            "adapter changes model.layers.7.self_attn.q_proj.weight",
        ),
    ],
)
def test_tensors_that_do_not_fit_stop_the_import(tmp_path: Path, file: str, edit, said: str) -> None:
    kit = MiniGPT(tmp_path / "kit")
    change(kit.folder / file, edit)
    with pytest.raises(CheckpointError, match=said) as error:
        run(kit, tmp_path / "out")
    assert str(kit.folder) in str(error.value)
    assert not (tmp_path / "out").exists()


def test_wrong_folders_and_models(tmp_path: Path) -> None:
    kit = MiniGPT(tmp_path / "kit")
    config = kit.folder / "llama" / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"mistral"'))
    with pytest.raises(CheckpointError, match="model_type is 'mistral', expected llama"):
        run(kit, tmp_path / "out")
    config.unlink()
    with pytest.raises(CheckpointError, match="config.json: cannot be read"):
        run(kit, tmp_path / "out")
