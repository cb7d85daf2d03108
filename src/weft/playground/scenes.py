"""Pictures of two to six coloured things: what is in one, where, and its pixels.

A thing's box is where its shape ends, exact to the rounding of four digits: the shape is drawn into the box, not
measured afterwards. Everything follows from the generator of random numbers given.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from weft.named import beside
from weft.playground.chance import Chance

_TABLES = beside(__file__)
COLORS, SHAPES = _TABLES["colors"], tuple(_TABLES["shapes"])
DIRECTIONS = ("up", "right", "down", "left")  # of arrows, each a quarter turn from the one before
HELD_OUT: frozenset[tuple[str, str]] = frozenset(map(tuple, _TABLES["held_out"]))
SIDES = (112, 256)  # pixels
SMALL, LARGE = 0.22, 0.30  # the longer side of a thing's box over the shorter side of the picture
SIZES = ((0.12, 0.212), (0.228, 0.292), (0.308, 0.45))  # nothing is drawn near where a word begins
APART = 30.0  # least distance of a thing from its background, CIE76
SMOOTH = 4  # shapes are drawn this many times larger, then made smaller
NEW_PAIR = "new_pair"  # the mark of a sample about a combination held out

Box = tuple[float, float, float, float]
Rgb = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Thing:
    color: str
    shape: str
    box: Box  # fractions of the picture
    extent: float  # longer side of the box over the shorter side of the picture
    rgb: Rgb
    angle: float = 0.0  # degrees, clockwise
    direction: str | None = None  # of an arrow
    edge: Rgb | None = None  # the colour of its outline

    @property
    def size(self) -> str | None:
        return "small" if self.extent < SMALL else "large" if self.extent > LARGE else None

    @property
    def center(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True, slots=True)
class Scene:
    width: int
    height: int
    things: tuple[Thing, ...]  # from back to front
    ground: np.ndarray  # uint8 [rows, columns, 3]: a few colours, blended over the picture

    def render(self) -> Image.Image:
        """The picture, RGB."""
        picture = Image.fromarray(self.ground).resize((self.width, self.height), Image.Resampling.BICUBIC)
        for thing in self.things:
            _paint(picture, thing)
        return picture


def draw_scene(chance: Chance, shape: str | None = None) -> Scene:
    """Two to six things that hide nothing of each other but corners; one of them of a ``shape``, where one is named."""
    while True:
        width, height = (chance.whole(*SIDES) for _ in range(2))
        if max(width, height) > 2 * min(width, height):
            continue
        things: list[Thing] = []
        wanted = chance.whole(2, 6)
        new = chance.one(sorted(HELD_OUT)) if chance.split == "test" and chance.yes(0.4) else None
        kinds = _kinds(chance, new)
        first = (kinds[0][0], shape) if shape else new
        close = chance.yes(0.3)
        for _ in range(60 * wanted):
            if len(things) < wanted:
                kind = chance.one(kinds) if things or first is None else first
                placed = _place(chance, width, height, kind, things, close)
                things += [placed] if placed else []
        ground = _ground(chance, [t.rgb for t in things])
        if len(things) == wanted and ground is not None:
            return Scene(width, height, tuple(things), ground)


def overlap(a: Box, b: Box) -> tuple[float, float]:
    """Two boxes' intersection over their union, and over the smaller one."""
    inter = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return inter / (sum(areas) - inter), inter / min(areas)


def _place(
    chance: Chance, width: int, height: int, kind: tuple[str, str], others: list[Thing], close: bool
) -> Thing | None:
    """One more thing, or None where it would cover another."""
    color, shape = kind
    direction = chance.one(DIRECTIONS) if shape == "arrow" else None
    angle = chance.between(-15, 15) if chance.yes(0.5) else 0.0
    extent = chance.between(*chance.one(SIZES, (4, 3, 3) if len(others) < 3 else (6, 2, 1)))
    span_x, span_y = _span(shape, direction, angle)
    w, h = (extent * min(width, height) * float(span) for span in (span_x, span_y))
    left, top = chance.between(1, width - 1 - w), chance.between(1, height - 1 - h)
    box = (left / width, top / height, (left + w) / width, (top + h) / height)
    for other in others:
        iou, hidden = overlap(box, other.box)
        if iou > 0.05 or hidden > (0.12 if close and other.color != color else 0):
            return None
    rgb = _rgb(chance, color)
    edge = None
    if shape != "key" and chance.yes(0.35):  # of its colour, darker; lighter where that is dark. A key is too thin
        edge = tuple(int(x * 0.55) for x in rgb) if sum(rgb) > 160 else tuple(int(x * 0.6 + 70) for x in rgb)
    return Thing(color, shape, tuple(round(x, 4) for x in box), extent, rgb, angle, direction, edge)  # type: ignore[arg-type]


def _kinds(chance: Chance, new: tuple[str, str] | None) -> list[tuple[str, str]]:
    """The colours and shapes a picture is made of: mostly so few that one word alone does not tell its things apart."""
    colors = chance.shuffled(tuple(COLORS))[: chance.whole(2, 6)]
    shapes = chance.shuffled(SHAPES)[: chance.whole(2, 6)]
    if new:
        colors[0], shapes[0] = new
    return [(c, s) for c in colors for s in shapes if (c, s) == new or (c, s) not in HELD_OUT]


def _rgb(chance: Chance, color: str) -> Rgb:
    hue, saturation, value = (chance.between(*span) for span in COLORS[color])
    return tuple(round(255 * x) for x in colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value))  # type: ignore[return-value]


def _ground(chance: Chance, colors: list[Rgb]) -> np.ndarray | None:
    """A muted background that every colour stands out from: plain, from one shade to another, or softly uneven."""
    rows, columns = chance.one(((1, 1), (1, 2), (2, 1), (2, 2), (7, 7)))
    for _ in range(30):
        hue, saturation, value = chance.between(0, 1), chance.between(0.02, 0.22), chance.between(0.25, 0.96)
        base = np.full((rows, columns, 3), colorsys.hsv_to_rgb(hue, saturation, value)) * 255
        shift = chance.rng.uniform(-18, 18, (rows, columns, 1)) + chance.rng.uniform(-4, 4, (rows, columns, 3))
        ground = np.clip(base + (shift if rows * columns > 1 else 0), 0, 255).round().astype(np.uint8)
        far = _lab(np.array(colors))[:, None] - _lab(ground.reshape(-1, 3))[None]
        if np.sqrt((far**2).sum(-1)).min() > APART:
            return ground
    return None


def _lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB ``[..., 3]`` in 0..255 to CIE L*a*b* (D65)."""
    linear = np.where(rgb <= 10.31475, rgb / 3294.6, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array([[0.4339, 0.2126, 0.0178], [0.3762, 0.7152, 0.1095], [0.1899, 0.0722, 0.8727]])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack((116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])), -1)


# -------------------------------------------------------------------------------------------------------------- shapes

Piece = tuple[bool, np.ndarray]  # filled or cut out, and its corners [points, 2], y downwards


def _round(x: float, y: float, a: float, b: float | None = None) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 65)[:-1]
    return np.stack((x + a * np.cos(turn), y + (b or a) * np.sin(turn)), 1)


def _bar(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _star() -> np.ndarray:
    turn = np.arange(10) * np.pi / 5 - np.pi / 2
    reach = np.where(np.arange(10) % 2, 0.42, 1.0)
    return np.stack((reach * np.cos(turn), reach * np.sin(turn)), 1)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 97)[:-1]
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack((16 * np.sin(t) ** 3, -y), 1) / 16


def _moon() -> np.ndarray:
    """Between an arc and a flatter one, both from horn to horn, open to the right."""
    turn = np.linspace(-0.27 * np.pi, -1.73 * np.pi, 49)  # the long way round, by the left
    outer = np.stack((np.cos(turn), np.sin(turn)), 1)
    x, y = outer[0][0], abs(outer[0][1])
    back = np.linspace(1, -1, 33)
    inner = np.stack((x - 0.85 * np.sqrt(np.clip(1 - back**2, 0, None)), back * y), 1)
    return np.concatenate((outer, inner))


_OUTLINES: dict[str, Callable[..., np.ndarray]] = {
    **{"round": _round, "bar": _bar, "corners": lambda *corners: np.array(corners)},
    **{"star": _star, "heart": _heart, "moon": _moon},
}


def _piece(cut: bool = False, **outline: list[Any]) -> Piece:
    ((kind, numbers),) = outline.items()
    return not cut, _OUTLINES[kind](*numbers)


@lru_cache(maxsize=1024)
def _turned(shape: str, direction: str | None, angle: float) -> tuple[tuple[Piece, ...], np.ndarray]:
    """The pieces of a shape turned, from (0, 0) on, and how far they reach ``[2]``."""
    turn = math.radians(angle + (90 * DIRECTIONS.index(direction) if direction else 0))
    c, s = math.cos(turn), math.sin(turn)
    drawn = [_piece(**piece) for piece in _TABLES["shapes"][shape]]
    pieces = [(filled, points @ np.array([[c, s], [-s, c]])) for filled, points in drawn]
    every = np.concatenate([points for filled, points in pieces if filled])
    low = every.min(0)
    return tuple((filled, points - low) for filled, points in pieces), every.max(0) - low


def _span(shape: str, direction: str | None, angle: float) -> np.ndarray:
    """Width and height of the box ``[2]``, the longer one 1."""
    reach = _turned(shape, direction, angle)[1]
    return reach / reach.max()


def _paint(picture: Image.Image, thing: Thing) -> None:
    size = np.array(picture.size)
    low, high = np.array(thing.box[:2]) * size, np.array(thing.box[2:]) * size
    line = max(1.2, 0.04 * float((high - low).max())) * (thing.edge is not None)
    corner = np.floor(low).astype(int) - math.ceil(line)
    wide, tall = (np.ceil(high).astype(int) + math.ceil(line) - corner).tolist()
    mask = Image.new("L", (wide * SMOOTH, tall * SMOOTH))
    pen = ImageDraw.Draw(mask)
    pieces, reach = _turned(thing.shape, thing.direction, thing.angle)
    for filled, points in pieces:
        placed = (points / reach * (high - low) + low - corner) * SMOOTH - 0.5
        pen.polygon(list(map(tuple, placed.tolist())), fill=255 * filled)
    at = (int(corner[0]), int(corner[1]))
    picture.paste(thing.edge or thing.rgb, at, mask.reduce(SMOOTH))
    if thing.edge:
        inner = mask.filter(ImageFilter.BoxBlur(line * SMOOTH)).point([0] * 250 + [255] * 6)
        picture.paste(thing.rgb, at, ImageChops.darker(inner, mask).reduce(SMOOTH))
