"""Qwen2-Audio as published for `transformers`: its ids, logits and losses for clips of any length, or a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForMultimodalLM,
    AutoProcessor,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

import weft
from marks import slow
from weft.cli import run
from weft.formats.checkpoints import CheckpointError
from weft.formats.qwen2_audio import import_qwen2_audio
from weft.models.bytes_tokenizer import bytes_tokenizer

OPTIONS: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
ASKED: dict[str, Any] = {**OPTIONS, "add_generation_prompt": True}
SIZES = {"hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 4}


class Kit:
    """A small Qwen2-Audio of `transformers`' own class with random weights and windows of 2 s, and its processor."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tokenizer = bytes_tokenizer()
        marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"]
        tokenizer.add_tokens(marks, special_tokens=True)
        tokenizer.pad_token = "<|endoftext|>"
        tower = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 40}
        config = Qwen2AudioConfig(
            audio_config={"num_mel_bins": 16, "max_source_positions": 100, **tower},
            text_config={"model_type": "qwen2", "vocab_size": len(tokenizer) + 3, "num_key_value_heads": 2, **SIZES},
            audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
        )
        self.model: Any = Qwen2AudioForConditionalGeneration(config).eval()
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                spread = 0.1 if value.ndim == 1 else value[0].numel() ** -0.5
                value.copy_(torch.randn(value.shape, generator=draw) * spread + ("norm" in name and "weight" in name))
        sound = WhisperFeatureExtractor(feature_size=16, chunk_length=2)
        self.processor = Qwen2AudioProcessor(sound, tokenizer)
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        file = folder / "preprocessor_config.json"  # as published; newer transformers writes processor_config.json
        file.write_text(json.dumps(sound.to_dict()))

    def inputs(self, conversation: list[dict], **options: Any) -> Any:
        text = self.processor.apply_chat_template(conversation, tokenize=False, **options)
        clips = [p["audio"] for m in conversation for p in m["content"] if p["type"] == "audio"]
        return self.processor(text=text, audio=clips or None, return_tensors="pt", sampling_rate=16000)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return Kit(tmp_path_factory.mktemp("kit"))


@pytest.fixture(scope="module")
def imported(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imported") / "out"
    import_qwen2_audio(kit.folder, out)
    return out


def loaded(folder: Path) -> tuple[Any, Any]:
    return AutoModelForMultimodalLM.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def clip(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def said(role: str, *parts: Any) -> dict:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "audio", "audio": p} for p in parts]
    return {"role": role, "content": content}


CONVERSATIONS = {
    "a whole window": [said("user", clip(32000), "What is said?")],
    "words alone": [said("user", "Who are you?")],
    "two clips": [said("user", clip(20000, 1), clip(7777, 2), "The same?")],
    "turns": [
        said("system", "Be brief."),
        said("user", clip(12345, 3), "What?"),
        said("assistant", "A dog."),
        said("user", clip(16001, 4), "And this?"),
    ],
    # of frames: even and odd numbers, begun ones, the shortest that gives a token, and one frame less than a window
    **{f"{n} samples": [said("user", clip(n, n), "?")] for n in (321, 480, 481, 640, 1600, 16000, 16159, 31840, 31841)},
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_ids_and_logits_equal_those_of_transformers(kit: Kit, imported: Path, name: str) -> None:
    model, processor = loaded(imported)
    got = processor.apply_chat_template(CONVERSATIONS[name], **ASKED)
    want = kit.inputs(CONVERSATIONS[name], add_generation_prompt=True)
    assert got["input_ids"].tolist() == want["input_ids"].tolist()
    with torch.no_grad():
        mine, theirs = model(**got).logits, kit.model(**want).logits
    assert theirs.std() > 0.3 and (mine - theirs).abs().max() < 1e-4


def test_a_batch_equals_its_conversations_and_answers_those_of_transformers(kit: Kit, imported: Path) -> None:
    model, processor = loaded(imported)
    asked = [CONVERSATIONS[name] for name in ("two clips", "words alone", "1600 samples", "a whole window")]
    greedy = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    alone = []
    for conversation in asked:
        inputs = kit.inputs(conversation, add_generation_prompt=True)
        alone.append(kit.model.generate(**inputs, **greedy)[0, inputs["input_ids"].shape[1] :].tolist())
    assert model.generate(**processor.apply_chat_template(asked, **ASKED), **greedy)[:, -6:].tolist() == alone


def test_training_with_labels_gives_the_loss_and_gradients_of_transformers(kit: Kit, imported: Path) -> None:
    model, processor = loaded(imported)
    answered = [*CONVERSATIONS["two clips"], said("assistant", "No.")]
    inputs = processor.apply_chat_template(answered, **OPTIONS, return_assistant_tokens_mask=True)
    labels = torch.where(inputs.pop("assistant_masks").bool(), inputs["input_ids"], -100)
    assert processor.tokenizer.decode(labels[labels >= 0]) == "No.<|im_end|>"
    mine, theirs = model(**inputs, labels=labels).loss, kit.model(**kit.inputs(answered), labels=labels).loss
    assert abs(float((mine - theirs).detach())) < 1e-4
    mine.backward()
    theirs.backward()
    for ours, others in (
        (model.audio_connector.proj.weight, kit.model.model.multi_modal_projector.linear.weight),
        (model.audio.tower.layers[0].fc1.weight, kit.model.model.audio_tower.layers[0].fc1.weight),
    ):
        torch.testing.assert_close(ours.grad, others.grad, rtol=1e-3, atol=1e-5)
    kit.model.zero_grad()


@pytest.mark.parametrize("language", ["language_model.model.", slow("language_model.model.model.")])
def test_the_names_of_published_and_of_saved_files_are_read(
    kit: Kit, imported: Path, tmp_path: Path, language: str
) -> None:
    """As published, and as transformers 5.19 saves a model."""
    Kit(tmp_path)
    new = {"model.language_model.": language, "lm_head.": "language_model.lm_head.", "model.": ""}
    weights = {}
    for name, value in kit.model.state_dict().items():
        old = next(prefix for prefix in new if name.startswith(prefix))
        weights[new[old] + name.removeprefix(old)] = value.clone()
    save_file(weights, tmp_path / "model.safetensors")
    import_qwen2_audio(tmp_path, tmp_path / "out")
    inputs = loaded(imported)[1].apply_chat_template(CONVERSATIONS["two clips"], **ASKED)
    with torch.no_grad():
        difference = loaded(tmp_path / "out")[0](**inputs).logits - loaded(imported)[0](**inputs).logits
    assert not difference.any()


def test_a_long_clip_is_heard_whole_and_a_task_is_asked_in_words(imported: Path) -> None:
    model = weft.load(imported)
    asked = [said("user", clip(70000))]
    asked[0]["content"].append({"type": "task", "task": "transcribe", "language": "en"})
    text = model.processor.apply_chat_template(asked)
    assert text.count("<|AUDIO|>") == 1 and "Transcribe the English speech." in text
    assert len(model.processor.encode(weft.conversation.parse_messages(asked), generate=True).features) == 3
    assert isinstance(model.chat(asked, max_new_tokens=3).text, str)


def test_it_comes_back_out_as_it_was(kit: Kit, imported: Path, tmp_path: Path) -> None:
    assert run(["export", str(imported), "--format", "qwen2-audio", "-o", str(tmp_path / "back")]) == 0
    again = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path / "back").eval()
    for name, value in kit.model.state_dict().items():
        assert torch.equal(again.state_dict()[name][: len(value)], value), name
    processor = AutoProcessor.from_pretrained(tmp_path / "back")
    text = processor.apply_chat_template(CONVERSATIONS["turns"], tokenize=False)
    assert text == kit.processor.apply_chat_template(CONVERSATIONS["turns"], tokenize=False)


def test_what_does_not_fit_is_said(kit: Kit, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = Kit(tmp_path / "kit").folder
    raw = json.loads((folder / "config.json").read_text())
    for changes, wrong in (
        ({"model_type": "qwen"}, "expected 'qwen2_audio'"),
        ({"audio_token_index": 3}, "they differ"),
    ):
        (folder / "config.json").write_text(json.dumps(raw | changes))
        with pytest.raises(CheckpointError, match=wrong):
            import_qwen2_audio(folder, tmp_path / "out")
    (folder / "config.json").write_text(json.dumps(raw))
    sound = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(sound | {"hop_length": 320}))
    assert run(["import", "qwen2-audio", "--checkpoint", str(folder), "-o", str(tmp_path / "out")]) == 2
    assert "hop_length of its preprocessor is 320" in capsys.readouterr().err
