import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel

from weft.cli import run
from weft.cli.show import sample_tokens, token_text
from weft.conversation import Conversation, Message, Text
from weft.models.bytes_tokenizer import bytes_tokenizer
from weft.models.config import DialectSection
from weft.models.processing import WeftProcessor
from weft.recipes import scratch
from weft.training.build import build_model

REFER = {
    "id": "1",
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "task", "task": "refer"},
                                     {"type": "text", "text": "the red cup"}]},
        {"role": "assistant", "content": [{"type": "box", "boxes": [[0, 0, 0.5, 0.5]], "label": "the red cup"}]},
    ],
}  # fmt: skip
WORDS = {
    "id": "2",
    "messages": [
        {"role": "user", "content": [{"type": "audio", "audio": "a.wav"},
                                     {"type": "task", "task": "transcribe", "timestamps": True}]},
        {"role": "assistant", "content": [{"type": "words", "words": [{"text": "two", "start": 0.1, "end": 0.4}]}]},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    Image.new("RGB", (20, 20)).save(folder / "a.png")
    soundfile.write(folder / "a.wav", np.zeros(16000 * 31, np.float32), 16000)
    file = folder / "samples.jsonl"
    file.write_text("".join(json.dumps(s) + "\n" for s in (REFER, WORDS)))
    return file


def shown(capsys, *arguments):
    assert run(["show", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def tokens(capsys, *arguments):
    return json.loads(shown(capsys, *arguments, "--json"))


def test_every_token_has_text_role_loss_position_and_segment(capsys, samples):
    found = tokens(capsys, "scratch", "--sample", f"{samples}:1-2")
    for segment in (0, 1):
        mine = [t for t in found if t["segment"] == segment]
        assert [t["position"] for t in mine] == list(range(len(mine)))
    first = [t for t in found if t["segment"] == 0]
    said = {role: "".join(t["text"] for t in first if t["role"] == role and "media" not in t) for role in
            ("system", "user", "assistant")}  # fmt: skip
    assert said == {
        "system": "<|im_start|>system\nBe kind.<|im_end|>\n",
        "user": "<|im_start|>user\n<|image_start|><|image_end|>Locate: the red cup<|im_end|>\n",
        "assistant": "<|im_start|>assistant\n<|p0|><|p0|><|p50|><|p50|><|im_end|>\n",
    }
    assert "".join(t["text"] for t in first if t["loss"]) == "<|p0|><|p0|><|p50|><|p50|><|im_end|>"
    assert {t.get("media") for t in found} == {None, "image 0", "audio 0", "audio 0 window 1"}


def test_the_prompt_is_what_is_asked(capsys, samples):
    found = tokens(capsys, "digits", "--sample", f"{samples}:2", "--prompt")
    assert "".join(t["text"] for t in found[-3:]) == "<|im_start|>assistant\n"
    assert not any(t["loss"] for t in found)


def test_tokens_are_printed_with_media_folded(capsys, samples):
    text = shown(capsys, "scratch", "--sample", f"{samples}:2")
    assert "<audio 0 ×375>" in text and "<audio 0 window 1 ×13>" in text
    assert "<|t0.1|>" in text and "learn" in text
    assert text.count("\n") < 60


def test_sizes_of_a_recipe(capsys):
    found = tokens(capsys, "digits", "--set", "stages.0.parts.language.train=lora")
    model, _ = build_model(scratch())
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    (stage,) = found["stages"]
    assert stage["how"]["language"] == "LoRA r=16" and stage["how"]["audio"] == "full"
    assert stage["trained"]["audio"] == sum(p.numel() for p in model.audio.parameters())
    assert stage["trained"]["language"] < 0.2 * sum(p.numel() for p in model.language_model.parameters())
    memory = stage["memory"]
    assert memory["weights"] > 4 * found["parameters"]  # the adapters come on top
    assert memory["optimizer"] == 2 * memory["gradients"] == 8 * sum(stage["trained"].values())
    assert found["image"]["tokens"] == 14 * 14 + 2 and found["sound"]["tokens_second"] == 15
    text = shown(capsys, "digits")
    assert "parameters" in text and "activations" in text


def test_sizes_of_a_folder_equal_the_model_in_it(capsys, tmp_path, samples):
    model, processor = build_model(scratch())
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    found = tokens(capsys, tmp_path)
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert tokens(capsys, tmp_path, "--sample", samples) == tokens(capsys, "scratch", "--sample", samples)
    (tmp_path / "processor_config.json").unlink()
    assert tokens(capsys, tmp_path)["sound"]["tokens_second"] == 13  # no start and end tokens without a tokenizer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "recipes are digits"),
        (["nothing.py"], "no such file"),
        (["scratch", "--set", "seed=1"], "is a model"),
        (["scratch", "--sample", "{samples}:3"], "has 2 samples"),
        (["scratch", "--sample", "{samples}:2-1"], "count from 1"),
        (["scratch", "--sample", "missing.jsonl"], "missing.jsonl"),
    ],
)
def test_mistakes_are_one_sentence(capsys, samples, arguments, message):
    assert run(["show", *(a.format(samples=samples) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in " ".join(error.split()) and "Traceback" not in error


@pytest.mark.parametrize(
    ("name", "switches", "generate"),
    [("llava", {"template": "hf"}, False), ("minigpt_v2", {}, True), ("llasm", {}, False), ("qwen_audio", {}, True)],
)
def test_each_token_has_the_role_of_the_message_that_wrote_it(name, switches, generate):
    """Dialects whose text of a message depends on where it stands, or on whether an answer is asked for."""
    processor = WeftProcessor.build(bytes_tokenizer(), None, None, DialectSection(name=name, switches=switches))
    said = ["QUESTION", "answer", "AGAIN", "last"][: 3 if generate else 4]
    turns = [Message(("user", "assistant")[i % 2], (Text(text),)) for i, text in enumerate(said)]
    found = sample_tokens(processor, Conversation(tuple(turns)), generate=generate)
    for role, words, others in (("user", said[::2], said[1::2]), ("assistant", said[1::2], said[::2])):
        text = "".join(t["text"] for t in found if t["role"] == role)
        assert all(word in text for word in words) and not any(word in text for word in others)
    first = next(t["text"] for t in found[1:] if t["role"] == "user" and found[t["position"] - 1]["role"] != "user")
    assert first != "</s>"


def test_parts_of_a_character_are_shown_as_bytes():
    tokenizer = bytes_tokenizer()
    shown = [token_text(tokenizer, i) for i in tokenizer.encode("né 你", add_special_tokens=False)]
    assert shown == ["n", "<0xC3>", "<0xA9>", " ", "<0xE4>", "<0xBD>", "<0xA0>"]
    letters = ByteLevel.alphabet()
    halves = SimpleNamespace(convert_ids_to_tokens=letters.__getitem__, decode=lambda *_, **__: "\ufffd")
    assert {token_text(halves, i) for i in range(256)} == {f"<0x{value:02X}>" for value in range(256)}
