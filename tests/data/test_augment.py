"""Changes to media move boxes and word times along, and never cut what is asked about."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage

from examples import examples
from training_world import RATE, tone
from weft.conversation import Audio, Box, Conversation, Image, Message, Task, Text, Word, Words
from weft.data.augment import Augment, color_sound, mask_features
from weft.data.augment_pictures import augment_images
from weft.data.clip_lengths import cut_points, join_key, spoken_part
from weft.data.clips import ClipPlan, Take, cut_words, draw_clip, make_clip

EVERYTHING = Augment(speed=0.2, pad_seconds=0.3, cut=0.5, join=0.6, join_seconds=20, gain_db=3)


def clip(pitches, number=0, task="transcribe", **fields):
    """A clip of beeps, each a word named by its pitch, with silence around."""
    waves, words, at = [], [], 0
    for pitch in pitches:
        gap, beep = tone(0.1, 0), tone(0.15, pitch)
        waves += [gap, beep]
        words.append(Word(str(pitch), (at + len(gap)) / RATE, (at + len(gap) + len(beep)) / RATE))
        at += len(gap) + len(beep)
    wave = np.concatenate([*waves, tone(0.1, 0)])
    user = Message("user", (Audio((wave, RATE)), Task(task, {"timestamps": True, **fields})))
    return Conversation((user, Message("assistant", (Words(tuple(words), 0),))), str(number))


def sounding(wave, word):
    """Whether a word's time in the clip sounds throughout, up to 6 ms at its ends."""
    inside = wave[round((word.start + 0.006) * RATE) : round((word.end - 0.006) * RATE)]
    envelope = np.abs(inside[: len(inside) // 160 * 160]).reshape(-1, 160).max(1)
    return len(envelope) > 0 and envelope.min() > 0.05


def silent(wave, words):
    """Whether nothing sounds where no word is, 8 ms around words left out."""
    mask = np.ones(len(wave), bool)
    for w in words:
        mask[max(0, round((w.start - 0.008) * RATE)) : round((w.end + 0.008) * RATE)] = False
    return not mask.any() or np.abs(wave[mask]).max() < 0.02


@examples(60)
@given(st.integers(0, 10**6))
def test_words_stay_on_their_sound_whatever_is_done_to_the_clip(seed):
    rng = np.random.default_rng(seed)
    clips = [clip(rng.integers(2, 9, int(rng.integers(1, 5))) * 100, i) for i in range(4)]
    points = [cut_points(c.answer.parts[0].words, len(c.audios[0].source[0]), RATE) for c in clips]
    augment = EVERYTHING.model_copy(update={"cut_words": rng.choice([None, 0.0, 1.5])})
    plan = draw_clip(augment, rng, 1, points.__getitem__, np.arange(4), RATE)
    made = make_clip(plan, RATE, clips.__getitem__, lambda c: c.audios[0].source[0])
    wave, rate = made.audios[0].source
    words = made.answer.parts[0].words
    assert rate == RATE
    assert len(wave) == plan.samples
    assert all(a.end <= b.start + 1e-6 for a, b in zip(words, words[1:], strict=False))
    assert words[-1].end <= len(wave) / RATE + 1e-6
    assert all(sounding(wave, w) for w in words)
    assert silent(wave, words)


def test_joined_clips_have_both_answers_and_one_prompt():
    clips = [clip([300, 400]), clip([500])]
    takes = tuple(Take(i, 0, len(c.audios[0].source[0])) for i, c in enumerate(clips))
    made = make_clip(ClipPlan(takes), RATE, clips.__getitem__, lambda c: c.audios[0].source[0])
    assert [w.text for w in made.answer.parts[0].words] == ["300", "400", "500"]
    assert made.messages[0].parts[1] == clips[0].messages[0].parts[1]
    assert len(made.audios[0].source[0]) == sum(t.stop for t in takes)


def test_where_nothing_is_said_nothing_is_joined_to_the_words():
    clips = [clip([300]), clip([400]), clip([500])]
    said = [
        replace(c, messages=(c.messages[0], Message("assistant", (Text(words),))))
        for c, words in zip(clips, ("", "one ", "two"), strict=True)
    ]
    for order, joined in (((0, 1), "one"), ((1, 0, 2), "one two"), ((0, 0), "")):
        plan = ClipPlan(tuple(Take(i, 0, len(said[i].audios[0].source[0])) for i in order))
        made = make_clip(plan, RATE, said.__getitem__, lambda c: c.audios[0].source[0])
        assert made.answer.parts == (Text(joined),)


def test_a_changed_clip_keeps_what_is_not_to_be_learned():
    one = clip([300, 400])
    marked = replace(one, messages=(one.messages[0], replace(one.messages[1], learn=False)))
    assert join_key(one) != join_key(marked)
    for plan in (
        ClipPlan((Take(0, 0, len(one.audios[0].source[0]), words=(0, 1)),)),
        ClipPlan((Take(0, 0, len(one.audios[0].source[0])),) * 2, tail=100),
        ClipPlan((Take(0, 0, len(one.audios[0].source[0])),), untimed=True),
    ):
        made = make_clip(plan, RATE, [marked].__getitem__, lambda c: c.audios[0].source[0])
        assert [m.learn for m in made.messages] == [True, False]


def test_an_untimed_transcript_asks_for_no_times_and_has_the_same_words():
    one = clip([300, 400])
    plan = ClipPlan((Take(0, 0, len(one.audios[0].source[0])),), untimed=True)
    made = make_clip(plan, RATE, [one].__getitem__, lambda c: c.audios[0].source[0])
    assert made.answer.parts == (Text("300 400"),)
    assert made.messages[0].task.get("timestamps") is False


def test_only_transcripts_can_be_asked_for_without_times():
    """When each sound is heard has one wording: without times it would be the wrong answer to it."""
    one = clip([300, 400], task="locate")
    plan = ClipPlan((Take(0, 0, len(one.audios[0].source[0])),), untimed=True)
    made = make_clip(plan, RATE, [one].__getitem__, lambda c: c.audios[0].source[0])
    assert [w.text for w in made.answer.parts[0].words] == ["300", "400"]


def test_overlapping_words_are_not_cut_apart():
    assert cut_points([Word("a", 0.1, 0.6), Word("b", 0.5, 0.9)], RATE, RATE) == [0, RATE]


def test_words_without_a_gap_are_cut_where_they_meet():
    words = [Word("a", 0.1, 0.50003), Word("b", 0.50003, 0.9)]  # between two samples
    points = cut_points(words, RATE, RATE)
    assert points == [0, 8000, RATE]
    for first, kept in enumerate(([Word("a", 0.1, 0.5)], [Word("b", pytest.approx(0.00003), pytest.approx(0.4))])):
        take = Take(0, points[first], points[first + 1], words=(first, first))
        assert cut_words(tone(1.0, 200), words, RATE, take)[1] == kept


@pytest.mark.parametrize(
    ("task", "answer", "editable"), [("note", Text("C4"), False), ("transcribe", Text("hi"), True)]
)
def test_only_speech_is_stretched(task, answer, editable):
    sample = Conversation((Message("user", (Audio("x.wav"), Task(task))), Message("assistant", (answer,))))
    assert (spoken_part(sample) is not None) is editable


def timed(*texts):
    return Words(tuple(Word(t, 0.1 * i, 0.1 * i + 0.1) for i, t in enumerate(texts)))


HEARD = Message("user", (Audio("x.wav"), Task("transcribe", {"timestamps": True})))


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        ((HEARD, Message("assistant", (timed("a"),))), True),
        ((HEARD, Message("assistant", (Text("Two words: "), timed("a", "b")))), False),  # text beside may speak of them
        ((HEARD, Message("assistant", (timed("a"), Text(" and "), timed("b")))), False),  # one of two would move
        ((HEARD, Message("assistant", (timed("a"),)), Message("user", (Text("In what language?"),)),
          Message("assistant", (Text("English"),))), False),  # the first answer would keep its times
        ((HEARD, Message("assistant", (Text("a b"),)), Message("user", (Text("when?"),)),
          Message("assistant", (timed("a", "b"),))), False),  # the first answer would keep its words
        ((HEARD, Message("assistant", (Text("a"), Text("b")))), False),
    ],
)  # fmt: skip
def test_a_clip_changes_only_where_all_that_is_said_of_it_changes_along(messages, found):
    assert (spoken_part(Conversation(messages)) is not None) is found


def test_samples_are_joined_only_where_the_prompt_is_the_same():
    assert join_key(clip([300])) == join_key(clip([400, 500]))
    assert join_key(clip([300], language="en")) != join_key(clip([300], language="de"))
    two = clip([300])
    assert join_key(Conversation(two.messages * 2)) is None


def draws(seed, augment):
    points = [RATE * i // 2 for i in range(5)]
    return draw_clip(augment, np.random.default_rng(seed), 0, lambda _: points, np.arange(50), RATE)


def test_a_plan_is_the_same_when_drawn_again_and_no_longer_than_allowed():
    augment = EVERYTHING.model_copy(update={"join": 0.95, "join_seconds": 9.0})
    for seed in range(30):
        first = draws(seed, augment)
        assert first == draws(seed, augment)
        assert sum(t.samples for t in first.takes) <= 9 * RATE


def test_a_cut_clip_has_no_more_words_than_asked_for():
    augment = EVERYTHING.model_copy(update={"cut": 1.0, "join": 0.0})
    for limit, most in ((0, 1), (0.5, 2), (1, 2), (2.5, 4)):
        plans = [draws(seed, augment.model_copy(update={"cut_words": limit})) for seed in range(60)]
        counts = [last - first + 1 for first, last in (plan.takes[0].words for plan in plans)]
        assert max(counts) == most and min(counts) == 1


def test_noise_has_the_level_asked_for():
    wave = tone(1.0, 200)
    augment = Augment(noise_db=(20, 20))
    for seed in range(8):
        changed = color_sound(wave, augment, np.random.default_rng(seed))
        noise = changed - wave
        if np.abs(noise).max() > 0:
            ratio = 10 * np.log10(np.mean(wave**2) / np.mean(noise**2))
            assert abs(ratio - 20) < 0.7


def test_masks_change_a_copy_and_only_stretches_and_bands():
    window = np.random.default_rng(0).normal(size=(80, 20)).astype(np.float32)
    augment = Augment(time_masks=1, time_mask_frames=8, freq_masks=1, freq_mask_bands=4)
    kept = window.copy()
    for seed in range(10):
        (masked,) = mask_features([window], augment, np.random.default_rng(seed))
        assert np.array_equal(window, kept)
        changed = masked != window
        rows, columns = changed.all(1).sum(), changed.all(0).sum()
        assert changed.sum() == rows * 20 + columns * 80 - rows * columns
        assert rows <= 8 and columns <= 4


def scene(boxes, text="find it"):
    """A picture whose boxes are bright rectangles on black."""
    pixels = np.zeros((120, 160, 3), np.uint8)
    for left, top, right, bottom in boxes:
        pixels[round(top * 120) : round(bottom * 120), round(left * 160) : round(right * 160)] = 255
    user = Message("user", (Image(PILImage.fromarray(pixels)), Task("detection"), Text(text)))
    parts = (Box(tuple(boxes), "it", 0),) if boxes else (Text("none at all"),)
    return Conversation((user, Message("assistant", parts)))


@examples(60)
@given(st.integers(0, 10**6), st.booleans())
def test_boxes_stay_on_their_pixels_whole(seed, flip):
    rng = np.random.default_rng(seed)
    corners = [(*rng.uniform(0, 0.7, 2), *rng.uniform(0.1, 0.3, 2)) for _ in range(int(rng.integers(1, 4)))]
    grid = [(round(x * 16) / 16, round(y * 12) / 12, w, h) for x, y, w, h in corners]
    boxes = [
        (x, y, min(1, x + max(1, round(w * 16)) / 16), min(1, y + max(1, round(h * 12)) / 12)) for x, y, w, h in grid
    ]
    made = augment_images(scene(boxes), Augment(shift=0.4, scale=0.6, flip=flip), rng)
    picture = np.asarray(made.images[0].source.convert("L"), np.float32)
    height, width = picture.shape
    moved = made.answer.parts[0].boxes
    assert len(moved) == len(boxes)
    inside = np.zeros(picture.shape, bool)
    for (left, top, right, bottom), old in zip(moved, boxes, strict=True):
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
        assert abs((right - left) * width - (old[2] - old[0]) * 160) < 1e-6  # crops are not resized: nothing was cut
        assert abs((bottom - top) * height - (old[3] - old[1]) * 120) < 1e-6
        inside[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    assert (picture[inside] > 200).all()


@pytest.mark.parametrize("seed", range(12))
def test_a_picture_without_boxes_is_never_cut(seed):
    sample = scene([])
    pixels = np.asarray(sample.images[0].source).copy()
    pixels[0, :], pixels[-1, :], pixels[:, 0], pixels[:, -1] = 255, 255, 255, 255
    sample.messages[0].parts[0].source.paste(PILImage.fromarray(pixels))
    made = augment_images(sample, Augment(shift=0.4, scale=0.6), np.random.default_rng(seed)).images[0].source
    assert made.size[0] >= 160 and made.size[1] >= 120
    assert (np.asarray(made.convert("L")) > 200).sum() == 2 * 160 + 2 * 118


def test_no_flip_where_the_text_says_left():
    box = [(0.0, 0.0, 0.25, 0.25)]
    for seed in range(8):
        made = augment_images(scene(box, "the left one"), Augment(flip=True), np.random.default_rng(seed))
        assert made.answer.parts[0].boxes == tuple(box)


def test_a_picture_that_is_counted_too_stays_in_view_whole():
    found = scene([(0.4, 0.4, 0.6, 0.6)])
    counted = (Message("user", (Text("how many?"),)), Message("assistant", (Text("1"),)))
    both = replace(found, messages=(*found.messages, *counted))
    crops = Augment(shift=0.5, scale=1.0)
    for seed in range(30):
        made = augment_images(both, crops, np.random.default_rng(seed))
        (box,) = made.answer.parts if isinstance(made.answer.parts[0], Box) else made.messages[1].parts
        ((left, _, right, _),) = box.boxes
        assert right - left <= 0.2 + 1e-9  # never nearer than the whole picture
    widths = []
    for seed in range(30):
        ((left, _, right, _),) = augment_images(found, crops, np.random.default_rng(seed)).messages[1].parts[0].boxes
        widths.append(right - left)
    assert max(widths) > 0.25


def test_a_picture_that_a_clip_speaks_of_is_not_mirrored():
    """Nobody reads whether the clip says left or right."""
    red = PILImage.new("RGB", (20, 10))
    red.paste((255, 0, 0), (0, 0, 5, 10))
    answer = Message("assistant", (Box(((0.0, 0.0, 0.25, 1.0),), "cup", 0),))
    asked = Conversation((Message("user", (Image(red), Audio((np.zeros(800), 16000)))), answer))
    for seed in range(8):
        made = augment_images(asked, Augment(flip=True), np.random.default_rng(seed))
        assert made.images[0].source.getpixel((1, 1)) == (255, 0, 0)
