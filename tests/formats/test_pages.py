"""The commands of the pages docs/minigpt_v2.md, llasm.md, qwen_audio.md and llava.md, on small stand-ins of the
published files: import, finetune, chat, evaluate, merge, export, one after the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from llava_kit import LLaVA
from published_kits import MiniGPT, Qwen
from transformers import AutoModelForMultimodalLM, AutoProcessor

import weft
from marks import nightly
from training_world import tone
from weft.cli import run

pytestmark = pytest.mark.slow
SYSTEMS = ("minigpt_v2", "llasm", "qwen_audio", "llava")
FEW = ["--steps", "1", "--set", "stages.0.row_tokens=1024"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture, a clip, and two samples for each system, in the words of its page."""
    import soundfile
    from PIL import Image

    folder = tmp_path_factory.mktemp("world")
    Image.new("RGB", (60, 40), (200, 30, 30)).save(folder / "7.png")
    soundfile.write(folder / "8.wav", tone(1.0, 440), 16000)
    image, audio = {"type": "image", "image": "7.png"}, {"type": "audio", "audio": "8.wav"}
    box = [{"type": "box", "boxes": [[0.1, 0.2, 0.5, 0.6]], "label": "the red cup"}]
    words = [{"type": "words", "words": [{"text": "nine", "start": 0.1, "end": 0.4}]}]

    def task(name: str, **fields: object) -> dict:
        return {"type": "task", "task": name, **fields}

    def text(said: str) -> dict:
        return {"type": "text", "text": said}

    asked: dict[str, list] = {
        "minigpt_v2": [
            ([image, task("refer"), text("the red cup")], box),
            ([image, task("vqa"), text("what is it?")], "cup"),
        ],
        "llasm": [([audio, task("transcribe")], "nine"), ([audio, text(" Answer in one word.")], "nine")],
        "qwen_audio": [
            ([audio, task("transcribe", language="en", timestamps=True)], words),
            ([audio, text("what is said?")], "nine"),
            ([audio, task("note")], "pitch 60; velocity 100; instrument organ; sonic bright, dark"),
        ],
        "llava": [([image, text("What is on the table?")], "a cup"), ([image, task("caption")], "A cup.")],
    }
    for name, pairs in asked.items():
        samples = [
            {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
            for question, answer in pairs
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples))
    return folder


@pytest.fixture(scope="module")
def imported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """The system's stand-in, imported by its command."""
    made: dict[str, Path] = {}

    def of(system: str) -> Path:
        if system not in made:
            kit, out = tmp_path_factory.mktemp(system) / "kit", tmp_path_factory.mktemp(system) / "model"
            if system == "minigpt_v2":
                given = MiniGPT(kit).arguments() | {"dtype": "float32"}
            elif system == "llasm":
                shared = request.getfixturevalue("shared") / "parity" / "llasm"
                given = {"checkpoint": shared / "checkpoint", "whisper": shared / "whisper"}
            elif system == "qwen_audio":
                given = {"checkpoint": Qwen(kit, ids_only=False, seq_length=512).folder}
            else:
                given = LLaVA(kit).write("released", kit / "released")
            options = [x for name, value in given.items() for x in (f"--{name}", str(value))]
            assert run(["import", system.replace("_", "-"), *options, "-o", str(out)]) == 0
            made[system] = out
        return made[system]

    return of


@pytest.mark.parametrize("system", [nightly(s) if s in ("llasm", "llava") else s for s in SYSTEMS])
def test_every_command_of_a_page_runs(
    system: str, imported, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    model, data = imported(system), world / f"{system}.jsonl"
    monkeypatch.chdir(tmp_path)
    tuned, adapter, whole = "mine", "adapter", "whole"
    for out, how in ((tuned, ["--eval-data", str(data)]), (adapter, ["--adapter-only"])):
        assert run(["finetune", str(model), "--data", str(data), "-o", out, "--lora", *FEW, *how]) == 0
    assert "Loading weights" not in capfd.readouterr().err  # a log file holds no progress bars
    assert run(["merge", adapter, "-o", whole]) == 0
    question = json.loads(data.read_text().splitlines()[1])["messages"][0]["content"]
    media = question[0]["type"]
    command = [f"--{media}", str(world / question[0][media]), "what?", "--max-new-tokens", "3"]
    for folder in (tuned, adapter, whole):
        capfd.readouterr()
        assert run(["chat", folder, *command]) == 0
        assert "Warning" not in capfd.readouterr().err
    assert run(["evaluate", tuned, "--data", str(data), "-o", "report", "--max-new-tokens", "3"]) == 0
    assert Path("report/index.html").exists()

    asked = weft.load(adapter).processor
    inputs = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    here = [{"role": "user", "content": [{"type": media, media: str(world / question[0][media])}]}]
    logits = []
    for folder in (adapter, whole):
        loaded = AutoModelForMultimodalLM.from_pretrained(folder).float().eval()
        batch = AutoProcessor.from_pretrained(folder).apply_chat_template(here, **inputs)
        assert torch.equal(batch["input_ids"], asked.apply_chat_template(here, **inputs)["input_ids"])
        with torch.no_grad():
            logits.append(loaded(**batch).logits)
    assert (logits[0] - logits[1]).abs().max() < 1e-4


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_wrong_sense_is_one_sentence(
    system: str, imported, world: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    model = str(imported(system))
    other = (
        ("--audio", "8.wav", "audio encoder")
        if system in ("minigpt_v2", "llava")
        else ("--image", "7.png", "image encoder")
    )
    for option, name, said in (other, (other[0], "none.wav", "no such")):
        capfd.readouterr()
        assert run(["chat", model, option, str(world / name), "what?"]) == 2
        err = capfd.readouterr().err.strip().splitlines()
        assert len(err) == 1 and err[0].startswith("error: ") and said in err[0]
    wrong = world / ("qwen_audio.jsonl" if system in ("minigpt_v2", "llava") else "llava.jsonl")
    assert run(["finetune", model, "--data", str(wrong), "-o", str(tmp_path / "x"), "--lora", *FEW]) == 2
    err = capfd.readouterr().err.strip().splitlines()
    assert len(err) == 1 and "every sample has a" in err[0] and other[2] in err[0]
    assert not any(tmp_path.iterdir())  # no run is left that could never go on


def test_a_folder_without_a_tokenizer_says_that_it_takes_ids_only(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    kit = Qwen(tmp_path / "kit")
    assert run(["import", "qwen-audio", "--checkpoint", str(kit.folder), "-o", str(tmp_path / "model")]) == 0
    capfd.readouterr()
    assert run(["chat", str(tmp_path / "model"), "hi"]) == 2
    assert "has no processor and no tokenizer, so it takes token ids only" in capfd.readouterr().err


def test_a_checkpoint_that_is_not_there_is_said_alike_everywhere(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    for system in ("qwen-audio", "llava"):
        assert run(["import", system, "--checkpoint", str(tmp_path / "no"), "-o", str(tmp_path / "x")]) == 2
        assert "no: not a folder; give the folder that holds config.json" in capfd.readouterr().err
