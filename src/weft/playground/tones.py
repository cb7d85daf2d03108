"""Speech made of tones, and other sounds with exact answers.

Each word is two tones at once, its own pair of twelve; the voice is how fast they pulse, the mood how their loudness
moves. Nobody talks like this, but everything that speech tasks ask for is in it: words and their times, who speaks and
how, another language with other words. All waves are float32 ``[S]`` at `RATE`, a list of words has times in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weft.conversation import Word
from weft.named import beside
from weft.playground.shapes import RATE

WORDS: dict[str, str] = beside(__file__)  # English, and what the same is called in German
NUMBERS = tuple(WORDS)[:6]
NAMES = ("anna", "ben", "clara", "oslo", "paris", "rome")
SPOKEN = {"en": (*WORDS, *NAMES), "de": (*WORDS.values(), *NAMES)}
PITCHES = [300 * 1.21**k for k in range(12)]  # Hz
VOICES = {"a man": 90.0, "a woman": 190.0}  # pulses a second
MOODS = ("happy", "sad", "calm")
SCENES = ("street", "rain", "factory", "room")
VOCAL_SOUNDS = ("laughter", "cough", "sigh")
INSTRUMENTS = ("flute", "organ", "bell")
KEYS = {"major": (1.0, 1.26, 1.5), "minor": (1.0, 1.19, 1.5)}


def say(
    rng: np.random.Generator, words: Sequence[str], language: str = "en", voice: str = "a man", mood: str = "calm"
) -> tuple[np.ndarray, list[Word]]:
    """A clip of the words with short silences between, and when each is said, to 10 ms."""
    at = round(rng.uniform(0.05, 0.2), 2)
    spoken: list[Word] = []
    for word in words:
        length = round(rng.uniform(0.14, 0.22), 2)
        spoken.append(Word(word, round(at, 2), round(at + length, 2)))
        at = round(at + length + rng.uniform(0.04, 0.1), 2)
    wave = rng.normal(0, 0.002, round((at + 0.1) * RATE))
    loudness = rng.uniform(0.2, 0.5)
    for heard in spoken:
        start, end = round(heard.start * RATE), round(heard.end * RATE)
        wave[start:end] += loudness * _word(SPOKEN[language].index(heard.text), language, end - start, voice, mood)
    return wave.astype(np.float32), spoken


def _word(index: int, language: str, samples: int, voice: str, mood: str) -> np.ndarray:
    t = np.arange(samples) / RATE
    pairs = [(low, high) for low in range(12) for high in range(low + 1, 12)]  # 66
    low, high = pairs[(5 * index + (33 if language == "de" else 0)) % len(pairs)]
    tone = 0.5 * np.sin(2 * np.pi * PITCHES[low] * t) + 0.5 * np.sin(2 * np.pi * PITCHES[high] * t)
    pulse = 0.7 + 0.3 * np.sign(np.sin(2 * np.pi * VOICES[voice] * t))
    rise = t / t[-1]
    move = {"happy": 0.3 + 0.7 * rise, "sad": 1 - 0.7 * rise, "calm": np.ones(samples)}[mood]
    return tone * pulse * move * np.minimum(1, np.minimum(t, t[::-1]) / 0.01)


def scene(rng: np.random.Generator, name: str) -> np.ndarray:
    """About a second and a half of a place's noise."""
    t = np.arange(round(rng.uniform(1.2, 1.8) * RATE)) / RATE
    noise = rng.normal(0, 1, len(t))
    if name == "rain":
        made = 0.15 * noise
    elif name == "street":  # a deep rumble that swells
        made = 0.3 * np.sin(2 * np.pi * rng.uniform(50, 80) * t) * (1 + np.sin(2 * np.pi * 0.8 * t)) / 2 + 0.02 * noise
    elif name == "factory":  # beats
        made = 0.3 * np.sign(np.sin(2 * np.pi * 180 * t)) * (np.sin(2 * np.pi * rng.uniform(4, 6) * t) > 0.5)
    else:
        made = 0.004 * noise
    return made.astype(np.float32)


def vocal_sound(rng: np.random.Generator, name: str) -> np.ndarray:
    seconds = {"laughter": 1.2, "cough": 0.3, "sigh": 1.0}[name] * rng.uniform(0.9, 1.1)
    t = np.arange(round(seconds * RATE)) / RATE
    noise = rng.normal(0, 0.3, len(t))
    if name == "laughter":
        noise = np.sin(2 * np.pi * 320 * t) * 0.4 * (np.sin(2 * np.pi * rng.uniform(4.5, 5.5) * t) > 0)
    elif name == "sigh":
        noise *= np.sin(np.pi * t / t[-1]) * 0.4
    return np.pad(noise, (1600, 1600)).astype(np.float32)


def note(rng: np.random.Generator, instrument: str, octave: int) -> np.ndarray:
    """One tone, 200 Hz in octave 0 and twice as high in each further one."""
    t = np.arange(round(rng.uniform(0.5, 0.9) * RATE)) / RATE
    phase = 2 * np.pi * 200 * 2**octave * t
    waves = {"flute": np.sin(phase), "organ": 0.5 * np.sign(np.sin(phase)), "bell": np.sin(phase) * np.exp(-6 * t)}
    return np.pad(0.4 * waves[instrument], (800, 800)).astype(np.float32)


def music(rng: np.random.Generator, key: str, slow: bool) -> np.ndarray:
    """Four chords of one key."""
    t = np.arange(round((0.5 if slow else 0.22) * RATE)) / RATE
    chords = []
    for root in rng.choice([220.0, 247.0, 277.0, 330.0], 4):
        chord = sum(np.sin(2 * np.pi * root * ratio * t) for ratio in KEYS[key])
        chords.append(0.12 * chord * np.minimum(1, np.minimum(t, t[::-1]) / 0.02))
    return np.concatenate(chords).astype(np.float32)
