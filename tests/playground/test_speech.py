"""Speech: the same bytes whatever was said before, and a true time for every word."""

import re
import sys

import numpy as np
import pytest

from weft.conversation import Task, WeftError, Words
from weft.playground import espeak as engine
from weft.playground import sentences
from weft.playground.chance import Chance
from weft.playground.phrases import LANGUAGES
from weft.playground.sound_tasks import SPEECH_TASKS
from weft.playground.speech import HELD_OUT_VOICES, RATES, VOICES, say_aloud, spoken


def chance(seed, split="train", language="en"):
    return Chance(np.random.default_rng((6, seed)), split, language)


@pytest.fixture
def espeak():
    return pytest.importorskip("espeakng_loader", reason="needs espeak-ng: pip install espeakng-loader")


def test_a_missing_espeak_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setattr(engine, "_servers", {})
    with pytest.raises(WeftError, match="pip install espeakng-loader"):
        spoken("hello", "en-us")


def test_the_same_words_give_the_same_bytes_whatever_was_said_before(espeak):
    first, *_ = spoken("good morning", "en-us")
    spoken("Something else entirely.", "fr+Annie", 210, 70)
    assert np.array_equal(first, spoken("good morning", "en-us")[0])
    assert not np.array_equal(first, spoken("good morning", "en-us", 140)[0])
    assert not np.array_equal(first, spoken("good morning", "en-us", 175, 70)[0])


def test_a_voice_that_does_not_exist_is_said_to_be_missing(espeak):
    with pytest.raises(OSError, match="xx-nobody"):
        spoken("hello", "xx-nobody")
    assert len(spoken("hello", "en-us")[0])  # and the next is spoken as ever


def test_every_voice_is_a_voice_of_its_own_and_the_same_in_every_process(espeak, monkeypatch):
    """A variant that espeak-ng does not have sounds as if none had been asked for; one with breath changes."""
    waves = {v: spoken("one two", v)[0].tobytes() for voices in VOICES.values() for v in voices}
    assert len(set(waves.values())) == len(waves)
    monkeypatch.setattr(engine, "_servers", {})
    assert all(spoken("one two", v)[0].tobytes() == wave for v, wave in waves.items())
    assert len(VOICES["en"]) >= 12 and set(VOICES) == set(LANGUAGES)
    assert all(set(voices.values()) == {"man", "woman"} for voices in VOICES.values())


@pytest.mark.parametrize(
    ("voice", "text"),
    [
        ("en-us", "What is left of the star in the middle of the house?"),
        ("en", "I am going to be at the top of the tree, as it has been on the left."),
        ("en-gb-scotland", "They would have been there if it had not been for the rain."),
        ("fr", "Qu'y a-t-il à gauche de l'objet bleu ?"),
        ("de", "Was ist größer, das Kreuz oder das rote Haus?"),
        ("es", "¿Qué hay a la izquierda de la estrella?"),
    ],
)
def test_every_word_has_a_time_of_its_own(espeak, voice, text):
    """Also those that espeak-ng counts as one with their neighbours."""
    wave, rate, words = spoken(text, voice)
    expected = [re.sub(r"^\W+|\W+$", "", w) for w in text.split() if re.search(r"\w", w)]
    assert [w for w, _, _ in words] == expected
    assert all(b - a > 0.02 for _, a, b in words)
    assert all(end <= start for (_, _, end), (_, start, _) in zip(words, words[1:], strict=False))
    assert words[0][1] < 0.1 and words[-1][2] <= len(wave) / rate


@pytest.mark.parametrize("voice", ["en-us", "en+Annie", "fr", "de+m3", "es"])
def test_a_word_alone_sounds_from_its_start_to_its_end(espeak, voice):
    for word in ("lemon", "arena", "sofa", "no"):
        wave, rate, ((_, start, end),) = spoken(word, voice)
        loud = np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max()) / rate
        assert start == pytest.approx(loud[0], abs=0.015) and end == pytest.approx(loud[-1], abs=0.015), word


@pytest.mark.parametrize("word", ["sunny", "house", "fish"])
def test_words_between_pauses_begin_and_end_where_the_sound_does(espeak, word):
    """Commas make espeak-ng pause, so that energy alone finds each word."""
    wave, rate, words = spoken(f"Now, {word}, then.", "en-us", 130)
    loud = np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max())
    breaks = np.flatnonzero(np.diff(loud) > rate / 10)
    assert len(breaks) == 2
    begins, ends = loud[[0, *(breaks + 1)]] / rate, loud[[*breaks, -1]] / rate
    for (_, start, end), begin, finish in zip(words, begins, ends, strict=True):
        assert start == pytest.approx(begin, abs=0.015) and end == pytest.approx(finish, abs=0.015)


def test_clips_vary_in_voice_speed_rate_and_room(espeak):
    clips = [say_aloud(chance(i), "The lemon is on the table.") for i in range(40)]
    assert (
        len({c.voice for c in clips}) > 8 and {c.rate for c in clips} <= set(RATES) and len({c.rate for c in clips}) > 4
    )
    lengths = [c.words[-1].end - c.words[0].start for c in clips]
    assert max(lengths) > 1.4 * min(lengths)
    for clip in clips:
        assert clip.wave.dtype == np.float32 and 0.1 < np.abs(clip.wave).max() <= 1
        assert 0 <= clip.words[0].start <= 1.1 and clip.words[-1].end <= clip.seconds
        inside = clip.wave[int(clip.words[0].start * clip.rate) : int(clip.words[-1].end * clip.rate)]
        outside = clip.wave[: int(max(clip.words[0].start - 0.05, 0) * clip.rate)]
        if len(outside) > clip.rate // 20:  # noise at 15 dB and more below the whole
            assert np.sqrt(np.mean(outside**2)) < 0.2 * np.sqrt(np.mean(inside**2))
        assert all(w.start == round(w.start, 2) for w in clip.words)


@pytest.mark.slow
def test_two_voices_and_a_band_of_speeds_are_heard_in_tests_alone(espeak):
    for split in ("train", "dev"):
        for i in range(40):
            one = chance(i, split)
            assert say_aloud(one, "hello").voice not in HELD_OUT_VOICES and not one.marks
    marks = set()
    for i in range(40):
        one = chance(i, "test")
        voice = say_aloud(one, "hello").voice
        assert ("new_voice" in one.marks) == (voice in HELD_OUT_VOICES)
        marks |= one.marks
    assert marks == {"new_voice", "new_speed"}


def test_a_speaker_can_be_chosen(espeak):
    assert {say_aloud(chance(i), "hello", "de", "woman").speaker for i in range(6)} == {"woman"}


@pytest.mark.parametrize("seed", range(8))
def test_answers_agree_with_what_is_said(espeak, seed):
    language = LANGUAGES[seed % 4]
    ((_, (words,)),) = SPEECH_TASKS["word_times"](chance(seed, language=language))
    again = chance(seed, language=language)
    text = sentences.sentence(again)[0] if language == "en" else sentences.alike(again)[LANGUAGES.index(language)]
    assert isinstance(words, Words) and [w.text for w in words.words] == re.findall(r"\w(?:[\w'’-]*\w)?", text)
    ((asked, (located,)),) = SPEECH_TASKS["locate_word"](chance(seed, language=language))
    assert asked[2].text == f'the word "{located.words[0].text}"' and located.words[0] in words.words
    ((asked, (told,)),) = SPEECH_TASKS["translate"](chance(seed, language=language))
    assert isinstance(asked[1], Task) and asked[1].get("to") == language != asked[1].get("language")
    assert told.text == sentences.alike(chance(seed, language=language))[LANGUAGES.index(language)]
