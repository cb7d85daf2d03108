"""Pictures with regions: the RefCOCO family and Visual Genome.

Sources: eval_scripts/eval_ref.py and minigpt4/datasets/datasets/coco_dataset.py, vg_dataset.py of Vision-CAIR/MiniGPT-4
at d94738a; refer.py of lichengunc/refer; api and image_data.json of ranjaykrishna/visual_genome_python_driver.
Boxes in all of them are ``x, y, width, height`` in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from weft.conversation import WeftError
from weft.data.converters.base import (
    BadEntry,
    Job,
    Read,
    Sample,
    blip_caption,
    boxes,
    corners,
    get,
    identity,
    image,
    numbers,
    sample,
    task,
    text,
)
from weft.data.converters.jsonfile import Entry, entries, items

NAME = 27  # len("COCO_train2014_000000581282"): what eval_ref.py keeps of an img_id, whose end numbers the object


def minigpt_refcoco(job: Job) -> Read:
    """RefCOCO, RefCOCO+ and RefCOCOg as MiniGPT-4's repository evaluates them; verified on a real file.

    A JSON list of ``{"img_id": "COCO_train2014_000000581282_10", "sents": phrase, "bbox": [x, y, width, height],
    "height", "width"}``; the picture is ``img_id``'s first 27 characters and ``.jpg`` (eval_ref.py).
    """

    def make(e: Entry) -> Iterator[Sample]:
        entry, name = e.value, get(e.value, "img_id")
        place = e.name or f"[{e.line}]"  # part of the id: the repository's files hold some phrases twice
        picture = name[:NAME] + ".jpg"
        path = job.find(picture, f"train2014/{picture}", what="image")
        box = job.fractions(corners(numbers(get(entry, "bbox", list), 4, "bbox")), _measured(entry), path)
        phrases = get(entry, "sents", (str, list))
        for i, phrase in enumerate([phrases] if isinstance(phrases, str) else phrases):
            yield from _region(job, f"{name}{place}" + (f"-{i}" if i else ""), path, phrase, box)

    yield from job.each(entries(job.path), make)


def refcoco(job: Job) -> Read:
    """The original RefCOCO family: refs and instances.json of lichengunc/refer; from documentation, not verified.

    ``refs(unc).p`` is a pickle, which weft does not open: save it as JSON first. Each ref has ``ref_id``, ``ann_id``,
    ``image_id``, ``split`` and ``sentences``; box, picture and its size come from ``instances.json`` (COCO), whose two
    tables are held in memory. The phrase is ``raw``, as in MiniGPT-4. One sample for each sentence.
    """
    refs, instances = _refs(job)
    pictures = job.table(items(instances, "images"), lambda v: (identity(v, "id"), (get(v, "file_name"), _measured(v))))
    found = job.table(items(instances, "annotations"), lambda v: (identity(v, "id"), get(v, "bbox", list)))

    def make(e: Entry) -> Iterator[Sample]:
        ref = e.value
        if job.split is not None and get(ref, "split") != job.split:
            job.notes["refs of other splits"] += 1
            return
        number, picture = identity(ref, "ann_id"), identity(ref, "image_id")
        if number not in found:
            raise BadEntry(f"{number} is not in {instances}", field="ann_id")
        if picture not in pictures:
            raise BadEntry(f"{picture} is not in {instances}", field="image_id")
        name, size = pictures[picture]
        path = job.find(name, f"train2014/{name}", what="image")
        box = job.fractions(corners(numbers(found[number], 4, "bbox")), size, path)
        for i, sentence in enumerate(get(ref, "sentences", list)):
            phrase = get(sentence, "raw" if "raw" in sentence else "sent")
            yield from _region(job, f"{identity(ref, 'ref_id')}-{i}", path, phrase, box)

    yield from job.each(entries(refs), make)


def _measured(picture: Any) -> tuple[float, float]:
    return get(picture, "width", (int, float)), get(picture, "height", (int, float))


def _refs(job: Job) -> tuple[Path, Path]:
    refs, instances = job.path, job.annotations
    if job.path.is_dir():
        named = sorted(p for p in job.path.glob("refs*") if p.suffix in (".json", ".jsonl"))
        if len(named) != 1 and not named and sorted(job.path.glob("refs*.p")):
            refs = sorted(job.path.glob("refs*.p"))[0]
        elif len(named) != 1:
            raise WeftError(f"{job.path}: holds {len(named)} files refs*.json, name the one to read as PATH")
        else:
            refs = named[0]
    if refs.suffix in (".p", ".pkl", ".pickle"):
        raise WeftError(
            f"{refs}: is a pickle, which can run any program when it is opened; where you trust it, save it as JSON: "
            "python -c \"import json,pickle;json.dump(pickle.load(open('refs(unc).p','rb')),open('refs.json','w'))\""
        )
    instances = instances or refs.parent / "instances.json"
    if not instances.is_file():
        raise WeftError(f"{instances}: no such file: name instances.json with --annotations")
    return refs, instances


def _region(job: Job, name: str, path: str, phrase: Any, box: list[float]) -> Iterable[Sample]:
    """A phrase and its region, asked for by the phrase, by the region, or both."""
    if not isinstance(phrase, str) or not phrase.strip():
        raise BadEntry(f"a phrase is a string with words, this is {phrase!r}", field="phrase")
    if job.clean:
        phrase = blip_caption(phrase)
    wanted = job.task or "refer"
    many = wanted == "both"
    if wanted in ("refer", "both"):
        asked = [image(path), task("refer"), text(phrase)]
        yield sample(name + ("-refer" if many else ""), asked, [boxes([box], phrase)])
    if wanted in ("identify", "both"):
        yield sample(name + ("-identify" if many else ""), [image(path), task("identify"), boxes([box])], phrase)


def visual_genome(job: Job) -> Read:
    """Region descriptions of Visual Genome; from documentation, not verified.

    ``region_descriptions.json``: a list of ``{"id", "regions": [{"region_id", "image_id", "phrase", "x", "y", "width",
    "height"}]}``. ``image_data.json`` (``image_id``, ``url``, ``width``, ``height``) says which of the two folders
    ``VG_100K`` and ``VG_100K_2`` a picture is in; without it both are looked into. Many regions stick out of their
    picture (``--clip-boxes``). MiniGPT-4 trains on regions of less than 16,384 square pixels (``--max-area 16384``).
    """
    path = job.path / "region_descriptions.json" if job.path.is_dir() else job.path
    data = job.annotations or path.parent / "image_data.json"
    pictures: dict[str, tuple[str, tuple[float, float]]] = {}
    if job.annotations or data.is_file():
        pictures = job.table(
            items(data),
            lambda v: (identity(v, "image_id"), ("/".join(get(v, "url").split("/")[-2:]), _measured(v))),
        )

    def regions() -> Iterator[Entry]:
        """Every region is an entry of its own, so that one bad box costs one region."""
        for e in items(path):
            inner = e.value.pop("regions", None) if isinstance(e.value, dict) else None
            if not isinstance(inner, list):
                yield e._replace(value={})  # fails below, with its place
                continue
            number = e.value.get("id", e.value.get("image_id"))
            for i, region in enumerate(inner):
                if isinstance(region, dict):
                    region.setdefault("image_id", number)
                yield e._replace(value=region, name=f"{e.name}.regions[{i}]", inside="regions[]")
            job.unused(e)

    def make(e: Entry) -> Iterator[Sample]:
        region = e.value
        number = identity(region, "image_id")
        box = corners([get(region, key, (int, float)) for key in ("x", "y", "width", "height")])
        if job.max_area is not None and region["width"] * region["height"] >= job.max_area:
            job.notes[f"regions of {job.max_area:g} square pixels or more"] += 1
            return
        if number in pictures:
            name, size = pictures[number]
            found = job.find(name, name.split("/")[-1], what="image")
        else:
            names = [f"{folder}/{number}.jpg" for folder in ("VG_100K", "VG_100K_2")]
            found = job.find(*names, f"{number}.jpg", what="image")
            size = job.size(found)
        fractions = job.fractions(box, size, found)
        yield from _region(job, identity(region, "region_id"), found, get(region, "phrase"), fractions)

    yield from job.each(regions(), make)
