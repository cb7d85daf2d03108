"""Pictures: what is said to be in them is what their pixels show."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from playground_reading import color_name

from weft.playground.chance import Chance
from weft.playground.scenes import COLORS, DIRECTIONS, HELD_OUT, SHAPES, Scene, Thing, draw_scene


def scenes(count, split="train", seed=0):
    return [draw_scene(Chance(np.random.default_rng((seed, i)), split)) for i in range(count)]


def shown(scene, *things):
    """Where a picture of these things alone differs from its background, bool [H, W]."""
    bare = Scene(scene.width, scene.height, (), scene.ground).render()
    drawn = Scene(scene.width, scene.height, things, scene.ground).render()
    return (np.abs(np.asarray(drawn, int) - np.asarray(bare, int)) > 2).any(-1)


def extent_of(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def grown(mask, width):
    return Image.fromarray(mask.astype(np.uint8)).filter(ImageFilter.MaxFilter(width))


def pieces(mask):
    """How many separate areas a mask has."""
    image, count = grown(mask, 3).copy(), 0  # ImageDraw.floodfill changes nothing of what is an array
    while (left := np.asarray(image) == 1).any():
        y, x = np.argwhere(left)[0]
        ImageDraw.floodfill(image, (int(x), int(y)), 2)
        count += 1
    return count


def test_a_box_ends_where_its_shape_does():
    for scene in scenes(25):
        size = np.array([scene.width, scene.height] * 2)
        for thing in scene.things:
            assert np.abs(extent_of(shown(scene, thing)) - np.array(thing.box) * size).max() < 1.3, thing


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("angle", [-15.0, 0.0, 8.0])
def test_every_shape_fills_its_box_in_one_piece(shape, angle):
    for direction in DIRECTIONS if shape == "arrow" else (None,):
        thing = Thing("red", shape, (0.2, 0.3, 0.6, 0.7), 0.4, (210, 20, 20), angle, direction, None)
        scene = Scene(200, 200, (thing,), np.full((1, 1, 3), 240, np.uint8))
        mask = shown(scene, thing)
        assert np.abs(extent_of(mask) - [40, 60, 120, 140]).max() <= 1
        assert pieces(mask) == 1


@pytest.mark.parametrize(
    ("direction", "tip"), [("up", (0, -1)), ("right", (1, 0)), ("down", (0, 1)), ("left", (-1, 0))]
)
def test_an_arrow_is_widest_towards_where_it_points(direction, tip):
    thing = Thing("red", "arrow", (0.2, 0.2, 0.8, 0.8), 0.6, (210, 20, 20), 0.0, direction, None)
    mask = shown(Scene(200, 200, (thing,), np.full((1, 1, 3), 240, np.uint8)), thing)
    across = mask.sum(1) if tip[1] else mask.sum(0)
    widest = int(across.argmax()) - 99.5
    assert widest * sum(tip) > 5 and across.max() > 1.8 * across[140 if sum(tip) < 0 else 60]


def test_a_picture_keeps_to_its_sizes_counts_and_distances():
    counts = Counter()
    for scene in scenes(150):
        counts[len(scene.things)] += 1
        short, long = sorted((scene.width, scene.height))
        assert 112 <= short <= long <= 256 and long <= 2 * short
        size = np.array([scene.width, scene.height] * 2)
        boxes = [np.array(t.box) * size for t in scene.things]
        for i, a in enumerate(boxes):
            extent = max(a[2] - a[0], a[3] - a[1]) / short
            assert 0.115 < extent < 0.455 and a.min() >= 0 and (a[2:] <= size[2:]).all()
            for b in boxes[:i]:
                inter = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
                union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter
                assert inter / union <= 0.051
    assert set(counts) == {2, 3, 4, 5, 6} and min(counts.values()) > 10


@pytest.mark.slow
def test_things_can_be_counted_by_their_pixels():
    counted = whole = 0
    for scene in scenes(30, seed=1):
        masks = [shown(scene, t) for t in scene.things]
        if np.sum([np.asarray(grown(m, 7)) for m in masks], 0).max() > 1:
            continue  # two that touch are one piece
        whole += 1
        together = shown(scene, *scene.things)
        counted += pieces(together) == len(scene.things)
    assert counted == whole > 15


def test_a_colour_is_called_what_a_person_calls_it():
    for scene in scenes(15):
        for thing in scene.things:
            pixels = np.asarray(Scene(scene.width, scene.height, (thing,), scene.ground).render())[shown(scene, thing)]
            (most, _), *_ = Counter(map(tuple, pixels.tolist())).most_common(1)
            names = {color_name(most), color_name(thing.rgb)}
            assert thing.color in names if thing.edge else names == {thing.color}, (thing, most)


def test_every_colour_of_every_thing_stands_out_from_its_background():
    for scene in scenes(15):
        bare = np.asarray(Scene(scene.width, scene.height, (), scene.ground).render(), int)
        for thing in scene.things:
            x, y = (int(round(v)) for v in np.argwhere(shown(scene, thing)).mean(0)[::-1])
            assert np.abs(np.array(thing.rgb) - bare[y, x]).sum() > 40, (thing, bare[y, x])


def test_five_combinations_are_kept_for_tests():
    assert len(HELD_OUT) == 5 and all(c in COLORS and s in SHAPES for c, s in HELD_OUT)
    for split in ("train", "dev"):
        seen = {(t.color, t.shape) for scene in scenes(120, split) for t in scene.things}
        assert not seen & HELD_OUT and {c for c, _ in seen} == set(COLORS) and {s for _, s in seen} == set(SHAPES)
    kept = [bool({(t.color, t.shape) for t in s.things} & HELD_OUT) for s in scenes(120, "test")]
    assert 0.25 < np.mean(kept) < 0.55
