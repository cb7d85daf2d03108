"""Pictures of answers: labelled boxes on a picture. Sizes follow the picture, and nothing is drawn outside it.

Colours come from one palette in a fixed order, each line has an edge that contrasts with it, each label a filled plate,
so that they are seen on any background.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from weft.conversation.types import Box

PALETTE = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#42d4f4", "#f032e6", "#ffe119", "#911eb4", "#bfef45", "#469990")
"""Ten colours that are told apart side by side (after S. Trubetskoy's list); used in this order, then again."""

_CJK = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
_CJK_FONTS = (
    *("NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "wqy-microhei.ttc", "wqy-zenhei.ttc"),  # Linux
    *("DroidSansFallbackFull.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "msyh.ttc", "malgun.ttf"),  # and others
)

Rect = tuple[float, float, float, float]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_boxes(
    image: Image.Image,
    boxes: Sequence[Box | Sequence[float]],
    labels: Sequence[str | None] | None = None,
    colors: Sequence[str] | None = None,
    *,
    dashed: bool | Sequence[bool] = False,
    min_side: int = 512,
) -> Image.Image:
    """A copy of an RGB picture with boxes and their labels drawn on it.

    ``boxes``: ``Box`` parts (a part's boxes share its label and colour) or ``(left, top, right, bottom)`` in fractions,
    with ``labels`` beside them. ``colors`` and ``dashed``: one a box or part, else the palette in order, and solid.
    Dashed lines tell expected boxes from given ones; draw both in one call, so that no label covers another. Pictures
    whose longer side is under ``min_side`` are enlarged, for a label on a thumbnail is unreadable.
    """
    regions = _regions(boxes, labels, colors, dashed)
    canvas = _enlarged(image.convert("RGB"), min_side)
    draw = ImageDraw.Draw(canvas)
    longer = max(canvas.size)
    width = max(3, round(longer / 240))
    font_size = max(12, round(longer / 42))

    rects = [_to_pixels(region.box, canvas.size) for region in regions]
    for rect, region in zip(rects, regions, strict=True):
        _outline(draw, rect, region.color, width, region.dashed)
    placed: list[Rect] = []
    for rect, region in zip(rects, regions, strict=True):
        if region.label:
            _draw_label(canvas, rect, region.label, region.color, font_size, width, placed)
    return canvas


@dataclass(frozen=True, slots=True)
class _Region:
    box: Sequence[float]
    label: str | None
    color: str
    dashed: bool


def _regions(
    boxes: Sequence[Box | Sequence[float]],
    labels: Sequence[str | None] | None,
    colors: Sequence[str] | None,
    dashed: bool | Sequence[bool],
) -> list[_Region]:
    regions: list[_Region] = []
    for i, box in enumerate(boxes):
        dashes = dashed if isinstance(dashed, bool) else i < len(dashed) and dashed[i]
        color = colors[i % len(colors)] if colors else PALETTE[i % len(PALETTE)]
        label = labels[i] if labels and i < len(labels) else None
        if isinstance(box, Box):
            # One label a part is enough: on its first box.
            first = [label or box.label, *[None] * len(box.boxes)]
            regions += [_Region(b, text, color, dashes) for b, text in zip(box.boxes, first, strict=False)]
        else:
            regions.append(_Region(box, label, color, dashes))
    return regions


def _enlarged(image: Image.Image, min_side: int) -> Image.Image:
    longer = max(image.size)
    if longer >= min_side:
        return image.copy()
    factor = min_side / longer
    return image.resize(
        (max(1, round(image.width * factor)), max(1, round(image.height * factor))), Image.Resampling.BICUBIC
    )


def _to_pixels(box: Sequence[float], size: tuple[int, int]) -> Rect:
    """Fractions to pixel edges that lie inside the picture, left before right, top before bottom."""
    w, h = size[0] - 1, size[1] - 1
    left, right = sorted((min(max(box[0], 0), 1) * w, min(max(box[2], 0), 1) * w))
    top, bottom = sorted((min(max(box[1], 0), 1) * h, min(max(box[3], 0), 1) * h))
    return round(left), round(top), round(right), round(bottom)


def _outline(draw: ImageDraw.ImageDraw, rect: Rect, color: str, width: int, dashed: bool) -> None:
    """A frame inside ``rect``, ``width`` thick, with an edge of its own that is dark where it is light, and light where
    it is dark."""
    edge, contrast = max(1, width // 4), text_color(color)
    left, top, right, bottom = rect
    bars = [(left, top, right, top + width - 1), (left, bottom - width + 1, right, bottom)]
    bars += [(left, top, left + width - 1, bottom), (right - width + 1, top, right, bottom)]
    pieces = [piece for bar in bars for piece in (_dashes(bar, 5 * width, 4 * width) if dashed else [bar])]
    for grow, fill in ((edge, contrast), (0, color)):
        for x0, y0, x1, y1 in pieces:
            draw.rectangle((x0 - grow, y0 - grow, max(x0, x1) + grow, max(y0, y1) + grow), fill=fill)


def _dashes(bar: Rect, dash: int, gap: int) -> list[Rect]:
    left, top, right, bottom = bar
    if right - left >= bottom - top:
        starts = range(int(left), int(right) + 1, dash + gap)
        return [(x, top, min(x + dash - 1, right), bottom) for x in starts]
    starts = range(int(top), int(bottom) + 1, dash + gap)
    return [(left, y, right, min(y + dash - 1, bottom)) for y in starts]


def _draw_label(
    canvas: Image.Image, rect: Rect, text: str, color: str, font_size: int, width: int, placed: list[Rect]
) -> None:
    pad_x, pad_y = round(font_size * 0.35), round(font_size * 0.18)
    room_w, room_h = canvas.width - 2 * pad_x, canvas.height - 2 * pad_y
    font_size = min(font_size, room_h - 2)
    if font_size < 6:
        return  # a sliver of a picture: no letter fits
    text = fit_text(one_line(text), font_size, room_w, bold=True)
    if not text:
        return
    font = get_font(text, font_size, bold=True)
    ascent, descent = line_metrics(font)
    w, h = round(text_width(text, font)) + 2 * pad_x, ascent + descent + 2 * pad_y
    w, h = min(w, canvas.width), min(h, canvas.height)
    plate = _place(rect, (w, h), canvas.size, width, placed)
    placed.append(plate)

    mask = Image.new("L", (w * 4, h * 4))  # four times as large, for smooth corners
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, w * 4 - 1, h * 4 - 1), radius=h, fill=235)
    mask = mask.resize((w, h), Image.Resampling.BOX)
    canvas.paste(Image.new("RGB", (w, h), color), (int(plate[0]), int(plate[1])), mask)
    draw = ImageDraw.Draw(canvas)
    draw.text((plate[0] + pad_x, plate[1] + pad_y), text, fill=text_color(color), font=font)


def _place(rect: Rect, size: tuple[int, int], picture: tuple[int, int], width: int, placed: list[Rect]) -> Rect:
    """Where a label of ``size`` goes: above its box, in its corner, below; the first free place, else the freest."""
    w, h = size
    left, top, right, bottom = rect
    corners = [(left, top - h - width), (left + width, top + width), (left, bottom + width)]
    corners += [
        (right - w, top - h - width),
        (right - w - width, bottom - h - width),
        (left + width, bottom - h - width),
    ]
    corners += [(right + width, top), (left - w - width, top)]
    best, best_cost = None, float("inf")
    for order, (x, y) in enumerate(corners):
        inside_x = min(max(x, 0), picture[0] - w)
        inside_y = min(max(y, 0), picture[1] - h)
        moved = abs(inside_x - x) + abs(inside_y - y)
        plate = (inside_x, inside_y, inside_x + w, inside_y + h)
        cost = sum(_overlap(plate, other) for other in placed) + moved * h * 0.5 + order * 0.02 * w * h
        if cost < best_cost:
            best, best_cost = plate, cost
    assert best is not None
    return best


def _overlap(a: Rect, b: Rect) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def one_line(text: str) -> str:
    """Blanks and line ends to single blanks, control characters dropped."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def text_color(background: str) -> str:
    """Black or white, whichever reads better on ``#rrggbb`` (WCAG relative luminance)."""
    channels = [int(background[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.179 else "#ffffff"


def get_font(text: str, size: int, bold: bool = False) -> Font:
    """A font that has the letters of ``text``: DejaVu (comes with matplotlib); for Chinese, Japanese and Korean one of
    the system's, where it has one."""
    return _load_font(bool(_CJK.search(text)), size, bold)


@lru_cache(maxsize=64)
def _load_font(cjk: bool, size: int, bold: bool) -> Font:
    if cjk:
        for name in _CJK_FONTS:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue  # not on this system: try the next
    spec = importlib.util.find_spec("matplotlib")  # found, not imported: that takes a second
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "mpl-data" / "fonts" / "ttf" / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)


def text_width(text: str, font: Font) -> float:
    return font.getlength(text)


def line_metrics(font: Font) -> tuple[int, int]:
    """Ascent and descent in pixels."""
    if isinstance(font, ImageFont.FreeTypeFont):
        return font.getmetrics()
    return 11, 0


def fit_text(text: str, size: int, room: float, bold: bool = False) -> str:
    """``text`` as it is where it fits ``room`` pixels, else its beginning and an ellipsis; "" where nothing fits."""
    font = get_font(text, size, bold)
    if text_width(text, font) <= room:
        return text
    low, high = 0, len(text)
    while low < high:  # the longest beginning that fits, by halving
        middle = (low + high + 1) // 2
        if text_width(text[:middle].rstrip() + "…", font) <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…" if low else ""
