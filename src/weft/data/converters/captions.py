"""Captions of pictures: COCO and TextCaps.

Sources: coco_caption.py and text_caps.py in minigpt4/datasets/datasets of Vision-CAIR/MiniGPT-4 at 07066f3 (its list
form of COCO captions, and the entries of TextCaps). COCO's own file is as its authors describe it at
cocodataset.org/#format-data, recalled, not read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from weft.data.converters.base import (
    BadEntry,
    Job,
    Read,
    Sample,
    blip_caption,
    get,
    identity,
    image,
    sample,
    task,
)
from weft.data.converters.jsonfile import Entry, begins_with, entries, items

FOLDERS = ("train2014", "val2014", "train2017", "val2017")


def coco_captions(job: Job) -> Read:
    """COCO captions of 2014 and 2017, a sample for each caption; from documentation, not verified.

    ``captions_train2014.json``: ``{"images": [{"id", "file_name"}], "annotations": [{"id", "image_id", "caption"}]}``;
    the names of the pictures are held in memory. A list of ``{"image": "train2014/COCO_...jpg", "caption",
    "image_id"}``, as MiniGPT-4 trains on (``coco_karpathy_train.json``; a ``caption`` that is a list has several), is
    read too.
    """
    if begins_with(job.path) == "[":
        yield from job.each(entries(job.path), lambda e: _listed(job, e))
        return
    names = job.table(items(job.path, "images"), lambda v: (identity(v, "id"), get(v, "file_name")))

    def make(e: Entry) -> Iterator[Sample]:
        number = identity(e.value, "image_id")
        if number not in names:
            raise BadEntry(f"{number} is not among the images of {job.path}", field="image_id")
        path = job.find(names[number], *(f"{folder}/{names[number]}" for folder in FOLDERS), what="image")
        yield _caption(job, identity(e.value, "id"), path, e.value.get("caption"))

    yield from job.each(items(job.path, "annotations"), make)


def _listed(job: Job, e: Entry) -> Iterator[Sample]:
    picture, captions = get(e.value, "image"), e.value.get("caption")
    path = job.find(picture, picture.split("/")[-1], what="image")
    place = e.name or f"[{e.line}]"  # part of the id: a picture has five captions, an entry each
    for i, caption in enumerate(captions if isinstance(captions, list) else [captions]):
        yield _caption(job, f"{picture}{place}" + (f"-{i}" if i else ""), path, caption)


def textcaps(job: Job) -> Read:
    """TextCaps, a sample for each caption; from documentation, not verified.

    ``TextCaps_0.1_train.json``: ``{"data": [{"caption_id", "image_id", "image_path", "caption_str"}]}``. The pictures
    are those of TextVQA, ``train_images/<image_id>.jpg`` (train and val) and ``test_images``. The test file has no
    captions and gives requests.
    """

    def make(e: Entry) -> Iterator[Sample]:
        entry, name = e.value, f"{identity(e.value, 'image_id')}.jpg"
        given = [entry["image_path"]] if isinstance(entry.get("image_path"), str) else []
        path = job.find(f"train_images/{name}", f"test_images/{name}", name, *given, what="image")
        if "caption_str" not in entry:
            yield sample(identity(entry, "image_id"), [image(path), task("caption")], None)
            return
        number = identity(entry, "caption_id") if "caption_id" in entry else f"{name}{e.name}"
        yield _caption(job, number, path, entry["caption_str"])

    yield from job.each(items(job.path, "data"), make)


def _caption(job: Job, name: str, path: str, caption: Any) -> Sample:
    if not isinstance(caption, str):
        raise BadEntry(f"a caption is a string, this is {caption!r}", reason="no answer", field="caption")
    words = blip_caption(caption) if job.clean else caption.strip()  # many of COCO's end in a blank or a line break
    return sample(name, [image(path), task("caption")], words)
