"""Coloured shapes and plain sounds with exact answers: enough to see a model learn within minutes.

Everything follows from a seed, on any machine. A picture holds one or two shapes of different colours that do not
touch. A clip holds one or two sounds, one after the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

COLORS = {"red": (214, 48, 49), "green": (46, 160, 67), "blue": (33, 96, 214), "yellow": (240, 196, 25)}
SHAPES = ("circle", "square", "triangle")
SOUNDS = ("beep", "buzz", "hiss", "whoop")
NUMBERS = ("no", "one", "two")
SIDE = 224  # pixels
RATE = 16000  # samples a second
SMOOTH = 2  # pictures are drawn this many times larger, then made smaller

BoxTuple = tuple[float, float, float, float]


@dataclass(frozen=True)
class Shape:
    color: str
    shape: str
    box: BoxTuple  # fractions of the picture

    @property
    def phrase(self) -> str:
        return f"the {self.color} {self.shape}"


@dataclass(frozen=True)
class Sound:
    name: str
    start: float  # seconds
    end: float


def draw_picture(rng: np.random.Generator) -> tuple[Pillow.Image, list[Shape]]:
    """An RGB picture of ``SIDE`` pixels a side, and what is in it."""
    n = int(rng.integers(1, 3))
    colors = rng.permutation(list(COLORS))[:n]
    shade = int(rng.integers(225, 250))
    size = SIDE * SMOOTH
    canvas = Pillow.new("RGB", (size, size), (shade, shade, shade - int(rng.integers(0, 14))))
    pen = ImageDraw.Draw(canvas)
    shapes = [
        Shape(str(color), str(rng.choice(SHAPES)), box) for color, box in zip(colors, places(rng, n), strict=True)
    ]
    for shape in shapes:
        _draw(pen, shape, size)
    return canvas.resize((SIDE, SIDE), Pillow.Resampling.BOX), shapes


def places(rng: np.random.Generator, n: int) -> list[BoxTuple]:
    """Boxes of ``n`` shapes that do not touch. A first box may leave no room for a second: then all are drawn anew."""
    while True:
        boxes: list[BoxTuple] = []
        for _ in range(20 * n):
            side = rng.uniform(0.28, 0.46)
            left, top = rng.uniform(0.02, 0.98 - side, 2)
            box = tuple(round(float(x), 4) for x in (left, top, left + side, top + side))
            if not any(_near(box, other) for other in boxes):
                boxes.append(box)  # type: ignore[arg-type]
            if len(boxes) == n:
                return boxes


def _near(a: tuple[float, ...], b: tuple[float, ...], gap: float = 0.02) -> bool:
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap


def _draw(pen: ImageDraw.ImageDraw, shape: Shape, size: int) -> None:
    left, top, right, bottom = (x * size for x in shape.box)
    fill = COLORS[shape.color]
    if shape.shape == "circle":
        pen.ellipse((left, top, right, bottom), fill=fill)
    elif shape.shape == "square":
        pen.rectangle((left, top, right, bottom), fill=fill)
    else:
        pen.polygon([(left, bottom), (right, bottom), ((left + right) / 2, top)], fill=fill)


def make_clip(rng: np.random.Generator) -> tuple[np.ndarray, list[Sound]]:
    """Mono float32 sound ``[S]`` at ``RATE``, quiet noise between the sounds, and what is heard when."""
    sounds: list[Sound] = []
    at = rng.uniform(0.1, 0.4)
    for _ in range(int(rng.integers(1, 3))):
        length = rng.uniform(0.3, 0.8)
        sounds.append(Sound(str(rng.choice(SOUNDS)), round(at, 2), round(at + length, 2)))
        at += length + rng.uniform(0.15, 0.5)
    wave = rng.normal(0, 0.002, math.ceil(at * RATE))
    for sound in sounds:
        start, end = round(sound.start * RATE), round(sound.end * RATE)
        wave[start:end] += _tone(sound.name, end - start, rng) * rng.uniform(0.15, 0.5)
    return wave.astype(np.float32), sounds


def _tone(name: str, samples: int, rng: np.random.Generator) -> np.ndarray:
    t = np.arange(samples) / RATE
    if name == "beep":
        made = np.sin(2 * np.pi * rng.uniform(900, 1100) * t)
    elif name == "buzz":
        made = np.sign(np.sin(2 * np.pi * rng.uniform(110, 150) * t)) * 0.6
    elif name == "hiss":
        made = rng.normal(0, 0.4, samples)
    else:  # whoop: from low to high
        made = np.sin(2 * np.pi * (250 * t + (1800 - 250) / 2 * t**2 / t[-1]))
    edge = np.minimum(1, np.minimum(t, t[::-1]) / 0.01)  # ten milliseconds in and out, so that nothing clicks
    return made * edge
