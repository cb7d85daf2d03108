"""Boxes and word times against the media they are about: which image or clip, and fractions inside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from weft.conversation.checks import Mistake
from weft.conversation.errors import WeftError
from weft.conversation.types import Box, Conversation, Image, MediaSource, Part, Words

LATE = 0.05  # seconds a last word may end after its clip, as annotations round

Probe = Callable[[MediaSource], tuple[int, int]]


def settle(
    part: Part,
    unit: str,
    shown: tuple[int, int],
    total: tuple[int, int],
    images: list[Image],
    probe: Probe | None,
    lenient: bool,
) -> Part:
    """A grounded part with its image or clip found, and its boxes as fractions inside the image.

    Afterwards an index of None says that the whole conversation has exactly one image (or clip). Boxes of which none
    has an area are a mistake, but not where ``lenient``: models with few coordinates write thin ones, and programs
    hand back what a model said.
    """
    if isinstance(part, Words):
        index = _which(part.audio, shown[1], total[1], "audio", "clip")
        return part if index == part.audio else replace(part, audio=index)
    assert isinstance(part, Box)
    index = _which(part.image, shown[0], total[0], "image", "image")
    boxes = part.boxes
    if unit == "pixel" or any(min(b) < 0 or max(b) > 1 for b in boxes):
        boxes = _inside(boxes, unit, images[index or 0].source, probe)
    thin = () if lenient else without_area(boxes)
    if len(thin) == len(boxes) > 0:
        raise Mistake(f"{_box(part.boxes[0])} has no area: no answer can overlap with it", "boxes[0]")
    return part if index == part.image and boxes is part.boxes else Box(boxes, part.label, index)


def without_area(boxes: Sequence[Sequence[float]]) -> list[int]:
    """Which of some boxes are a line or a point: any answer's overlap with them is 0."""
    return [i for i, (left, top, right, bottom) in enumerate(boxes) if not (left < right and top < bottom)]


def _which(index: int | None, shown: int, total: int, field: str, noun: str) -> int | None:
    if index is None:
        if shown == 0:
            raise Mistake(f"there is no {noun} in this message or before it for it to be about")
        if shown > 1:
            raise Mistake(f'say which of the {shown} {noun}s is meant: "{field}": 0 ... {shown - 1}', field)
        return None if total == 1 else 0
    if index >= shown:
        if index < total:
            raise Mistake(f"{noun} {index} comes only later in the conversation", field)
        have = f"has {total} {noun}{'s' if total != 1 else ''}, counted from 0" if total else f"has no {noun}"
        raise Mistake(f"there is no {noun} {index}: the conversation {have}", field)
    return index


def _inside(
    boxes: tuple[tuple[float, float, float, float], ...], unit: str, source: MediaSource, probe: Probe | None
) -> tuple[tuple[float, float, float, float], ...]:
    """Boxes as fractions, what sticks out by up to half a pixel clamped."""
    if probe is None:
        if unit == "pixel":
            raise Mistake("boxes in pixels need the image's size: pass probe=weft.media.image_size", "unit")
        width = height = 0
    else:
        try:
            width, height = probe(source)
        except WeftError as e:
            raise Mistake(f"the size of its image is needed, and cannot be read: {e}", "boxes") from None
    made = []
    for i, box in enumerate(boxes):
        out = []
        for value, side in zip(box, (width, height, width, height), strict=True):
            fraction = value / side if unit == "pixel" else value
            slack = 0.5 / side + 1e-9 if side else 1e-6  # without a size, no more than the error of a 32-bit float
            if not -slack <= fraction <= 1 + slack:
                raise Mistake(_outside(box, unit, width, height), f"boxes[{i}]")
            out.append(min(max(fraction, 0.0), 1.0))
        made.append(cast(tuple[float, float, float, float], tuple(out)))
    return tuple(made)


def _outside(box: Sequence[float], unit: str, width: int, height: int) -> str:
    size = f" of {width} x {height} pixels" if width else ""
    if unit == "pixel":
        return f"{_box(box)} lies outside its image{size}"
    hint = '; if these are pixels, say "unit": "pixel"' if max(box) > 1.5 else ""
    return f"{_box(box)} lies outside its image{size}: fractions go from 0 to 1{hint}"


def _box(box: Sequence[float]) -> str:
    return f"box [{', '.join(f'{x:g}' for x in box)}]"


def placed(conversation: Conversation, *kinds: type) -> Iterator[tuple[str, Any]]:
    """Every part of these kinds with the field that a message names it by."""
    for m, message in enumerate(conversation.messages):
        for i, part in enumerate(message.parts):
            if isinstance(part, kinds):
                yield f"messages[{m}].content[{i}]", part


def last_words(conversation: Conversation) -> Iterator[tuple[str, int, float]]:
    """``(field, number of the clip, seconds)`` where the words of a part end."""
    for where, part in placed(conversation, Words):
        if part.words:
            yield where, part.audio or 0, max(word.end for word in part.words)


def end_problem(last: float, seconds: float) -> str | None:
    """What is wrong where the last word of a clip of ``seconds`` ends at ``last``, or None."""
    return f"a word ends at {last:g} s, its clip at {seconds:.3f} s" if last > seconds + LATE else None
