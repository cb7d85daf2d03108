"""Words on a timeline, as a picture: who said what when, beside the sound itself.

Long clips wrap like text, some seconds a line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from weft.conversation.types import Word
from weft.media.draw import PALETTE, fit_text, get_font, line_metrics, one_line, text_color, text_width

INK, PALE, LINE, WAVE = "#24292f", "#6e7781", "#d8dee4", "#b6c2cf"
_MARGIN, _TITLE, _BAR, _LABEL, _WAVE, _AXIS = 16, 88, 20, 17, 44, 18  # heights and widths in pixels
_FONT = 12
_MAX_LINES, _MAX_LANES = 60, 24  # absurd times or thousands of words at one place must not make an endless picture
_COLORS = tuple(PALETTE[i] for i in (2, 3, 1, 5, 9, 0, 4, 7))


class _Canvas:
    """What is to be drawn, its height known only at the end. Lengths are pixels at scale 1."""

    def __init__(self, width: int, scale: int) -> None:
        self.width, self.scale = width * scale, scale
        self.shapes: list[Callable[[ImageDraw.ImageDraw], None]] = []
        self.texts: list[Callable[[ImageDraw.ImageDraw], None]] = []  # drawn last, so that no line crosses them

    def bar(self, x: float, y: float, w: float, h: float, fill: str) -> None:
        s = self.scale
        left, top, right, bottom = x * s, y * s, (x + w) * s - 1, (y + h) * s - 1
        # Pillow wants the right edge not left of the left one, also for a bar thinner than a pixel.
        box = (left, top, max(left, right), max(top, bottom))
        self.shapes.append(lambda draw: draw.rounded_rectangle(box, radius=3 * s, fill=fill))

    def line(self, x0: float, y0: float, x1: float, y1: float, stroke: str) -> None:
        ends = tuple(self.scale * v for v in (x0, y0, x1, y1))
        self.shapes.append(lambda draw: draw.line(ends, fill=stroke, width=self.scale))

    def wave(self, x: float, tops: Sequence[float], bottoms: Sequence[float]) -> None:
        """Vertical strokes, one a pixel: the range of the sound there."""
        s = self.scale

        def paint(draw: ImageDraw.ImageDraw) -> None:
            for i, (top, bottom) in enumerate(zip(tops, bottoms, strict=True)):
                draw.rectangle(((x + i) * s, top * s, (x + i) * s + s - 1, bottom * s), fill=WAVE)

        self.shapes.append(paint)

    def text(self, x: float, y: float, text: str, fill: str, centred: bool = False, halo: bool = False) -> None:
        """``y``: the middle of the line of text."""
        s, font = self.scale, get_font(text, _FONT * self.scale)
        width, middle = text_width(text, font), sum(line_metrics(font)) / 2
        around: dict[str, Any] = {"stroke_width": s, "stroke_fill": "white"} if halo else {}

        def paint(draw: ImageDraw.ImageDraw) -> None:
            left = x * s - (width / 2 if centred else 0)
            left = min(max(left, 0), self.width - width)
            draw.text((left, y * s - middle), text, fill=fill, font=font, **around)

        self.texts.append(paint)

    def image(self, height: int) -> Image.Image:
        image = Image.new("RGB", (self.width, height * self.scale), "white")
        draw = ImageDraw.Draw(image)
        for paint in self.shapes + self.texts:
            paint(draw)
        return image


def timeline_image(
    rows: Sequence[tuple[str, Sequence[Word]]],
    duration: float | None = None,
    wave: npt.ArrayLike | None = None,
    *,
    width: int = 960,
    seconds_per_line: float = 10.0,
    scale: int = 2,
) -> Image.Image:
    """Rows of words over time as an RGB picture of ``scale * width`` pixels across.

    ``rows``: ``[(title, words), ...]`` one above the other, such as expected and given. ``duration`` in seconds, else
    the end of the last word. ``wave``: mono samples that span the duration, drawn above the time axis.
    """
    rows = [
        (title, sorted((w for w in words if np.isfinite((w.start, w.end)).all()), key=lambda word: word.start))
        for title, words in rows
    ]
    last = max((word.end for _, words in rows for word in words), default=0.0)
    total = max(duration or 0.0, last, 0.05)
    seconds_per_line = max(seconds_per_line, total / _MAX_LINES)
    n_lines = max(1, int(np.ceil(round(total / seconds_per_line, 6))))
    span = total if n_lines == 1 else seconds_per_line
    left = _MARGIN + (_TITLE if any(title for title, _ in rows) else 0)
    pixels_a_second = (width - left - _MARGIN) / span
    samples = None if wave is None else np.asarray(wave, dtype=np.float32).ravel()
    kinds = dict.fromkeys(word.text.casefold() for _, words in rows for word in words)
    colors = {kind: _COLORS[i % len(_COLORS)] for i, kind in enumerate(kinds)}  # a word has its colour in every row
    canvas = _Canvas(width, scale)
    y = float(_MARGIN)
    for n in range(n_lines):
        start, end = n * span, min((n + 1) * span, total)
        y = _axis_and_wave(canvas, samples, total, start, end, left, pixels_a_second, y)
        for title, words in rows:
            shown = [
                (w, colors[w.text.casefold()]) for w in words if w.start < end and (w.end > start or w.start >= start)
            ]
            y = _row(canvas, title, shown, start, end, left, pixels_a_second, y)
        y += _MARGIN
    return canvas.image(int(np.ceil(y)))


def _axis_and_wave(
    canvas: _Canvas,
    samples: npt.NDArray[np.float32] | None,
    total: float,
    start: float,
    end: float,
    left: float,
    scale: float,
    y: float,
) -> float:
    """The sound as a column of its range for each pixel, and seconds below it; the y under both."""
    if samples is not None and samples.size:
        columns = max(1, int((end - start) * scale))
        edges = ((start + (end - start) * np.arange(columns + 1) / columns) / total * samples.size).astype(int)
        peak = float(np.abs(samples).max()) or 1.0
        pieces = [samples[a : max(a + 1, b)] for a, b in zip(edges[:-1], edges[1:], strict=True) if a < samples.size]
        middle, half = y + _WAVE / 2, _WAVE / 2
        tops = tuple(middle - half * float(piece.max()) / peak - 0.5 for piece in pieces)
        bottoms = tuple(middle - half * float(piece.min()) / peak + 0.5 for piece in pieces)
        canvas.wave(left, tops, bottoms)
        y += _WAVE + 4
    canvas.line(left, y, left + (end - start) * scale, y, PALE)
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 600, 1e9) if s * scale >= 45)
    for tick in range(int(np.ceil(start / step - 1e-9)), int(np.floor(end / step + 1e-9)) + 1):
        x = left + (tick * step - start) * scale
        canvas.line(x, y, x, y + 4, PALE)
        canvas.text(x, y + 11, f"{tick * step:g} s", PALE, centred=True)
    return y + _AXIS + 4


def _row(
    canvas: _Canvas,
    title: str,
    shown: list[tuple[Word, str]],
    start: float,
    end: float,
    left: float,
    scale: float,
    y: float,
) -> float:
    """Bars at the words' times; a word that does not fit its bar stands below it, in the first lane that is free."""
    room_right = left + (end - start) * scale
    canvas.line(left, y + _BAR, room_right, y + _BAR, LINE)
    if title:
        canvas.text(_MARGIN, y + _BAR / 2, fit_text(one_line(title), _FONT, _TITLE - 8), INK)
    lanes: list[float] = []  # where each lane of labels is taken up to
    for word, color in shown:
        x0 = left + (max(word.start, start) - start) * scale
        x1 = left + (min(word.end, end) - start) * scale
        canvas.bar(x0, y, max(1.5, x1 - x0 - 1), _BAR - 2, color)
        text = fit_text(one_line(word.text), _FONT, room_right - left)
        if not text or word.start < start:
            continue  # the bar goes on from the line above, where its word stands
        needed = text_width(text, get_font(text, _FONT))
        if needed + 6 <= x1 - x0:
            canvas.text((x0 + x1) / 2, y + (_BAR - 2) / 2, text, text_color(color), centred=True)
            continue
        x = min(x0, room_right - needed)
        lane = next((n for n, taken in enumerate(lanes) if taken <= x), len(lanes))
        if lane == _MAX_LANES:
            continue  # the bar is there, without its word
        lanes[lane : lane + 1] = [x + needed + 5]
        label_y = y + _BAR + 3 + lane * _LABEL
        canvas.line(x0, y + _BAR - 2, x0, label_y + _LABEL - 4, color)
        canvas.text(x + 3 if x + 3 + needed <= room_right else x, label_y + _LABEL / 2, text, INK, halo=True)
    return y + _BAR + len(lanes) * _LABEL + 10
