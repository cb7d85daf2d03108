"""Fourteen sounds, and clips of one to four of them, one after another or overlapping a little.

Every sound begins with something to hear and ends with it: what comes in bursts has its first at the start and its last
at the end, and what dies away is cut where it can just be heard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from weft.conversation import Audio
from weft.playground.chance import Chance

RATE = 16000  # samples a second
LONGEST = 10.0  # seconds of a clip
LENGTHS = (0.3, 4.0)  # seconds of a sound
COUNTED = ("beep", "siren", "sweep up", "sweep down", "major chord", "minor chord", "bell")  # two in a row are two


@dataclass(frozen=True, slots=True)
class Sound:
    name: str
    start: float  # seconds, to 10 ms
    end: float
    pitch: float | None = None  # Hz, of a beep


@dataclass(frozen=True, slots=True)
class Clip:
    wave: np.ndarray  # float32 [S] at RATE
    sounds: tuple[Sound, ...]  # by their starts

    @property
    def audio(self) -> Audio:
        return Audio((self.wave, RATE))


def _time(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * RATE)) / RATE


def _tone(hertz: np.ndarray | float, t: np.ndarray, parts: tuple[float, ...] = (1.0,)) -> np.ndarray:
    """A tone of a pitch that may change, with the strengths of its overtones."""
    phase = 2 * np.pi * (hertz * t if np.ndim(hertz) == 0 else np.cumsum(hertz) / RATE)
    return np.asarray(sum(part * np.sin((k + 1) * phase) for k, part in enumerate(parts)), np.float32)


def _noise(chance: Chance, samples: int, low: float, high: float) -> np.ndarray:
    """Noise between two pitches in Hz, its standard deviation 1."""
    size = 1 << max(samples - 1, 1).bit_length()
    bands = np.fft.rfft(chance.rng.standard_normal(size, np.float32))
    hertz = np.arange(len(bands)) * RATE / size
    shaped = np.fft.irfft(bands / (1 + (low / np.maximum(hertz, 1)) ** 4) / (1 + (hertz / high) ** 4), size)[:samples]
    return (shaped / max(float(shaped.std()), 1e-6)).astype(np.float32)


def _bursts(chance: Chance, seconds: float, gap: tuple[float, float], one: Callable[[], np.ndarray]) -> np.ndarray:
    """Short sounds ``gap`` seconds apart, the first at the start, the last ending at the end."""
    made = np.zeros(round(seconds * RATE), np.float32)
    pieces = [one()[: len(made)]]
    more = max(1, round((len(made) - len(pieces[0])) / (chance.between(*gap) * RATE)))
    pieces += [one()[: len(made)] for _ in range(more)]
    starts = np.linspace(0, len(made) - len(pieces[-1]), len(pieces)).round().astype(int)
    for start, piece in zip(starts, pieces, strict=True):
        made[start : start + len(piece)] += piece[: len(made) - start]
    return made


def _beep(chance: Chance, seconds: float, pitch: float) -> np.ndarray:
    return _tone(pitch, _time(seconds), (1, chance.between(0, 0.3)))


def _siren(chance: Chance, seconds: float, pitch: float) -> np.ndarray:
    t = _time(seconds)
    swing = np.sin(2 * np.pi * max(chance.between(1.2, 2.5), 2 / seconds) * t + chance.between(0, 6))
    swing = np.sign(swing) if chance.yes(0.4) else swing  # two tones, or up and down
    return _tone(chance.between(650, 900) * 2 ** (0.4 * swing), t, (1, 0.3, 0.15))


def _sweep(chance: Chance, seconds: float, up: bool) -> np.ndarray:
    t = _time(seconds)
    low, octaves = chance.between(200, 400), chance.between(1.5, 3)
    rise = t / seconds if up else 1 - t / seconds
    return _tone(low * 2 ** (octaves * rise), t, (1, 0.2))


def _chord(chance: Chance, seconds: float, third: int) -> np.ndarray:
    t, root = _time(seconds), chance.between(180, 400)
    return np.asarray(sum(_tone(root * 2 ** (k / 12), t, (1, 0.4, 0.2)) for k in (0, third, 7)), np.float32)


def _bell(chance: Chance, seconds: float, pitch: float) -> np.ndarray:
    t, root = _time(seconds), chance.between(450, 1100)
    rings = ((1, 1, 1), (2.0, 0.6, 1.3), (2.76, 0.5, 1.8), (5.4, 0.3, 3))  # ratio, strength, how fast it dies away
    return np.asarray(sum(a * _tone(root * r, t) * np.exp(-2.4 * d * t / seconds) for r, a, d in rings), np.float32)


def _drum(chance: Chance, seconds: float, pitch: float) -> np.ndarray:
    low = chance.between(60, 110)

    def beat() -> np.ndarray:
        t = _time(0.16)
        return np.exp(-18 * t) * _tone(low * (1 + 1.5 * np.exp(-40 * t)), t) + 0.2 * np.exp(
            -60 * t
        ) * chance.rng.standard_normal(len(t), np.float32)

    return _bursts(chance, seconds, (0.2, 0.4), beat)


def _engine(chance: Chance, seconds: float, pitch: float) -> np.ndarray:
    t = _time(seconds)
    turns = chance.between(28, 55) * (1 + 0.08 * np.sin(2 * np.pi * chance.between(0.3, 1.2) * t))
    return _tone(turns, t, (1, 0.8, 0.9, 0.6, 0.5, 0.4, 0.3, 0.2)) + 0.4 * _noise(chance, len(t), 40, 500)


def _rain(chance: Chance, seconds: float, pitch: float) -> np.ndarray:
    samples = round(seconds * RATE)
    drops = chance.rng.random(samples, np.float32) < chance.between(60, 200) / RATE
    splash = np.exp(-np.arange(80, dtype=np.float32) / 12) * chance.rng.standard_normal(80, np.float32)
    return _noise(chance, samples, 1500, 7000) + np.convolve(6 * drops, splash)[:samples].astype(np.float32)


def _wind(chance: Chance, seconds: float, pitch: float) -> np.ndarray:
    t = _time(seconds)
    gusts = 0.65 + 0.35 * np.sin(2 * np.pi * chance.between(0.3, 0.9) * t + chance.between(0, 6))
    low, whistle = chance.between(150, 300), chance.between(400, 800)
    return gusts * (_noise(chance, len(t), low / 2, low * 2) + 0.5 * _noise(chance, len(t), whistle, whistle * 1.15))


def _clap(chance: Chance, seconds: float, pitch: float) -> np.ndarray:
    def clap() -> np.ndarray:
        t = _time(0.07)
        return np.exp(-55 * t) * _noise(chance, len(t), 900, 4000)

    return _bursts(chance, seconds, (0.22, 0.4), clap)


def _bird(chance: Chance, seconds: float, pitch: float) -> np.ndarray:
    base, up = chance.between(2500, 4200), chance.one((-1, 1))

    def chirp() -> np.ndarray:
        t = _time(chance.between(0.07, 0.14))
        bend = base * (1 + up * 0.35 * t / t[-1]) + 250 * np.sin(2 * np.pi * 35 * t)
        return _tone(bend, t) * np.abs(np.sin(np.pi * t / t[-1])) ** 0.5

    return _bursts(chance, seconds, (0.15, 0.3), chirp)


def _knock(chance: Chance, seconds: float, pitch: float) -> np.ndarray:
    low = chance.between(170, 320)

    def knock() -> np.ndarray:
        t = _time(0.09)
        return np.exp(-45 * t) * (_tone(low, t, (1, 0, 0.5)) + 0.25 * _noise(chance, len(t), 200, 1800))

    return _bursts(chance, seconds, (0.2, 0.35), knock)


SOUNDS: dict[str, Callable[[Chance, float, float], np.ndarray]] = {
    "beep": _beep, "siren": _siren, "sweep up": lambda c, s, _: _sweep(c, s, True),
    "sweep down": lambda c, s, _: _sweep(c, s, False), "major chord": lambda c, s, _: _chord(c, s, 4),
    "minor chord": lambda c, s, _: _chord(c, s, 3), "bell": _bell, "drum": _drum, "engine": _engine, "rain": _rain,
    "wind": _wind, "clap": _clap, "bird": _bird, "knock": _knock,
}  # fmt: skip


def make_sound(chance: Chance, name: str, seconds: float, pitch: float = 800.0) -> np.ndarray:
    """A sound alone, float32 ``[S]``, its peak 1."""
    made = SOUNDS[name](chance, seconds, pitch)
    edge = np.minimum(1, np.arange(1, len(made) + 1, dtype=np.float32) / (0.004 * RATE))  # so that nothing clicks
    made = made * np.minimum(edge, edge[::-1])
    return (made / max(float(np.abs(made).max()), 1e-6)).astype(np.float32)


def draw_names(chance: Chance, least: int = 1) -> list[str]:
    """Up to four sounds; none twice in a row that would then be heard as one."""
    names: list[str] = []
    for _ in range(chance.whole(least, 4)):
        names.append(chance.one([n for n in SOUNDS if n in COUNTED or n not in names[-1:]]))
    return names


def make_clip(
    chance: Chance, names: list[str] | None = None, lengths: list[float] | None = None, apart: bool = False
) -> Clip:
    """A clip of the sounds named, or of one to four; ``lengths`` in seconds. Neighbours overlap by at most a third of
    the shorter one, and only where not ``apart``; no two of one name do.
    """
    names = names or draw_names(chance)
    room = LONGEST - 0.6 - 0.25 * len(names)
    while not lengths:
        drawn = [round(chance.between(*LENGTHS), 2) for _ in names]
        lengths = drawn if sum(drawn) < room else None
    at = round(chance.between(0, 0.5), 2)
    sounds: list[Sound] = []
    for name, seconds in zip(names, lengths, strict=True):
        if sounds:
            shorter = min(seconds, sounds[-1].end - sounds[-1].start)
            before = [s.end for s in sounds]
            if not apart and name != sounds[-1].name and chance.yes(0.3):
                at = sounds[-1].end - chance.between(0.1, 0.33) * shorter
                at = max([at, *(s.end for s in sounds[:-1])])
            else:
                at = max(before) + (0.25 if name == sounds[-1].name else 0.1)
                at += chance.between(0, 0.5 if sum(lengths) < room - 2 else 0)
        at = round(at, 2)
        sounds.append(Sound(name, at, round(at + seconds, 2), chance.between(300, 1600) if name == "beep" else None))
    wave = np.zeros(round((sounds[-1].end + chance.between(0.02, 0.3)) * RATE), np.float32)
    wave += chance.rng.standard_normal(len(wave), np.float32) * np.float32(10 ** chance.between(-4, -2.7))
    for sound in sounds:
        start, end = round(sound.start * RATE), round(sound.end * RATE)
        made = make_sound(chance, sound.name, (end - start) / RATE, sound.pitch or 0.0)
        wave[start:end] += made[: end - start] * chance.between(0.25, 0.6)
    return Clip(np.clip(wave, -1, 1), tuple(sounds))
