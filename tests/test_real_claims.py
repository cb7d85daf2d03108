"""The scripts that measure claims and names on pretrained parts: what they change in a sample, and what they count."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pictures

from weft.conversation import Audio, Conversation, Image, Message, Task, Text, Word, Words

ROOT = Path(__file__).parent.parent


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def test_an_arm_is_asked_the_same_in_another_way(script):
    real = script("ablations.real")
    picture = Image(Pictures.new("RGB", (8, 8)))
    refer = Conversation(
        (Message("user", (picture, Task("refer"), Text("the key"))), Message("assistant", (Text("x"),)))
    )
    assert real.as_words(refer).messages[0].parts == (picture, Text("the key"))
    caption = Conversation((Message("user", (picture, Task("caption"))), Message("assistant", (Text("x"),))))
    assert real.as_words(caption).messages[0].parts == (picture, Text("Describe the picture."))
    clip = Audio((np.zeros(16000, np.float32), 16000))
    words = Words((Word("two", 0.1, 0.3), Word("six", 0.4, 0.7)), 0)
    for task, parts in (("transcribe", (Text("two six"),)), ("locate", (words,))):
        asked = Message("user", (clip, Task(task, {"language": "en", "timestamps": True})))
        plain = real.untimed(Conversation((asked, Message("assistant", (words,)))))
        assert plain.messages[1].parts == parts
        assert plain.messages[0].task.get("timestamps") is (None if task == "transcribe" else True)


def test_claims_are_told_over_seeds_and_drawn(script, tmp_path):
    real = script("ablations.real")
    runs = [
        {
            "arm": arm,
            "seed": seed,
            "updates": 9,
            "figures": dict.fromkeys(("WER, digits", *rest), value),
            "constant": none,
        }
        for rest, none in (
            (
                ("WER, unseen sentences", "words found, ms"),
                {"WER, digits": 1.0, **dict.fromkeys(("WER, unseen sentences", "words found, ms"))},
            ),
        )
        for arm, values in (("no times", (0.2, 0.4)), ("word times", (0.1, 0.3)))
        for seed, value in enumerate(values)
    ]
    told = real.table("srwt", runs, 0.5)
    assert "30 CPU minutes an arm, 2 seeds" in told
    assert "| WER, digits | 0.300 ± 0.100 | 0.200 ± 0.100 | 1.000 |" in told
    real.draw("srwt", runs, tmp_path / "srwt.svg")
    assert (tmp_path / "srwt.svg").stat().st_size > 1000


def test_photographs_are_those_whose_file_is_named_like_a_class(script, tmp_path):
    tux = script("tuxpaint")
    noise = np.random.default_rng(0).integers(0, 200, (20, 40, 3), dtype=np.uint8)
    for name in ("birds/hen.png", "cartoon/hen.png", "birds/sea_lion-2.png", "birds/nothing.png", "toys/mouse.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Pictures.fromarray(noise).save(tmp_path / name)
    Pictures.new("RGBA", (40, 20), "red").save(tmp_path / "birds/cock.png")  # drawn: few colours
    found = tux.photographs(tmp_path, ["cock", "hen, biddy", "sea lion", "hen", "mouse"])
    assert [(p.key, p.classes) for p in found] == [("birds/hen", (1, 3)), ("birds/sea_lion-2", (2,))]
    assert tux.holds("These are Sea-Lions.", found[1]) and not tux.holds("a lion", found[1])
    sheet, boxes = tux.four([found[0]] * 4)
    shown = np.asarray(sheet).min(2) < 220
    left, top, right, bottom = (round(side * sheet.width) for side in boxes[3])
    assert shown[top:bottom, left:right].all()
    for left, top, right, bottom in (tuple(round(side * sheet.width) for side in box) for box in boxes):
        shown[top:bottom, left:right] = False
    assert not shown.any()  # white around the four
