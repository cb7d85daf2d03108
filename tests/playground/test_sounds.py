"""Sounds: each is heard from its start to its end, and is what it is called."""

import re
from collections import Counter

import numpy as np
import pytest

from weft.conversation import Words
from weft.playground import sound_tasks
from weft.playground.chance import Chance
from weft.playground.sounds import RATE, SOUNDS, draw_names, make_clip, make_sound


def chance(seed):
    return Chance(np.random.default_rng((2, seed)))


def pitch(wave):
    """The strongest frequency in Hz."""
    return float(np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 17)).argmax()) * RATE / (1 << 17)


@pytest.mark.parametrize("name", SOUNDS)
def test_a_sound_is_heard_from_its_start_to_its_end(name):
    for seed, seconds in enumerate((0.3, 0.55, 1.2, 2.5, 4.0)):
        wave = make_sound(chance(seed), name, seconds)
        assert (
            wave.dtype == np.float32 and len(wave) == round(seconds * RATE) and np.abs(wave).max() == pytest.approx(1)
        )
        loud = np.flatnonzero(np.abs(wave) > 0.02)
        assert loud[0] < 0.01 * RATE and len(wave) - loud[-1] < 0.04 * RATE


def test_sounds_have_the_pitches_that_their_names_say():
    for seed in range(3):
        assert pitch(make_sound(chance(seed), "beep", 1.0, 700.0)) == pytest.approx(700, abs=2)
        for name, ratio in (("major chord", 2 ** (4 / 12)), ("minor chord", 2 ** (3 / 12))):
            power = np.abs(np.fft.rfft(make_sound(chance(seed), name, 3.0) * np.hanning(3 * RATE)))
            peaks = (power[1:-1] > power[:-2]) & (power[1:-1] > power[2:]) & (power[1:-1] > power.max() / 2)
            strong = (np.flatnonzero(peaks) + 1) / 3
            assert strong[1] / strong[0] == pytest.approx(ratio, abs=0.01), name
        for name, rises in (("sweep up", True), ("sweep down", False)):
            wave = make_sound(chance(seed), name, 1.0)
            assert (pitch(wave[-2000:]) > 1.5 * pitch(wave[:2000])) is rises
            assert (pitch(wave[:2000]) > 1.5 * pitch(wave[-2000:])) is not rises


@pytest.mark.slow
def test_clips_are_short_and_their_sounds_overlap_a_little_at_most():
    overlaps = 0
    for seed in range(30):
        clip = make_clip(chance(seed))
        assert 1 <= len(clip.sounds) <= 4 and len(clip.wave) <= 10 * RATE and np.abs(clip.wave).max() <= 1
        assert len(clip.wave) / RATE >= clip.sounds[-1].end
        for i, b in enumerate(clip.sounds):
            assert 0.29 < b.end - b.start < 4.01 and b.start == round(b.start, 2)
            for a in clip.sounds[:i]:
                shared = a.end - b.start
                assert a.start < b.start and shared <= min(a.end - a.start, b.end - b.start) / 3 + 0.02
                overlaps += shared > 0
    assert overlaps > 2


def test_two_of_a_kind_are_never_heard_as_one():
    for seed in range(300):
        names = draw_names(chance(seed))
        assert not any(
            a == b and a in ("rain", "wind", "engine", "clap", "knock", "drum", "bird")
            for a, b in zip(names, names[1:], strict=False)
        )


def test_silence_lies_between_sounds_that_are_apart():
    for seed in range(20):
        clip = make_clip(chance(seed), ["beep", "bell", "siren"], apart=True)
        inside = np.zeros(len(clip.wave), bool)
        for sound in clip.sounds:
            inside[round(sound.start * RATE) : round(sound.end * RATE)] = True
        assert np.abs(clip.wave[~inside]).max() < 0.03


def heard(wave):
    """Start and end in seconds of every stretch that is louder than noise, gaps of a twentieth of a second closed."""
    loud = np.flatnonzero(np.abs(wave) > 0.03)
    breaks = np.flatnonzero(np.diff(loud) > RATE / 20)
    return list(zip(loud[[0, *(breaks + 1)]] / RATE, loud[[*breaks, -1]] / RATE, strict=True))


def test_answers_are_what_is_heard():
    """Beeps counted, measured and compared on the wave itself."""
    kinds = Counter()
    for seed in range(90):
        kind = "how many" if seed % 5 < 3 else "how long" if seed % 5 == 3 else "higher"
        clip, (question, answer) = sound_tasks.SOUND_KINDS[kind](chance(seed))
        names = [s.name for s in clip.sounds]
        if question.startswith("How many beeps") and set(names) == {"beep"}:
            assert len(heard(clip.wave)) == int(answer)
        elif question.startswith("How long") and len(names) == 1:
            stretches = heard(clip.wave)
            assert stretches[-1][1] - stretches[0][0] == pytest.approx(float(answer.split()[0]), abs=0.06)
        elif "higher" in question:
            first, second = (pitch(clip.wave[int(a * RATE) : int(b * RATE)]) for a, b in heard(clip.wave))
            assert answer == ("higher" if second > first else "lower")
        else:
            continue
        kinds[question.split()[1]] += 1
    assert len(kinds) == 3 and min(kinds.values()) > 1


@pytest.mark.parametrize("seed", range(40))
def test_what_is_said_of_a_clip_agrees_with_its_sounds(seed):
    clip, (question, answer) = sound_tasks.SOUND_KINDS[("which", "is there")[seed % 2]](chance(seed))
    names = [s.name for s in sorted(clip.sounds, key=lambda s: s.start)]
    bare = re.sub(r"^an? ", "", answer)
    if match := re.match(r"Which sound is (\w+)\?", question):
        assert bare == names[{"last": -1, "first": 0, "second": 1, "third": 2, "fourth": 3}[match[1]]]
    elif match := re.match(r"Which sound comes after the (.+)\?", question):
        assert names.count(match[1]) == 1 and bare == names[names.index(match[1]) + 1]
    else:
        name = re.match(r"(?:Is there|Do you hear) (?:an? )?(.+)\?", question)[1]
        assert answer == ("yes" if name in names else "no")


@pytest.mark.parametrize("seed", range(20))
def test_what_is_located_is_every_sound_of_that_name(seed):
    ((asked, (words,)),) = sound_tasks.locate(chance(seed))
    again = make_clip(chance(seed))
    name = asked[2].text.removeprefix("the ") if len(asked) > 2 else None
    assert isinstance(words, Words)
    assert [(w.text, w.start, w.end) for w in words.words] == [
        (s.name, s.start, s.end) for s in again.sounds if name in (None, s.name)
    ]
