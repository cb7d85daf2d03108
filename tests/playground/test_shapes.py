"""The small world: exact answers, the same from a seed, and files that are samples."""

import hashlib

import numpy as np

from weft.conversation import Box, Text, Words, read_samples
from weft.media import image_size, load_audio, load_image
from weft.playground import shapes


def digest(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(f.name.encode() + f.read_bytes() for f in files)).hexdigest()


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        shapes.write(tmp_path / name, "train", 12, 5)
    shapes.write(tmp_path / "c", "train", 12, 6)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_samples_are_valid_and_of_every_kind(tmp_path):
    samples = read_samples(shapes.write(tmp_path, "train", 120, 0), probe=image_size)
    assert len(samples) == 120
    kinds = {(s.messages[0].task.name, type(s.answer.parts[0])) for s in samples}
    assert kinds == {("vqa", Text), ("refer", Box), ("locate", Words), ("event", Text), ("question", Text)}


def test_boxes_hold_their_shape_exactly():
    rng = np.random.default_rng(3)
    for _ in range(20):
        picture, found = shapes.draw_picture(rng)
        pixels = np.asarray(picture, float)
        assert len({s.color for s in found}) == len(found)  # a phrase picks out exactly one
        for shape in found:
            near = np.abs(pixels - shapes.COLORS[shape.color]).sum(-1) < 60
            rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
            seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / shapes.SIDE
            assert np.abs(seen - shape.box).max() < 0.02


def test_every_seed_gives_a_picture():
    """A first shape in the middle leaves no room for a second; that must not be waited for."""
    for seed in range(600):
        assert len(shapes.places(np.random.default_rng(seed), 2)) == 2


def test_sounds_are_where_they_are_said_to_be():
    rng = np.random.default_rng(4)
    for _ in range(20):
        wave, found = shapes.make_clip(rng)
        loud = np.abs(wave)
        inside = np.zeros(len(wave), bool)
        for sound in found:
            start, end = (round(t * shapes.RATE) for t in (sound.start, sound.end))
            assert loud[start:end].mean() > 0.02
            inside[start:end] = True
        assert loud[~inside].max() < 0.02


def test_media_are_files_that_weft_reads(tmp_path):
    shapes.write(tmp_path, "test", 3, 9)
    assert load_image(str(tmp_path / "test" / "00000.png")).size == (shapes.SIDE, shapes.SIDE)
    assert 0.3 < len(load_audio(str(tmp_path / "test" / "00002.wav"))) / 16000 < 4


def test_counts_are_right(tmp_path):
    rng = np.random.default_rng(8)
    for _ in range(80):
        _, found = shapes.draw_picture(rng)
        question, answer = (shapes.ask_picture if rng.random() < 0.5 else shapes.ask_where)(rng, found)
        if question[1] == Text("how many shapes are there?"):
            assert answer == [Text(("one", "two")[len(found) - 1])]
        if isinstance(answer[0], Box):
            assert answer[0].boxes[0] in [s.box for s in found]
