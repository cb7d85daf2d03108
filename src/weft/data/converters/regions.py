"""What readers of labelled pictures share: regions of every shape as boxes, and the samples that come of a picture."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from math import cos, hypot, radians, sin
from typing import NamedTuple

from weft.data.converters.base import Job, Sample, boxes, image, sample, task, text

DETECTED = ("detection", "identify", "both")
PICTURES: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif")
PICTURES += (".avif", ".jxl", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".tga", ".ico", ".mpo")
Corners = tuple[float, float, float, float]


class Region(NamedTuple):
    """``left, top, right, bottom`` in pixels of the picture as it was annotated."""

    label: str
    box: Corners


def around(points: Iterable[Sequence[float]]) -> Corners:
    """The box around points, in whichever order they were drawn."""
    xs, ys = zip(*((p[0], p[1]) for p in points), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def turned(box: Corners, degrees: float, about: tuple[float, float]) -> Corners:
    """The box around a box that was turned clockwise, as it looks, about a point; all in pixels."""
    c, s = cos(radians(degrees)), sin(radians(degrees))
    found = ((x - about[0], y - about[1]) for x in box[::2] for y in box[1::2])
    return around((about[0] + c * x - s * y, about[1] + s * x + c * y) for x, y in found)


def ellipse(x: float, y: float, across: float, down: float, degrees: float) -> Corners:
    """The box around an ellipse of these half axes that was turned clockwise about its centre."""
    c, s = cos(radians(degrees)), sin(radians(degrees))
    wide, high = hypot(across * c, down * s), hypot(across * s, down * c)
    return x - wide, y - high, x + wide, y + high


def labelled(
    job: Job, name: str, path: str, size: tuple[float, float], found: Sequence[Region], unsure: Container[str] = ()
) -> Iterator[Sample]:
    """Every label of a picture with all its boxes (``detection``), every region with its label (``identify``), or both.

    ``size``: of the picture as it was annotated. ``unsure``: labels of which the picture holds more than its boxes say,
    so that no answer to "where are all of them" is right. A picture without a region gives nothing, and is counted.
    """
    if not found and not unsure:
        job.notes["pictures without a region"] += 1
    wanted = job.task or "detection"
    placed = [(r.label, job.fractions(r.box, size, path)) for r in found]
    if wanted in ("detection", "both"):
        for label in dict.fromkeys(label for label, _ in placed):
            if label in unsure:
                continue
            here = [box for other, box in placed if other == label]
            yield sample(f"{name}-{label}", [image(path), task("detection"), text(label)], [boxes(here, label)])
    if wanted in ("identify", "both"):
        for i, (label, box) in enumerate(placed):
            yield sample(f"{name}-{i}", [image(path), task("identify"), boxes([box])], label)
