"""Samples of the world: the same from their number on any number of workers, valid, each split with its own."""

import hashlib
import importlib
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from marks import slow
from weft.conversation import Audio, Box, Image, Text, WeftError, Words, read_samples
from weft.dialects import get_dialect
from weft.media import image_size, load_audio, load_image
from weft.playground.scenes import HELD_OUT
from weft.playground.world import PICTURE_TASKS, SOUND_TASKS, TASKS, sample, write

SPEAKS = importlib.util.find_spec("espeakng_loader") is not None
QUIET = [*PICTURE_TASKS, *SOUND_TASKS, "several_pictures", "picture_conversation", "sound_conversation"]
ANY = list(TASKS) if SPEAKS else QUIET


def flat(conversation):
    """A sample's parts, media as their bytes."""
    parts = []
    for part in conversation.parts():
        if isinstance(part, Image):
            part = part.source.tobytes()
        elif isinstance(part, Audio):
            part = (part.source[0].tobytes(), part.source[1])
        parts.append(part)
    return parts


def test_a_sample_follows_from_its_number_alone():
    forward = [flat(sample(n, "train", 3, ANY)) for n in range(12)]
    backward = [flat(sample(n, "train", 3, ANY)) for n in reversed(range(12))]
    assert forward == backward[::-1]
    assert flat(sample(0, "train", 4, ANY)) != forward[0] != flat(sample(0, "test", 3, ANY))


@pytest.mark.slow
def test_any_number_of_workers_writes_the_same_bytes(tmp_path):
    """Two workers are two processes that import weft: some seconds."""
    for name, workers in (("one", 1), ("two", 2)):
        write(tmp_path / name, "test", 16, 7, ANY, workers=workers)
    digests = [
        hashlib.sha256(b"".join(f.name.encode() + f.read_bytes() for f in sorted(d.rglob("*.*")))).hexdigest()
        for d in (tmp_path / "one", tmp_path / "two")
    ]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("task", [task if task in QUIET else slow(task) for task in TASKS])
def test_a_task_gives_valid_samples_that_can_be_rendered(task, tmp_path):
    if task not in ANY:
        pytest.skip("needs espeak-ng: pip install espeakng-loader")
    samples = read_samples(write(tmp_path, "test", 3, 1, [task], ("en", "fr", "de", "es")), probe=image_size)
    assert len(samples) == 3 and len({s.answer for s in samples}) > 1
    for n, read in enumerate(samples):
        get_dialect("chatml").render(read)
        made = sample(n, "test", 1, [task], ("en", "fr", "de", "es"))
        assert read.id == made.id and re.fullmatch(rf"test-{task}-{n}(\+\w+)*", read.id)
        for a, b in zip(read.parts(), made.parts(), strict=True):
            if isinstance(a, Image):
                assert np.array_equal(np.asarray(load_image(a.source)), np.asarray(b.source))
            elif isinstance(a, Audio):
                assert np.abs(load_audio(a.source, b.source[1]) - b.source[0]).max() < 1e-4
            elif not isinstance(a, Box):  # an index that only one picture makes needless is not read back
                assert type(a) is type(b)


def test_tasks_can_be_weighted():
    drawn = [sample(n, tasks={"refer": 3.0, "identify": 1.0}).id.split("-")[1] for n in range(60)]
    assert 30 < drawn.count("refer") < 58


@pytest.mark.slow
def test_what_is_kept_for_tests_is_marked_there_and_nowhere_in_training():
    new = [f"{color} {shape}" for color, shape in HELD_OUT]
    for n in range(120):
        for made in (sample(n, split, 2, QUIET) for split in ("train", "dev")):
            assert "+" not in made.id
            said = " ".join(
                p.text if isinstance(p, Text) else p.label or "" for p in made.parts() if isinstance(p, Text | Box)
            )
            assert not any(pair in said.lower() for pair in new)
    named = [sample(n, "test", 2, ["identify"]) for n in range(60)]
    assert 10 < sum("new_pair" in s.id for s in named) < 40
    for made in named:
        assert ("new_pair" in made.id) == any(pair in made.answer.text for pair in new)


@pytest.mark.skipif(not SPEAKS, reason="needs espeak-ng: pip install espeakng-loader")
def test_answers_of_two_choices_are_even():
    for task in ("which_picture", "which_clip"):
        firsts = [sample(n, "train", 5, [task]).answer.text for n in range(16)]
        assert 2 < firsts.count("the first") < 14


@pytest.mark.parametrize("seed", range(8))
def test_a_box_of_several_pictures_lies_in_the_one_that_is_named(seed):
    made = sample(seed, "train", 0, ["several_pictures"])
    place = re.search(r"in the (\w+) picture", made.messages[2].text)[1]
    (box,) = made.answer.parts
    assert box.image == ("first", "second", "third").index(place)


def test_it_refers_to_what_was_named_first():
    for seed in range(20):
        made = sample(seed, "train", 1, ["picture_conversation"])
        first = made.messages[0].text
        assert " it" not in first and all(re.search(r"\bit|others", m.text) for m in made.messages[2::2])


def test_the_last_of_what_is_heard_is_the_last():
    made = sample(0, "train", 0, ["sound_conversation"])
    names = made.messages[1].text.split(", then ")
    assert made.messages[3].text == str(len(names))
    (words,) = made.answer.parts
    assert isinstance(words, Words) and names[-1].endswith(words.words[0].text)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [({"split": "trian"}, "train, dev"), ({"tasks": ["rfer"]}, "refer"), ({"languages": ["it"]}, "en")],
)
def test_what_does_not_exist_is_answered_with_what_does(wrong, hint):
    with pytest.raises(WeftError, match=hint):
        sample(0, **wrong)
    with pytest.raises(WeftError, match="at least one"):
        sample(0, tasks=[])


def test_a_sheet_and_a_page_show_their_samples(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    pages = importlib.import_module("benchmarks.playground_pages")
    pictures = [sample(n, tasks=["refer", "several_pictures"]) for n in range(3)]
    pages.contact_sheet(tmp_path / "sheet.png", pictures, columns=2)
    assert load_image(str(tmp_path / "sheet.png")).size[0] == 800
    clips = [sample(n, tasks=["locate", "question"]) for n in range(3)]
    pages.clips_page(tmp_path / "clips.html", clips)
    page = (tmp_path / "clips.html").read_text()
    assert page.count("<audio ") == 3 and "http" not in page and clips[0].id in page
