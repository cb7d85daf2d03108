"""What people draw in labelling programs: LabelMe, Label Studio, CVAT.

Sources: labelme/_label_file.py and _shape.py of wkentaro/labelme (6.3); labelstud.io/guide/export, "Label Studio JSON
format of annotated tasks", and its tags Rectangle, Ellipse, Polygon; docs.cvat.ai, "CVAT for image format 1.1".
Outlines of every form are read as the boxes around them; what has no area (points, lines) is counted.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from math import dist
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from weft.data.converters.base import BadEntry, Job, Read, Sample, get, identity, numbers, xml
from weft.data.converters.jsonfile import Entry, document, entries
from weft.data.converters.regions import Corners, Region, around, ellipse, labelled, turned

_NUMBER = (int, float)
_OUTLINES = ("rectangle", "polygon", "oriented_rectangle", "mask")


def labelme(job: Job) -> Read:
    """LabelMe's files; verified on files of labelme.

    A JSON file for each picture, ``{"imagePath", "imageData", "imageWidth", "imageHeight", "shapes": [{"label",
    "shape_type", "points": [[x, y]]}]}``, in pixels of the picture as a person sees it. A circle is its centre and a
    point on its edge. Where the picture is not there, its copy in ``imageData`` is taken.
    """

    def make(e: Entry) -> Iterator[Sample]:
        entry, inside = e.value, job.inside(Path(e.file))
        name, data = PureWindowsPath(get(entry, "imagePath")).as_posix(), entry.get("imageData")
        try:
            path = job.find(str(inside.parent / name), name.rpartition("/")[2], what="image")
        except BadEntry:
            if not data:
                raise
            path = f"data:image/*;base64,{data}"
        found = []
        for shape in get(entry, "shapes", list):
            kind, points = shape.get("shape_type") or "polygon", get(shape, "points", list)
            points = [numbers(p, 2, "points") for p in points]
            if kind == "circle" and len(points) == 2:
                (x, y), radius = points[0], dist(*points)
                points = [[x - radius, y - radius], [x + radius, y + radius]]
            elif kind not in _OUTLINES or len(points) < 2:
                job.notes[f"{kind}s have no box"] += 1
                continue
            _told(job, kind)
            found.append(Region(get(shape, "label"), around(points)))
        size = tuple(entry.get(key) for key in ("imageWidth", "imageHeight"))
        yield from labelled(job, str(inside.with_suffix("")), path, size if all(size) else job.size(path), found)

    yield from job.each((document(e.value) for e in job.files("*.json")), make)


def label_studio(job: Job) -> Read:
    """Label Studio's own export (JSON); from documentation, not verified.

    A list of tasks with ``data`` and ``annotations``, whose ``result`` holds regions in percent of the picture's width
    and height; ``rotation`` is clockwise, in degrees, about the top left corner (an ellipse: its centre), in pixels. Of
    several annotations the first that was not cancelled is taken, the others are counted. A picture is found by its
    path, or by the name of its upload, with and without the eight digits that the program put before it.
    """

    def make(e: Entry) -> Iterator[Sample]:
        if isinstance(e.value, dict) and "annotations" not in e.value and "data" not in e.value:
            raise BadEntry("has no annotations and no data (JSON-MIN?): export it as JSON", reason="another export")
        given = [a for a in get(e.value, "annotations", list) if not a.get("was_cancelled")]
        if not given:
            raise BadEntry("has no annotation", reason="no answer")
        job.notes["further annotations of a picture are not used"] += len(given) - 1
        found, size, about = [], None, ""
        for one in get(given[0], "result", list):
            kind, value = get(one, "type"), get(one, "value", dict)
            width, height = one.get("original_width"), one.get("original_height")
            labels = value.get(kind)
            box = _studio(value, width, height) if width and height and isinstance(labels, list) else None
            if box is None:
                job.notes[f"{kind} results are not used"] += 1
                continue
            if one.get("image_rotation"):
                raise BadEntry("was turned in the program, and its boxes with it", reason="picture was turned")
            _told(job, kind)
            size, about = (width, height), one.get("to_name")
            found += [Region(label, box) for label in labels]
        path = _uploaded(job, get(e.value, "data", dict), about)
        yield from labelled(job, identity(e.value, "id"), path, size or job.size(path), found)

    yield from job.each(entries(job.path), make)


def _studio(value: Any, width: float, height: float) -> Corners | None:
    """The box around a region that is given in percent, in pixels."""
    across, down = width / 100, height / 100
    if "points" in value:
        return around((x * across, y * down) for x, y in value["points"])
    if not {"x", "y"} <= value.keys():
        return None
    x, y, angle = value["x"] * across, value["y"] * down, value.get("rotation") or 0
    if "radiusX" in value:
        return ellipse(x, y, value["radiusX"] * across, get(value, "radiusY", _NUMBER) * down, angle)
    if "height" not in value:
        return None
    return turned((x, y, x + get(value, "width", _NUMBER) * across, y + value["height"] * down), angle, (x, y))


def _uploaded(job: Job, data: Any, about: str) -> str:
    """The picture of a task: ``/data/upload/1/0a1b2c3d-cat.jpg``, ``/data/local-files/?d=cats/cat.jpg``, an address."""
    fields = [about] if isinstance(data.get(about), str) else [k for k, v in data.items() if isinstance(v, str)]
    if len(fields) != 1:
        raise BadEntry(f"has {len(fields)} texts, and which is the picture is not said", field="data")
    source = data[fields[0]]
    local = "".join(parse_qs(urlsplit(source).query).get("d", [])) or unquote(urlsplit(source).path)
    name = local.rpartition("/")[2]
    return job.find(local.lstrip("/"), name, re.sub(r"^[0-9a-f]{8}-", "", name), source, what="image")


def cvat(job: Job) -> Read:
    """CVAT for images 1.1; verified on a file of datumaro.

    ``<image name width height>`` holds ``<box xtl ytl xbr ybr rotation>`` (degrees clockwise about the centre),
    ``<polygon points>``, ``<ellipse cx cy rx ry rotation>`` and ``<mask left top width height>`` in pixels. Tracks
    (CVAT for video) are a bad entry.
    """

    def images() -> Iterator[Entry]:
        for file in job.files("*.xml"):
            try:
                root = xml(file.value)
            except BadEntry as e:
                yield file._replace(value=e)
                continue
            if root.find("track") is not None:
                problem = "is of a video: export it as CVAT for images"
                yield file._replace(value=BadEntry(problem, reason="video"))
            yield from (Entry(one, file.file, name=one.get("name")) for one in root.iter("image"))

    def make(e: Entry) -> Iterator[Sample]:
        one, name, found = e.value, e.name or "", []
        path = job.find(name, f"images/{name}", name.rpartition("/")[2], what="image")
        try:
            size = float(one.get("width", "")), float(one.get("height", ""))
            for shape in one:
                box = _cvat(shape)
                if box is None:
                    job.notes[f"{shape.tag.removesuffix('s')}s have no box"] += 1
                    continue
                _told(job, shape.tag)
                found.append(Region(shape.get("label", ""), box))
        except ValueError as problem:
            if isinstance(problem, BadEntry):
                raise
            raise BadEntry(f"lacks a number ({problem})", reason="annotation is damaged") from None
        job.notes["attributes are not used"] += len(one.findall("*/attribute"))
        yield from labelled(job, name, path, size, found)

    yield from job.each(images(), make)


def _cvat(shape: ET.Element) -> Corners | None:
    def of(*keys: str) -> list[float]:
        return [float(shape.get(key, "")) for key in keys]

    angle = float(shape.get("rotation") or 0)
    if shape.tag == "box":
        left, top, right, bottom = of("xtl", "ytl", "xbr", "ybr")
        return turned((left, top, right, bottom), angle, ((left + right) / 2, (top + bottom) / 2))
    if shape.tag == "polygon":
        return around([float(x) for x in point.split(",")] for point in shape.get("points", "").split(";"))
    if shape.tag == "ellipse":
        x, y, across, down = of("cx", "cy", "rx", "ry")
        return ellipse(x, y, across, down, angle)
    if shape.tag == "mask":
        left, top, width, height = of("left", "top", "width", "height")
        return left, top, left + width, top + height
    return None


def _told(job: Job, kind: str) -> None:
    if kind not in ("rectangle", "rectanglelabels", "box"):
        job.notes[f"{kind}s are read as the boxes around them"] += 1
