"""The small world: its shapes and sounds are where it says they are."""

import numpy as np

from weft.playground import shapes


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
