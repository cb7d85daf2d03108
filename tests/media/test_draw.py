from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_files import photo
from PIL import Image

from examples import examples
from weft.conversation.types import Box, Word
from weft.media.draw import PALETTE, draw_boxes, text_color
from weft.media.timeline import timeline_image

WORDS = [Word("hello", 0.31, 0.62), Word("<b>&", 0.62, 0.7), Word("世界", 0.7, 0.7), Word("again", 1.2, 11.0)]
fraction = st.floats(-0.5, 1.5)


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    boxes=st.lists(st.tuples(fraction, fraction, fraction, fraction), max_size=4),
    label=st.text(max_size=60),
    dashed=st.booleans(),
)
@examples(30)
def test_any_box_and_label_can_be_drawn_on_any_picture(size, boxes, label, dashed):
    drawn = draw_boxes(Image.new("RGB", size), boxes, [label] * len(boxes), dashed=dashed, min_side=128)
    assert drawn.mode == "RGB" and max(drawn.size) == max(128, *size)


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (3000, 2)])
def test_slivers_can_be_drawn_on(size):
    assert draw_boxes(Image.new("RGB", size), [(0, 0, 1, 1)], ["label"]).size[0] >= 1


def test_a_box_is_drawn_where_it_is_and_the_picture_is_left_alone():
    image = Image.new("RGB", (600, 600), "white")
    drawn = np.asarray(draw_boxes(image, [(0.25, 0.5, 0.75, 0.75)])).astype(int)
    rows, columns = np.where(np.abs(drawn - 255).sum(axis=2) > 0)
    assert abs(columns.min() - 150) <= 3 and abs(columns.max() - 450) <= 3
    assert abs(rows.min() - 300) <= 3 and abs(rows.max() - 450) <= 3
    assert (np.asarray(image) == 255).all()
    assert (drawn[330:420, 180:420] == 255).all()


def test_labels_stay_inside_and_apart():
    image = Image.new("RGB", (400, 300), "white")
    box = (0.9, 0.0, 1.0, 0.05)
    plain = np.asarray(draw_boxes(image, [box] * 3)).astype(int)
    labelled = np.asarray(draw_boxes(image, [box] * 3, ["first thing", "second thing", "third thing"])).astype(int)
    covered = []
    for color in PALETTE[:3]:
        wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
        covered.append((np.abs(labelled - wanted).sum(axis=2) < 60) & (np.abs(plain - wanted).sum(axis=2) >= 60))
    assert all(mask.sum() > 300 for mask in covered)


def test_parts_share_label_and_colour_over_their_boxes():
    part = Box(((0.1, 0.1, 0.3, 0.3), (0.5, 0.5, 0.8, 0.8)), "cup")
    assert draw_boxes(photo(), [part, part]).size == (512, 384)


def test_letters_are_readable_on_every_colour_of_the_palette():
    assert text_color("#ffffff") == text_color("#ffe119") == "#000000"
    assert text_color("#000000") == text_color("#911eb4") == "#ffffff"


def test_a_timeline_draws_every_word_and_the_sound():
    def drawn(words, wave=None):
        return np.asarray(timeline_image([("expected", words), ("given <", WORDS[:2])], 12.0, wave))

    whole = drawn(WORDS)
    for i, word in enumerate(WORDS):  # each other text or missing word is another picture
        assert not np.array_equal(whole, drawn([*WORDS[:i], replace(word, text="ßo"), *WORDS[i + 1 :]]))
    assert drawn(WORDS, np.sin(np.arange(5000) / 50)).shape[0] > whole.shape[0]


words = st.builds(
    lambda text, start, length: Word(text, start, start + length),
    st.text(max_size=12),
    st.one_of(st.floats(0, 40), st.sampled_from([1e9, float("nan")])),
    st.floats(0, 3),
)


@given(rows=st.lists(st.tuples(st.text(max_size=5), st.lists(words, max_size=6)), max_size=3), sound=st.booleans())
@examples(15)
def test_any_words_can_be_drawn(rows, sound):
    wave = np.zeros(100) if sound else None
    assert timeline_image(rows, None, wave, width=300, scale=1).width == 300


def test_thousands_of_words_at_one_place_stay_a_picture():
    crowd = [Word("word", 1.0, 1.01)] * 3000
    assert timeline_image([("given", crowd)], 2.0, scale=1).height < 1000
