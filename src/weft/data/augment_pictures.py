"""Random changes to pictures, with boxes following.

A crop never cuts a box; a picture asked about without boxes is only made smaller on a plain ground, so that all that
can be counted stays in view. Left-right flips are for who asks for them, and skip samples whose text says left or
right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image as PILImage
from PIL import ImageEnhance

from weft.conversation import Box, Conversation, Image, Part, Text
from weft.data.augment import Augment

SIDES = re.compile(r"\b(left|right|west|east)", re.IGNORECASE)
Corners = tuple[float, float, float, float]
Move = Callable[[Corners], Corners]


def augment_images(
    conversation: Conversation, augment: Augment, rng: np.random.Generator, sized: bool = False
) -> Conversation:
    """Colour, crop and flip of every picture (sources are PIL images), its boxes moved along.

    ``sized``: a crop is brought back to the picture's size, where that says how many tokens it takes.
    """
    parts, made = list(conversation.parts()), []  # of each picture what it becomes, and how its boxes move
    last = len(conversation.images) - 1  # which a box that names none is in
    for number, part in enumerate(conversation.images):
        picture: PILImage.Image = part.source
        mine = [p for p in parts if isinstance(p, Box) and number == (last if p.image is None else p.image)]
        if augment.color:
            picture = _recolor(picture, augment.color, rng)
        moves: Move = _stay
        if augment.shift or augment.scale:
            boxes = [b for p in mine for b in p.boxes] if _boxed_turns(conversation, mine) else []
            window = draw_crop(augment, rng, boxes, picture.size)
            if window is not None:
                picture, moves = crop(picture, window)
                picture = picture.resize(part.source.size) if sized else picture
        if augment.flip and rng.random() < 0.5 and not _names_sides(parts) and not conversation.audios:
            picture, moves = picture.transpose(PILImage.Transpose.FLIP_LEFT_RIGHT), _flipped(moves)
        made.append((picture, moves))
    pictures = iter(made)

    def change(part: Part) -> Part:
        if isinstance(part, Image):
            return Image(next(pictures)[0])
        if isinstance(part, Box):
            move = made[last if part.image is None else part.image][1]
            return replace(part, boxes=tuple(map(move, part.boxes)))
        return part

    return conversation.changed(change)


def _boxed_turns(conversation: Conversation, boxes: Sequence[Box]) -> bool:
    """Whether every question or its answer has one of ``boxes``: a count is of the whole picture."""
    turns = list(zip(conversation.messages, conversation.messages[1:], strict=False))
    return all(
        any(p is b for p in (*asked.parts, *answer.parts) for b in boxes)
        for asked, answer in turns
        if answer.role == "assistant"
    )


def draw_crop(
    augment: Augment, rng: np.random.Generator, boxes: Sequence[Sequence[float]], size: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """A crop window in pixels (left, top, right, bottom; it may reach beyond the picture), or None where none is safe.

    With boxes every one of them stays inside the picture whole. Without boxes all of the picture stays in view.
    """
    zoom = float(np.exp(rng.uniform(-1, 1) * np.log1p(augment.scale)))
    shift = rng.uniform(-1, 1, size=2) * augment.shift
    window = []
    for axis, pixels in enumerate(size):
        low = min((b[axis] for b in boxes), default=0.0)
        high = max((b[axis + 2] for b in boxes), default=1.0)
        extent = max(zoom, high - low)  # a window narrower than what must stay in view is widened to it
        start = (1 - extent) / 2 + shift[axis]
        start = min(max(start, high - extent), low)
        left, right = int(np.floor(start * pixels)), int(np.ceil((start + extent) * pixels))
        if right - left < 8 or right - left > 4 * pixels + 8:
            return None
        window.append((left, right))
    (left, right), (top, bottom) = window
    return left, top, right, bottom


def crop(picture: PILImage.Image, window: tuple[int, int, int, int]) -> tuple[PILImage.Image, Move]:
    """The window of the picture, its mean colour where there is none; and how boxes move with it."""
    left, top, right, bottom = window
    width, height = picture.size
    if left < 0 or top < 0 or right > width or bottom > height:
        mean = picture.resize((1, 1), PILImage.Resampling.BOX).getpixel((0, 0))
        canvas = PILImage.new(picture.mode, (right - left, bottom - top), mean)
        canvas.paste(picture, (-left, -top))
    else:
        canvas = picture.crop(window)

    def move(box: Corners) -> Corners:
        scaled = (box[0] * width - left, box[1] * height - top, box[2] * width - left, box[3] * height - top)
        spans = (right - left, bottom - top) * 2
        x0, y0, x1, y1 = (min(max(v / s, 0.0), 1.0) for v, s in zip(scaled, spans, strict=True))
        return x0, y0, x1, y1

    return canvas, move


def _flipped(before: Move) -> Move:
    def move(box: Corners) -> Corners:
        left, top, right, bottom = before(box)
        return 1 - right, top, 1 - left, bottom

    return move


def _stay(box: Corners) -> Corners:
    return box


def _recolor(picture: PILImage.Image, amount: float, rng: np.random.Generator) -> PILImage.Image:
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhance(picture).enhance(float(rng.uniform(1 - amount, 1 + amount)))
    return picture


def _names_sides(parts: Sequence[Part]) -> bool:
    texts = [p.text for p in parts if isinstance(p, Text)] + [p.label or "" for p in parts if isinstance(p, Box)]
    return any(SIDES.search(t) for t in texts)
