"""Speech with the exact time of every word: espeak-ng's voices, at many speeds and pitches, in rooms and in noise."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import soxr

from weft.conversation import Audio, WeftError, Word
from weft.named import beside
from weft.playground.chance import Chance

VOICES: dict[str, dict[str, str]] = beside(__file__)  # of each language: its name, and who is heard
HELD_OUT_VOICES = ("en-gb-x-gbcwmd+m5", "en-us+linda")  # heard in tests only
SPEEDS, HELD_OUT_SPEEDS = (120, 220), (185, 200)  # words a minute; the second only in tests
RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100)  # samples a second
NEW_VOICE, NEW_SPEED = "new_voice", "new_speed"
UNSEEN = "\u200b"  # a blank of no width
SILENT = 0.01  # of the loudest moment: what is quieter is no word any more
PAUSE = 0.03  # seconds


@dataclass(frozen=True, slots=True)
class Speech:
    """``words`` are as written, without the punctuation around them; times in seconds, to 10 ms."""

    text: str
    language: str
    voice: str
    wave: np.ndarray  # float32 [S]
    rate: int
    words: tuple[Word, ...]

    @property
    def audio(self) -> Audio:
        return Audio((self.wave, self.rate))

    @property
    def seconds(self) -> float:
        return len(self.wave) / self.rate

    @property
    def speaker(self) -> str:
        return VOICES[self.language][self.voice]


def say_aloud(chance: Chance, text: str, language: str = "en", speaker: str | None = None) -> Speech:
    """A clip of ``text``: a voice (of a "man" or a "woman", if it matters), speed, pitch, room, noise and sampling rate
    by chance. Raises WeftError where espeakng-loader is missing.
    """
    new = chance.split == "test" and chance.yes()
    voices = [v for v, who in VOICES[language].items() if speaker in (None, who)]
    held = [v for v in voices if v in HELD_OUT_VOICES]
    voice = chance.one(held if new and held and chance.yes(0.6) else [v for v in voices if v not in held])
    low, high = HELD_OUT_SPEEDS
    while True:
        speed = chance.whole(*SPEEDS)
        if (low <= speed < high) == (new and (voice not in held)):
            break
    if voice in held:
        chance.marks.add(NEW_VOICE)
    if low <= speed < high:
        chance.marks.add(NEW_SPEED)
    wave, rate, words = spoken(text, voice, speed, chance.whole(30, 70))
    before, after = chance.between(0, 1), chance.between(0, 1)
    silence = [np.zeros(round(s * rate), np.float32) for s in (before, after)]
    wave = np.concatenate((silence[0], wave, silence[1]))
    shift = len(silence[0]) / rate
    if chance.yes(0.35):
        wave = _in_a_room(chance, wave, rate)
    wave = wave * chance.between(0.15, 0.8) / max(float(np.abs(wave).max()), 1e-6)
    wanted = chance.one(RATES)
    if wanted != rate:
        wave = soxr.resample(wave, rate, wanted)
    if chance.yes(0.6):
        loudness = float(np.sqrt(np.mean(wave**2)))
        noise = chance.rng.standard_normal(len(wave), np.float32)
        if chance.yes():  # deeper, as of a fan
            noise = np.convolve(noise, np.full(8, 8**-0.5, np.float32))[: len(noise)]
        wave = wave + noise * loudness * 10 ** (-chance.between(15, 40) / 20)
    wave = np.clip(wave, -1, 1).astype(np.float32)
    timed = tuple(Word(w, round(a + shift, 2), round(b + shift, 2)) for w, a, b in words)
    return Speech(text, language, voice, wave, wanted, timed)


def spoken(
    text: str, voice: str, speed: int = 175, pitch: int = 50
) -> tuple[np.ndarray, int, list[tuple[str, float, float]]]:
    """What espeak-ng says, float32 ``[S]`` at its own rate, and each word with its start and end in seconds.

    espeak-ng takes some neighbours ("of the", "in the", "have been") for one word and gives one time for both. A blank
    of no width before each word keeps them apart and changes no sound of them. It does not say where a word ends:
    that is where the next begins, less the silence between. After a pause a word begins with its first sound.
    """
    from weft.playground.espeak import speak

    tokens = re.sub(r" (?=[?!:;](?:\s|$))", "\u00a0", text).split(" ")  # French sets its marks apart
    joined = f" {UNSEEN}".join(tokens)
    try:
        raw, rate, starts = speak(joined, voice, speed, pitch)
    except ImportError:
        raise WeftError(
            "the playground's speech needs espeak-ng, which is not installed: pip install espeakng-loader"
        ) from None
    wave = np.frombuffer(raw, np.int16).astype(np.float32) / 32768
    floor = SILENT * float(np.abs(wave).max(initial=0))
    begins: dict[int, float] = {}
    places = np.cumsum([0] + [len(t) + 2 for t in tokens])  # where each token starts in what was said
    for milliseconds, position in starts:
        begins.setdefault(int(np.searchsorted(places, position + 1, side="right")) - 1, milliseconds / 1000)
    words = []
    order = sorted(begins)
    for here, after in zip(order, [*order[1:], None], strict=True):
        first, last = begins[here], len(wave) / rate if after is None else begins[after]
        word = re.sub(r"^\W+|\W+$", "", tokens[here])
        loud = np.flatnonzero(np.abs(wave[int(first * rate) : int(last * rate)]) > floor)
        if not word or not len(loud):
            continue  # a mark between blanks, which is not spoken
        paused = not (np.abs(wave[max(int((first - PAUSE) * rate), 0) : int(first * rate)]) > floor).any()
        start = first + int(loud[0]) / rate if paused else first
        words.append((word, start, min(first + (int(loud[-1]) + 1) / rate, last)))
    return wave, rate, words


def _in_a_room(chance: Chance, wave: np.ndarray, rate: int) -> np.ndarray:
    """A little reverberation: noise that dies away within a fifth to half a second, well below the voice itself."""
    seconds = chance.between(0.2, 0.5)
    t = np.arange(int(seconds * rate)) / rate
    tail = chance.rng.standard_normal(len(t)) * np.exp(-6.9 * t / seconds)
    tail *= chance.between(0.15, 0.4) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    size = 1 << math.ceil(math.log2(len(wave) + len(tail)))
    wet = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(tail, size), size)[: len(wave)]
    return wet.astype(np.float32)
