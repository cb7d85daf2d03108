"""Kits of several sizes made here: an import computes what the published layout says, and refuses what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from published_kits import Qwen
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMultimodalLM, AutoProcessor

import weft  # noqa: F401  registers with transformers
from weft.formats.checkpoints import CheckpointError
from weft.formats.qwen_audio import import_qwen_audio
from weft.media import log_mel

SIZES = [
    {},
    {"seed": 3, "width": 48, "heads": 3, "layers": 3, "inner": 64, "state": 32, "audio_heads": 4, "seq_length": 256},
    {"seed": 4, "width": 32, "heads": 4, "layers": 1, "audio_layers": 1, "shards": 3, "seq_length": 40},
]


def clip(seconds: float, seed: int = 0) -> np.ndarray:
    """A gliding tone with some noise."""
    n = round(seconds * 16000)
    t = np.arange(n) / 16000
    noise = np.random.default_rng(seed).standard_normal(n)
    return (0.3 * np.sin(2 * np.pi * (200 + 300 * t) * t) + 0.02 * noise).astype(np.float32)


def features(wave: np.ndarray) -> torch.Tensor:
    """[M, T] as released: the log-mel of the clip padded to 30 s, cut to an even number of frames."""
    frames = 2 * -(-(len(wave) // 160) // 2)
    return torch.from_numpy(log_mel(wave, pad_to=480000)[:frames]).T


@pytest.mark.parametrize("sizes", SIZES, ids=["kit size", "other", "shards"])
def test_logits_equal_the_published_computation(tmp_path: Path, sizes: dict) -> None:
    kit = Qwen(tmp_path / "kit", **sizes)
    import_qwen_audio(tmp_path / "kit", tmp_path / "out", "float32")
    model = AutoModelForMultimodalLM.from_pretrained(tmp_path / "out").eval()
    mels = [features(clip(s)) for s in (0.9, 2.3)]
    clips = [kit.audio_tokens(mel) for mel in mels]
    text = [[7, 8, 9], [20, 21, 22, 23], [30, 31, 32]]
    ids, parts = [], []
    for words, tokens in zip(text, [*clips, None], strict=True):
        ids += words
        parts.append(words)
        if tokens is not None:
            ids += [300, *[302] * len(tokens), 301]
            parts.append(tokens)
    padded = torch.nn.utils.rnn.pad_sequence([m.T for m in mels], batch_first=True)
    lengths = torch.tensor([m.shape[1] for m in mels])
    with torch.no_grad():
        got = model(input_ids=torch.tensor([ids]), input_features=padded, feature_lengths=lengths).logits[0]
        # Beyond seq_length, where dynamic NTK and log-n act, and within it.
        for long in (list(range(1, 280)), list(range(1, 30))):
            plain = model(input_ids=torch.tensor([long])).logits[0]
            assert (plain - kit.logits([long])).abs().max() < 1e-4
    assert (got - kit.logits(parts)).abs().max() < 1e-4


@pytest.mark.slow
def test_a_kit_with_a_tokenizer_renders_and_answers(tmp_path: Path) -> None:
    kit = Qwen(tmp_path / "kit", ids_only=False)
    import_qwen_audio(tmp_path / "kit", tmp_path / "out", "float32")
    model = AutoModelForMultimodalLM.from_pretrained(tmp_path / "out").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    wave = clip(1.0)
    task = {"type": "task", "task": "transcribe", "language": "en", "timestamps": False}
    messages = [{"role": "user", "content": [{"type": "audio", "audio": (wave, 16000)}, task]}]
    inputs = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    tokens = kit.audio_tokens(features(wave))
    tags = ["startoftranscript", "en", "transcribe", "en", "notimestamps", "wo_itn"]
    after = processor.tokenizer.convert_tokens_to_ids([f"<|{t}|>" for t in tags])
    config = model.config
    span = [config.audio_start_id, *[config.audio_token_id] * len(tokens), config.audio_end_id]
    assert len(tokens) == 25 and config.audio_start_id == kit.start
    assert inputs["input_ids"][0].tolist() == [*span, *after]
    with torch.no_grad():
        got = model(**inputs).logits[0]
        answer = model.generate(**inputs, max_new_tokens=3)[0, len(span) + len(after) :].tolist()
    want = kit.logits([tokens, after])
    assert (got - want).abs().max() < 1e-4
    assert answer[0] == int(want[-1].argmax())
    stops = processor.tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>", "<|im_start|>"])
    assert model.generation_config.eos_token_id == stops


def test_settings_come_from_the_checkpoint(tmp_path: Path) -> None:
    kit = Qwen(tmp_path / "kit", ids_only=False)
    file = kit.folder / "config.json"
    raw = json.loads(file.read_text())
    raw |= {"layer_norm_epsilon": 1e-5, "use_logn_attn": False}
    raw["audio"]["audio_start_id"] = kit.start + 1  # as Qwen-Audio-Chat's first upload
    file.write_text(json.dumps(raw))
    done = import_qwen_audio(kit.folder, tmp_path / "out", "bfloat16")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["text_config"]["rms_norm_eps"] == 1e-5 and config["text_config"]["use_logn_attn"] is False
    assert config["audio_start_id"] == kit.start and config["dtype"] == "bfloat16"
    assert f"config.json says audio_start_id {kit.start + 1}, but <audio> is {kit.start}" in done.notes[0]


def test_buffers_that_some_versions_saved_are_surplus(tmp_path: Path) -> None:
    kit = Qwen(tmp_path / "kit")
    file = kit.folder / "model.safetensors"
    held = load_file(file)
    save_file({**held, "transformer.rotary_emb.inv_freq": torch.ones(8)}, file)
    done = import_qwen_audio(kit.folder, tmp_path / "out")
    assert done.sources[0].surplus == ("transformer.rotary_emb.inv_freq",)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda w: w.pop("transformer.audio.proj.bias"), r"1 missing: transformer.audio.proj.bias \(32\)"),
        (lambda w: w.update(extra=torch.ones(2)), r"1 unexpected: extra \(2\)"),
        (
            lambda w: w.update({"lm_head.weight": torch.ones(3, 3)}),
            r"another shape: lm_head.weight \(3, 3\) for \(320, 32\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_stop_the_import(tmp_path: Path, edit, said: str) -> None:
    kit = Qwen(tmp_path / "kit")
    file = kit.folder / "model.safetensors"
    held = load_file(file)
    edit(held)
    save_file(held, file)
    with pytest.raises(CheckpointError, match=said):
        import_qwen_audio(kit.folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda c: c.update(model_type="qwen2"), "not a Qwen-Audio configuration .*'qwen2'"),
        (lambda c: c.pop("hidden_size"), "hidden_size missing"),
        (lambda c: c["audio"].pop("n_head"), "audio.n_head missing"),
        (lambda c: c.update(rotary_pct=0.25), "rotary_pct"),
        (lambda c: c["audio"].update(avg_pool=False), "audio.avg_pool"),
    ],
)
def test_other_configurations_are_refused(tmp_path: Path, edit, said: str) -> None:
    kit = Qwen(tmp_path / "kit")
    file = kit.folder / "config.json"
    raw = json.loads(file.read_text())
    edit(raw)
    file.write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=said):
        import_qwen_audio(kit.folder, tmp_path / "out")
