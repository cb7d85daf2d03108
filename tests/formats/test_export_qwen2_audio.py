"""A weft folder as Qwen2-Audio's class reads it: equal logits on clips of a whole window, the same prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_kits import Qwen
from transformers import (
    AutoModelForMultimodalLM,
    AutoProcessor,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
)

import weft  # noqa: F401  registers with transformers
from marks import nightly
from tiny_model import AUDIO, LANGUAGE
from weft.cli import run
from weft.formats.export_qwen2_audio import qwen2_audio_layout
from weft.formats.layouts import ExportError, export
from weft.formats.qwen_audio import import_qwen_audio
from weft.models.compose import compose

OPTIONS: dict[str, Any] = {
    "tokenize": True,
    "return_dict": True,
    "return_tensors": "pt",
    "add_generation_prompt": True,
}
POOLING: dict[str, Any] = {
    "connector": {"merge": 1},
    "kind": "qwen_audio",
    "config": {
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "num_mel_bins": 16,
        "max_source_positions": 100,
    },
}
QWEN2 = {"config": {**LANGUAGE["config"], "model_type": "qwen2"}}


def clip(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(16000 * seconds)).astype(np.float32)


def talk(*parts: Any) -> list[dict]:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "audio", "audio": p} for p in parts]
    return [{"role": "user", "content": content}]


def both(folder: Path, exported: Path, messages: list[dict]) -> None:
    mine, theirs = AutoProcessor.from_pretrained(folder), AutoProcessor.from_pretrained(exported)
    assert isinstance(theirs, Qwen2AudioProcessor)
    got = mine.apply_chat_template(messages, **OPTIONS)
    want = theirs.apply_chat_template(messages, **OPTIONS)
    assert got["input_ids"].tolist() == want["input_ids"].tolist()
    model, report = Qwen2AudioForConditionalGeneration.from_pretrained(exported, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.no_grad():
        logits = AutoModelForMultimodalLM.from_pretrained(folder).eval()(**got).logits
        other = model.eval()(**want).logits
    assert (logits - other[..., : logits.shape[-1]]).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("dialect", "tied"), [("chatml", True), nightly("qwen_audio", False)])
def test_a_composed_model_of_these_parts_fits(tmp_path: Path, dialect: str, tied: bool) -> None:
    language = {"config": {**QWEN2["config"], "tie_word_embeddings": tied}}
    audio = {**POOLING, "options": {"boundaries": True}}
    model, processor = compose(audio=audio, language=language, dialect=dialect)
    model.save_pretrained(tmp_path / "weft")
    processor.save_pretrained(tmp_path / "weft")
    assert run(["export", str(tmp_path / "weft"), "-o", str(tmp_path / "q"), "--format", "qwen2-audio"]) == 0
    both(tmp_path / "weft", tmp_path / "q", talk(clip(2), "what is said?"))
    both(tmp_path / "weft", tmp_path / "q", talk(clip(2), clip(2, 1), "and here?"))
    both(tmp_path / "weft", tmp_path / "q", talk("hello"))
    mine, theirs = (AutoProcessor.from_pretrained(tmp_path / name) for name in ("weft", "q"))
    for seconds in (0.04, 0.5, 1.28):  # shorter clips: as many tokens, the last one of another frame (docs/export.md)
        ids = [p.apply_chat_template(talk(clip(seconds), "?"), **OPTIONS)["input_ids"].tolist() for p in (mine, theirs)]
        assert ids[0] == ids[1]


@pytest.mark.slow
def test_qwen_audio_itself_fits(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The learned ends of a clip become rows of the table; what its long-text rules would change is said."""
    Qwen(tmp_path / "kit", ids_only=False, seq_length=1024)
    import_qwen_audio(tmp_path / "kit", tmp_path / "weft", "float32")
    assert run(["export", str(tmp_path / "weft"), "-o", str(tmp_path / "q"), "--format", "qwen2-audio"]) == 0
    assert "equal up to 1024 tokens" in capsys.readouterr().err
    turns = [*talk(clip(30), "what?"), {"role": "assistant", "content": "a word"}, *talk("and then?")]
    both(tmp_path / "weft", tmp_path / "q", turns)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({}, "it has no audio encoder"),
        ({"audio": AUDIO}, "its audio encoder is of the kind whisper, and Qwen2-Audio's averages"),
        ({"audio": {**POOLING, "connector": {"kind": "mlp"}}}, "its audio connector is of the kind mlp"),
        ({"audio": {**POOLING, "options": {"window_seconds": 1.0}}}, "its window of 1 s is not that of its encoder's"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, parts: dict, said: str) -> None:
    model, processor = compose(**parts, language=QWEN2)
    model.save_pretrained(tmp_path / "weft")
    processor.save_pretrained(tmp_path / "weft")
    with pytest.raises(ExportError, match=f"does not fit Qwen2-Audio's layout: {said}"):
        export(str(tmp_path / "weft"), tmp_path / "out", qwen2_audio_layout)
    assert not (tmp_path / "out").exists()
