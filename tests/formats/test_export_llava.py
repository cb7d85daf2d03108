"""A weft folder as LLaVA's class reads it: equal logits, equal prompts and pixels, and back again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from llava_kit import LLaVA
from safetensors.torch import load_file
from test_import_llava import CONVERSATIONS, picture, user
from transformers import AutoModelForMultimodalLM, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

import weft  # noqa: F401  registers with transformers
from marks import slow
from tiny_model import AUDIO, LANGUAGE, VISION
from weft.cli import run
from weft.formats.export_llava import llava_layout
from weft.formats.layouts import ExportError, export
from weft.formats.llava import import_llava
from weft.models.compose import compose

OPTIONS: dict[str, Any] = {
    "tokenize": True,
    "return_dict": True,
    "return_tensors": "pt",
    "add_generation_prompt": True,
}
CLIP = {
    "kind": "clip",
    "config": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 7,
    },
    "connector": {"kind": "mlp"},
}


def both(folder: Path, exported: Path, messages: list[dict]) -> None:
    """Asserts that weft and transformers make the same inputs and the same logits of a conversation."""
    mine, theirs = AutoProcessor.from_pretrained(folder), AutoProcessor.from_pretrained(exported)
    assert isinstance(theirs, LlavaProcessor)
    got, want = mine.apply_chat_template(messages, **OPTIONS), theirs.apply_chat_template(messages, **OPTIONS)
    assert got["input_ids"].tolist() == want["input_ids"].tolist()
    if "pixel_values" in got:
        assert (got["pixel_values"] - want["pixel_values"]).abs().max() < 1e-5
    model, report = LlavaForConditionalGeneration.from_pretrained(exported, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.no_grad():
        logits = AutoModelForMultimodalLM.from_pretrained(folder).eval()(**got).logits
        other = model.eval()(**want).logits
    assert (logits - other[..., : logits.shape[-1]]).abs().max() < 1e-5
    assert other.argmax(-1).max() < logits.shape[-1]  # rows that were filled up are never the likeliest


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["converted", "released"])
def test_an_imported_model_comes_back_out(tmp_path: Path, layout: str) -> None:
    """Also where <image> lies beyond the table, as in the released layout: the table grows."""
    kit = LLaVA(tmp_path / "made")
    import_llava(**kit.write(layout, tmp_path / "kit"), out=tmp_path / "weft")
    assert run(["export", str(tmp_path / "weft"), "-o", str(tmp_path / "llava"), "--format", "llava"]) == 0
    for name in ("a picture", "several", "turns", "words alone", "system"):
        both(tmp_path / "weft", tmp_path / "llava", CONVERSATIONS[name])
    import_llava(tmp_path / "llava", tmp_path / "again")
    again = AutoModelForMultimodalLM.from_pretrained(tmp_path / "again").eval()
    first = AutoModelForMultimodalLM.from_pretrained(tmp_path / "weft").eval()
    inputs = AutoProcessor.from_pretrained(tmp_path / "weft").apply_chat_template(CONVERSATIONS["turns"], **OPTIONS)
    with torch.no_grad():
        one, other = first(**inputs).logits, again(**inputs).logits
    assert (one - other[..., : one.shape[-1]]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("vision", "language"),
    [
        slow({"options": {"fit": "pad"}}, {"model_type": "qwen2", "tie_word_embeddings": True}),
        ({"options": {"drop_cls": False, "layer": -2}, "connector": {"kind": "mlp", "bias": False}}, {}),
    ],
    ids=["tied qwen2, padded", "with class token, no bias, one layer less"],
)
def test_a_composed_model_of_these_parts_fits(tmp_path: Path, vision: dict, language: dict) -> None:
    model, processor = compose(vision={**CLIP, **vision}, language={"config": {**LANGUAGE["config"], **language}})
    model.save_pretrained(tmp_path / "weft")
    processor.save_pretrained(tmp_path / "weft")
    export(str(tmp_path / "weft"), tmp_path / "llava", llava_layout)
    both(tmp_path / "weft", tmp_path / "llava", [user(picture(1, 50, 20), "what is it?")])
    held = load_file(tmp_path / "llava" / "model.safetensors")
    assert "vision_tower.vision_model.embeddings.class_embedding" in held  # as published


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"audio": AUDIO}, "it has no image encoder"),
        ({"vision": CLIP, "audio": AUDIO}, "it also has an audio encoder"),
        ({"vision": VISION}, "its image encoder is of the kind conv, and LLaVA's is CLIP"),
        ({"vision": {**CLIP, "connector": {}}}, "its image connector is of the kind linear"),
        ({"vision": {**CLIP, "connector": {"kind": "mlp", "merge": 4}}}, "its connector merges 4 patches"),
        (
            {"vision": {**CLIP, "options": {"size": (56, 56)}}},
            "its pictures are 56x56, and its encoder was made for 28",
        ),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, parts: dict, said: str) -> None:
    model, processor = compose(**parts, language=LANGUAGE)
    model.save_pretrained(tmp_path / "weft")
    processor.save_pretrained(tmp_path / "weft")
    with pytest.raises(ExportError, match=f"does not fit LLaVA's layout: {said}"):
        export(str(tmp_path / "weft"), tmp_path / "llava", llava_layout)
    assert not (tmp_path / "llava").exists()
