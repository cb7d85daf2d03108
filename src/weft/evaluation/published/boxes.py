"""Referring expressions: RefCOCO, RefCOCO+ and RefCOCOg as MiniGPT-v2 scores them, and by the ordinary rule.

The original (Vision-CAIR/MiniGPT-4 at d94738a, ``eval_scripts/eval_ref.py`` and ``computeIoU``): spaces and ``<unk>``
removed, an answer must begin with ``{<a><b><c><d>}`` and may go on with anything; then *all* whole numbers of the
answer are read, and other than four of them are wrong. Percent of the picture's size, edges counted as inclusive pixels
(+1), and right where IoU is above 0.5. Its ``--resample``, which asks again and in the end takes anything, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from weft.conversation import Box, Part
from weft.evaluation.pairs import Pair
from weft.evaluation.published.rows import Row
from weft.evaluation.scorers import BoxTuple

_BEGINS = re.compile(r"\{<\d{1,3}><\d{1,3}><\d{1,3}><\d{1,3}>\}")
_BOX = re.compile(r"\{\s*" + r"\s*".join([r"<\s*(\d(?:\s*\d){0,2})\s*>"] * 4) + r"\s*\}")


def inclusive_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """IoU of boxes in pixels whose right and bottom edges belong to them; ZeroDivisionError where the union is 0."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    inter = width * height
    area_a = (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
    area_b = (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    return inter / (area_a + area_b - inter)


def original_hit(answer: str, xywh: Sequence[float], width: float, height: float) -> bool:
    """Whether the released script counts an answer as right. ``xywh`` in pixels, as COCO writes boxes."""
    answer = answer.replace("<unk>", "").replace(" ", "").strip()
    if not _BEGINS.match(answer):
        return False
    numbers = [int(n) for n in re.findall(r"\d+", answer)]
    if len(numbers) != 4:
        return False
    left, top, right, bottom = (n / 100.0 * size for n, size in zip(numbers, (width, height) * 2, strict=True))
    x, y, w, h = xywh
    try:
        return inclusive_iou((left, top, right, bottom), (x, y, x + w, y + h)) > 0.5
    except ZeroDivisionError:
        return False


def first_box(answer: str) -> BoxTuple | None:
    """The first ``{<a><b><c><d>}`` anywhere in an answer, in fractions; None where there is none inside the picture."""
    match = _BOX.search(answer.replace("<unk>", ""))
    if match is None:
        return None
    left, top, right, bottom = (int("".join(digits.split())) / 100 for digits in match.groups())
    return (left, top, right, bottom) if left <= right <= 1 and top <= bottom <= 1 else None


def read_row(row: Row, task: str) -> Pair:
    """References: ``bbox_xywh`` in pixels, ``width`` and ``height`` of the picture."""
    line = row.reference
    xywh, width, height = line.numbers("bbox_xywh", 4), line.number("width"), line.number("height")
    x, y, w, h = xywh
    if w < 0 or h < 0:
        line.wrong("bbox_xywh", "must have a width and a height of 0 or more: it is [left, top, width, height]")
    expected = Box(((x / width, y / height, (x + w) / width, (y + h) / height),))
    return Pair(task, (expected,), (), read=as_box, extra=(xywh, width, height)).said(row.prediction)


def as_box(answer: str) -> tuple[Part, ...]:
    found = first_box(answer)
    return (Box((found,)),) if found else ()


def written(box: Sequence[float]) -> str:
    """A box in fractions as MiniGPT-v2 writes it."""
    return "{" + "".join(f"<{min(100, max(0, int(100 * edge)))}>" for edge in box) + "}"
