"""`weft demo`: questions that are made, a person's own files, and what is told of the answers."""

import numpy as np
import pytest
import soundfile
from PIL import Image

from tiny_model import tiny
from weft import cli
from weft.cli import demo
from weft.conversation import Text, Word, Words


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "model"
    made = tiny()
    made.model.save_pretrained(folder)
    made.processor.save_pretrained(folder)
    return str(folder)


@pytest.mark.slow
def test_every_kind_of_question_is_asked_and_answered(model, tmp_path, capsys):
    assert cli.run(["demo", "--model", model, "-o", str(tmp_path)]) == 0
    told = capsys.readouterr()
    asked = [line for line in told.out.splitlines() if "→" in line]
    assert len(asked) == 8 and all(line[0] in "✓✗" for line in asked)
    assert {path.suffix for path in (tmp_path / "media").iterdir()} == {".png", ".wav"}
    assert "of 8 are right" in told.err and f"weft chat {model}" in told.out


def test_ones_own_files_are_asked_about_without_a_right_answer(model, tmp_path, capsys):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.png")
    soundfile.write(tmp_path / "memo.wav", np.zeros(8000), 16000)
    assert cli.run(["demo", str(tmp_path / "photo.png"), str(tmp_path / "memo.wav"), "--model", model]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "→" in line]
    assert [line.split(":")[0].strip() for line in lines] == [
        "photo.png, asked",
        *["memo.wav, transcribe"] * 2,
        "memo.wav, answered",
    ]


@pytest.mark.parametrize("content", [None, b"no picture, no sound"])
def test_a_file_that_is_neither_is_named(model, content, tmp_path, capsys):
    path = tmp_path / "notes.txt"
    if content:
        path.write_bytes(content)
    assert cli.run(["demo", str(path), "--model", model]) == 2
    told = capsys.readouterr().err
    assert "notes.txt" in told.splitlines()[-1] and "Traceback" not in told


def test_an_answer_is_read_without_what_is_no_whole_time():
    words = Words((Word("the", 0.1, 0.3),), 0)
    parts = (words, Text("<|t0.3|><|f1|>pale"), Words((Word("moon", 0.8, 1.2),), 0))
    assert demo.said(parts, "") == "the 0.10–0.30 s, pale, moon 0.80–1.20 s"
    assert demo.said((Text("a <|p3|>"),), "") == "a" and demo.said((Text("<|p3|>"),), "") == "(nothing)"
    broken = "<|t0.9|><|f0|>pale<|t0.3|><|f1|><|t1.2|><|f0|>moon\n<|t1.1|><|f0|>"
    assert demo.said((Text(broken),), "") == demo.said((), broken) == "pale moon"
