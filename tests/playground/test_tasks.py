"""A sample of any task: valid, exact, the same from a seed."""

import numpy as np
import pytest

from weft.conversation import Audio, Box, Image, Text, Words, read_samples
from weft.dialects import get_dialect
from weft.media import image_size, load_audio, load_image
from weft.playground import shapes, tasks, tones


@pytest.mark.parametrize("task", tasks.TASKS)
def test_a_task_gives_valid_samples_the_same_from_a_seed(task, tmp_path):
    one, again, other = (tasks.write(tmp_path / f, task, 8, seed) for f, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert one.read_bytes() == again.read_bytes() != other.read_bytes()
    samples = read_samples(one, probe=image_size)  # every rule of the format, boxes inside their picture included
    assert len({sample.answer for sample in samples}) > 1, "an answer that never changes teaches nothing"
    for sample in samples:
        get_dialect("chatml").render(sample)


@pytest.mark.parametrize("task", tasks.TASKS)
def test_what_is_written_is_what_is_made(task, tmp_path):
    (written,) = read_samples(tasks.write(tmp_path, task, 1, 5), probe=image_size)
    made = tasks.make(task, 0, 5)
    for a, b in zip(written.parts(), made.parts(), strict=True):
        if isinstance(a, Image):
            assert np.array_equal(np.asarray(load_image(a.source)), np.asarray(b.source))
        elif isinstance(a, Audio):
            assert np.abs(load_audio(a.source, shapes.RATE) - b.source[0]).max() < 1e-4
        else:
            assert a == b


def test_words_sound_when_they_are_said_to():
    rng = np.random.default_rng(0)
    for _ in range(20):
        wave, words = tones.say(rng, ["one", "tree", "rome"])
        inside = np.zeros(len(wave), bool)
        for word in words:
            start, end = (round(t * shapes.RATE) for t in (word.start, word.end))
            assert np.abs(wave[start:end]).mean() > 0.02
            inside[start:end] = True
        assert np.abs(wave[~inside]).max() < 0.02


def test_no_two_words_sound_alike():
    """By the two loudest pitches: all words of both languages differ, but names, which are the same in both."""

    def pitches(word, language):
        wave, (said,) = tones.say(np.random.default_rng(0), [word], language)
        start, end = (round(t * shapes.RATE) for t in (said.start, said.end))
        spectrum = np.abs(np.fft.rfft(wave[start:end], 8000))
        found = []
        while len(found) < 2:
            peak = int(spectrum.argmax())
            found.append(min(tones.PITCHES, key=lambda p: abs(p - peak * shapes.RATE / 8000)))
            spectrum[max(peak - 12, 0) : peak + 12] = 0
        return tuple(sorted(found))

    for language in ("en", "de"):
        heard = [pitches(word, language) for word in tones.SPOKEN[language]]
        assert len(set(heard)) == len(heard)


def test_pairs_of_a_task_agree():
    for i in range(30):
        spoken = tasks.make("translate", i, 0).answer.text.split()
        assert all(word in tones.WORDS for word in spoken)
        times = tasks.make("word_times", i, 0).answer.parts[0]
        assert isinstance(times, Words) and all(
            a.end <= b.start for a, b in zip(times.words, times.words[1:], strict=False)
        )
        grounded = tasks.make("grounded_caption", i, 0).answer.parts
        assert [type(p) for p in grounded] == [Text, Box] * (len(grounded) // 2)
        (box,) = tasks.make("detection", i, 0).answer.parts
        assert box.boxes and box.label in shapes.SHAPES
