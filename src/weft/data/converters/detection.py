"""Data sets of objects in pictures: COCO, Pascal VOC, YOLO.

Sources: cocodataset.org/#format-data; the VOC2012 development kit's documentation, section 4; docs.ultralytics.com,
"Object detection datasets", "Oriented bounding box datasets", and (older) AlexeyAB/darknet's README.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weft.conversation import WeftError
from weft.data.converters.base import BadEntry, Job, Read, Sample, corners, get, identity, numbers, xml
from weft.data.converters.captions import FOLDERS
from weft.data.converters.jsonfile import Entry, begins_with, items, lines
from weft.data.converters.regions import PICTURES, Corners, Region, around, labelled

_NUMBER = (int, float)
_SPLITS = ("train", "val", "test")


def coco(job: Job) -> Read:
    """COCO's instances; verified on files of supervision and datumaro.

    ``{"images": [{"id", "file_name", "width", "height"}], "annotations": [{"image_id", "category_id", "bbox": [x, y,
    width, height], "segmentation", "iscrowd"}], "categories": [{"id", "name"}]}``; the annotations are held in memory.
    Masks (polygons, RLE) are read as their boxes and counted. A crowd (``iscrowd``) is one box around many: it is no
    region, and its label gives no ``detection`` in that picture.
    """
    if begins_with(job.path) == "[":
        raise WeftError(f"{job.path}: is a list, as what a detector found is saved: give the annotations (instances)")
    names = job.table(items(job.path, "categories"), lambda v: (identity(v, "id"), get(v, "name")))

    def annotation(v: Any) -> tuple[str, tuple[str, Corners, bool]]:
        if "segments_info" in v:
            raise BadEntry("is panoptic (segments_info): give the instances", reason="another task of COCO")
        mask, crowd = v.get("segmentation"), bool(v.get("iscrowd"))
        if mask:
            job.notes[f"masks ({'RLE' if isinstance(mask, dict) else 'polygons'}) are read as their boxes"] += 1
        label = names.get(number := identity(v, "category_id"))
        if label is None:
            raise BadEntry(f"{number} is not among the categories", field="category_id")
        return identity(v, "image_id"), (label, corners(numbers(get(v, "bbox", list), 4, "bbox")), crowd)

    held = job.groups(items(job.path, "annotations"), annotation)

    def make(e: Entry) -> Iterator[Sample]:
        name, found = get(e.value, "file_name"), held.pop(identity(e.value, "id"), [])
        path = job.find(name, *(f"{folder}/{name}" for folder in FOLDERS), what="image")
        crowds = {label for label, _, crowd in found if crowd}
        job.notes["crowds: no detection of their label in that picture"] += len(crowds)
        size = get(e.value, "width", _NUMBER), get(e.value, "height", _NUMBER)
        things = [Region(label, box) for label, box, crowd in found if not crowd]
        yield from labelled(job, name, path, size, things, crowds)

    yield from job.each(items(job.path, "images"), make)
    job.notes["annotations of pictures that are not listed"] += sum(map(len, held.values()))


def voc(job: Job) -> Read:
    """Pascal VOC's objects; verified on files of supervision and datumaro.

    PATH is an XML file or a folder of them (``Annotations``); the picture (``filename``) lies in ``JPEGImages`` beside
    that folder, or beside the file. ``--split`` takes the names in ``ImageSets/Main/<split>.txt``. Pixels are counted
    from 1 and the last one lies inside: left and top are lowered by 1. Files with a decimal point or a 0 among their
    coordinates count from 0 (datumaro, CVAT), are taken as they are, and are counted. Parts of objects are counted.
    """
    chosen = None
    if job.split is not None:
        listed = [job.path / up / f"ImageSets/Main/{job.split}.txt" for up in (".", "..")]
        file = next((f for f in listed if f.is_file()), None)
        if file is None:
            raise WeftError(f"{listed[0]}: no such file: --split names a list of pictures")
        chosen = {str(line.value).split()[0] for line in lines(file)}

    def make(e: Entry) -> Iterator[Sample]:
        root, file = xml(e.value), Path(e.file)
        if chosen is not None and file.stem not in chosen:
            job.notes["pictures of other splits"] += 1
            return
        name = (root.findtext("filename") or "").strip() or f"{file.stem}.jpg"
        beside, folder = job.inside(file).parent, root.findtext("folder") or "."
        places = (".", beside, beside / "../JPEGImages", beside / "../images", "JPEGImages", folder)
        path = job.find(*(os.path.join(place, name) for place in places), what="image")
        things = root.findall("object")
        said = [[thing.findtext(f"bndbox/{key}", "") for key in ("xmin", "ymin", "xmax", "ymax")] for thing in things]
        first = 1
        if any("." in side or side.strip() == "0" for box in said for side in box):
            job.notes["files that count pixels from 0 (a decimal point, or a 0)"] += 1
            first = 0
        job.notes["parts of objects are not used"] += len(root.findall("object/part"))
        found = []
        try:
            size = float(root.findtext("size/width", "0")), float(root.findtext("size/height", "0"))
            for thing, box in zip(things, said, strict=True):
                left, top, right, bottom = (float(x) for x in box)
                label = (thing.findtext("name") or "").strip()
                found.append(Region(label, (left - first, top - first, right, bottom)))
        except ValueError:
            raise BadEntry("lacks a number (size, xmin ...)", reason="annotation is damaged") from None
        yield from labelled(job, name, path, size if all(size) else job.size(path), found)

    yield from job.each(job.files("*.xml"), make)


def yolo(job: Job) -> Read:
    """YOLO's labels; verified on files of supervision and datumaro.

    PATH is ``data.yaml`` or the folder that holds it: ``names``, and pictures under ``train``, ``val``, ``test``
    (folders, lists or ``.txt`` lists; ``--split`` for one). Without these all pictures below PATH are taken; without
    the file, the names are a line each in ``classes.txt`` or ``*.names`` (darknet). Labels lie under ``labels`` where
    the picture is under ``images``, or beside it: ``class x y width height`` (centre, in fractions) a line. Polygons
    and turned boxes (three points or more) are read as the boxes around them, key points not at all; both are counted.
    A picture without a file of labels is one without objects.
    """
    names, pictures, points = _yolo(job)

    def make(e: Entry) -> Iterator[Sample]:
        path = job.find(str(e.value.absolute()), what="image")
        front, middle, back = path.rpartition(f"{os.sep}images{os.sep}")
        beside = (f"{front}{os.sep}labels{os.sep}{back}" if middle else path, path)
        file = next((f for p in beside if (f := Path(p).with_suffix(".txt")).is_file()), None)
        width, height = job.size(path)
        found = []
        for line in lines(file) if file else ():
            where = f"{file}:{line.line}"
            try:
                number, *sides = [float(x) for x in str(line.value).split()]
            except ValueError:
                raise BadEntry(f"{where}: must be numbers, this is {str(line.value)[:60]}") from None
            label = names.get(int(number))
            if label is None:
                raise BadEntry(f"{where}: there is no name for class {number:g}", reason="class without a name")
            if len(sides) in (4, 5) or points:  # the fifth is how sure a model was
                job.notes["key points are not used"] += points
                x, y, w, h = sides[:4]
                box = x - w / 2, y - h / 2, x + w / 2, y + h / 2
            elif len(sides) >= 6 and len(sides) % 2 == 0:
                job.notes["polygons and turned boxes are read as the boxes around them"] += 1
                box = around(zip(sides[::2], sides[1::2], strict=True))
            else:
                raise BadEntry(f"{where}: has {len(sides)} numbers behind the class: 4, or pairs of a polygon")
            found.append(Region(label, (box[0] * width, box[1] * height, box[2] * width, box[3] * height)))
        yield from labelled(job, os.path.relpath(path, job.folder.absolute()), path, (width, height), found)

    yield from job.each((Entry(p, str(p)) for p in pictures), make)


def _yolo(job: Job) -> tuple[dict[int, str], list[Path], bool]:
    """Names by number, pictures, and whether lines have key points."""
    import yaml

    root = job.path if job.path.is_dir() else job.path.parent
    file = next((f for f in (job.path, root / "data.yaml", *sorted(root.glob("*.yaml"))) if f.is_file()), None)
    if file is None:
        listed = next((f for f in (root / "classes.txt", *sorted(root.glob("*.names"))) if f.is_file()), None)
        if listed is None:
            raise WeftError(f"{root}: holds no data.yaml, classes.txt or *.names: the names of the classes are needed")
        names = dict(enumerate(str(line.value).strip() for line in lines(listed)))
        return names, _pictures(root, job.split), False
    try:
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise WeftError(f"{file}: is no YAML ({str(e).splitlines()[0]})") from None
    if not isinstance(said, dict) or not said.get("names"):
        raise WeftError(f"{file}: has no names of classes")
    names = said["names"] if isinstance(said["names"], dict) else dict(enumerate(said["names"]))
    there = ", ".join(split for split in _SPLITS if said.get(split))
    if job.split is not None and there and job.split not in said:
        raise WeftError(f"--split {job.split}: {file} has {there}")
    found: list[Path] = []
    if not there:  # supervision names no folders
        found = _pictures(root, job.split)
    for split in [job.split] if job.split else _SPLITS:
        given = said.get(split) or []
        for place in [given] if isinstance(given, str) else given:
            found += _listed(file.parent, str(said.get("path") or "."), place)
    return {int(k): str(v) for k, v in names.items()}, list(dict.fromkeys(found)), "kpt_shape" in said


def _listed(folder: Path, base: str, place: str) -> list[Path]:
    """What ``train: place`` names: below ``path``, beside the file, or with Roboflow's ``../`` left out."""
    tried = [folder / base / place, folder / place, folder / base / place.removeprefix("../")]
    found = next((p for p in tried if p.exists()), None)
    if found is None:
        raise WeftError(f"{tried[0]}: no such file or folder, and data.yaml names it")
    if found.is_dir():
        return _pictures(found, None)
    return [found.parent / str(line.value).strip() for line in lines(found)] if found.suffix == ".txt" else [found]


def _pictures(folder: Path, split: str | None) -> list[Path]:
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
    return [p for p in found if split is None or split in p.relative_to(folder).parts]
