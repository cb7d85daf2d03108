"""Flickr30k Entities: captions whose phrases have boxes.

Source: README.md and flickr30k_entities_utils.py of BryanPlummer/flickr30k_entities. From documentation, not verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from weft.conversation import WeftError
from weft.data.converters.base import BadEntry, Job, Part, Read, Sample, boxes, image, sample, task, text, xml
from weft.data.converters.jsonfile import Entry

_PHRASE = re.compile(r"\[/EN#(\d+)(?:/\S+)* ([^\]]*)\]")


def flickr30k(job: Job) -> Read:
    """Captions with grounded phrases, phrases to find, or plain captions; from documentation, not verified.

    PATH holds ``Sentences/<id>.txt`` (a caption a line, ``[/EN#<chain>/<type> two men]`` around a phrase) and
    ``Annotations/<id>.xml`` (PASCAL VOC boxes with one or more chains as names). Coordinates count pixels from 1 and
    are lowered by 1, as the dataset's own reader does. Phrases without a box (scenes, not visible, chain 0) stay words.
    ``--task``: ``grounded_caption`` (a sample a caption), ``detection`` (a sample a phrase), ``caption``. ``--split``
    takes the picture ids of ``<split>.txt`` in PATH.
    """
    folder = job.path / "Sentences"
    if not folder.is_dir():
        raise WeftError(f"{job.path}: holds no folder Sentences: name the folder with Sentences and Annotations in it")
    chosen: set[str] | None = None
    if job.split is not None:
        listed = job.path / f"{job.split}.txt"
        if not listed.is_file():
            raise WeftError(f"{listed}: no such file: --split names a list of picture ids beside Sentences")
        chosen = set(listed.read_text(encoding="utf-8").split())

    def captions() -> Iterator[Entry]:
        for file in sorted(folder.glob("*.txt")):
            if chosen is not None and file.stem not in chosen:
                job.notes["pictures of other splits"] += 1
                continue
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError:
                yield Entry(BadEntry("is not UTF-8: save the file as UTF-8"), str(file))
                continue
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield Entry((file.stem, line), str(file), line=number)

    held: tuple[str, dict[str, list[list[float]]]] = ("", {})  # the boxes of the picture at hand: 5 captions share them

    def make(e: Entry) -> Iterator[Sample]:
        nonlocal held
        name, line = e.value
        path = job.find(f"{name}.jpg", what="image")
        wanted = job.task or "grounded_caption"
        if wanted == "caption":
            yield sample(f"{name}#{e.line}", [image(path), task("caption")], _PHRASE.sub(r"\2", line))
            return
        if held[0] != name:
            held = name, _boxes(job, job.path / "Annotations" / f"{name}.xml", path)
        parts = _grounded(line, held[1])
        if wanted == "grounded_caption":
            yield sample(f"{name}#{e.line}", [image(path), task("grounded_caption")], parts)
            return
        for i, part in enumerate(p for p in parts if p["type"] == "box"):
            yield sample(f"{name}#{e.line}-{i}", [image(path), task("detection"), text(part["label"])], [part])

    yield from job.each(captions(), make)


def _grounded(line: str, found: dict[str, list[list[float]]]) -> list[Part]:
    """A caption as text and box parts; each phrase that has boxes is the label of them."""
    parts: list[Part] = []
    said, end = "", 0
    for match in _PHRASE.finditer(line):
        said += line[end : match.start()]
        end = match.end()
        chain, phrase = match.groups()
        if chain not in found or not phrase.strip():
            said += phrase
            continue
        if said:
            parts.append(text(said))
        said = ""
        parts.append(boxes(found[chain], phrase))
    said += line[end:]
    return [*parts, text(said)] if said else parts


def _boxes(job: Job, file: Path, path: str) -> dict[str, list[list[float]]]:
    """Boxes of each chain of one picture, in fractions."""
    root = xml(file)
    try:
        size = float(root.findtext("size/width", "")), float(root.findtext("size/height", ""))
        found: dict[str, list[list[float]]] = {}
        for thing in root.findall("object"):
            for outline in thing.findall("bndbox"):
                sides = [float(outline.findtext(key, "")) - 1 for key in ("xmin", "ymin", "xmax", "ymax")]
                box = job.fractions([max(side, 0.0) for side in sides], size, path)  # a few count from 0
                for name in thing.findall("name"):
                    found.setdefault((name.text or "").strip(), []).append(box)
    except ValueError as e:
        if isinstance(e, WeftError):
            raise
        raise BadEntry(f"{file} lacks a number (size, xmin ...)", reason="annotation is damaged") from None
    return found
