"""Rows with media: Hugging Face's parquet files, and folders with a table of what is in them.

Sources: huggingface.co/docs/datasets, "Create an image dataset", "Create an audio dataset" and "Load image data"
(imagefolder, audiofolder, metadata.csv, .jsonl, .parquet); datasets/features/image.py and audio.py of
huggingface/datasets (5.2): a medium is a struct of bytes and path, and the schema's metadata tell what a column holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from weft.conversation import WeftError
from weft.data.converters.base import SOUNDS, BadEntry, Job, Part, Read, Sample, audio, corners, image, numbers, sample
from weft.data.converters.base import task as task_part
from weft.data.converters.chats import named_chat
from weft.data.converters.jsonfile import Entry, Noted, entries
from weft.data.converters.questions import asked
from weft.data.converters.regions import DETECTED, PICTURES, Region, labelled
from weft.data.converters.tables import table
from weft.data.converters.timed import code
from weft.kinds import HEAD, sniff

LABELLED = ("emotion", "event", "scene", "vocal_sound", "music", "note", "speaker")
ROW_TASKS = ("transcribe", "caption", *DETECTED, *LABELLED)
CHATS = ("messages", "conversations", "completion")
FILES = ("file_name", "file_names", "path", "file", "filename", "image", "audio", "wav", "image_path", "audio_path")
TEXTS = (
    "text",
    "sentence",
    "transcription",
    "transcript",
    "raw_transcription",
    "normalized_text",
    "caption",
    "captions",
)
HEARD = ("audio", "speech", "sound", "wav", "clip", "recording", "voice")


class Medium(NamedTuple):
    """A picture or a recording that lies on the disk."""

    kind: str
    path: str


def parquet(job: Job) -> Read:
    """Hugging Face's parquet files, and the .arrow of ``save_to_disk``; verified on files of datasets.

    PATH is a file or a folder of them (``--split``: whose names or folders begin so). What a row becomes is told by its
    columns: conversations (``messages``, ``prompt`` and ``completion``, ``conversations``), ``question`` and
    ``answer``, ``objects`` with ``bbox`` (x, y, width, height in pixels) and their category, a text (a caption of a
    picture, what is said in a recording; ``--task caption``: what is heard), or a label, for which ``--task`` must say
    what it is of. Media are taken out, as they are, into a folder beside the output.
    """
    for file in job.files("*.parquet", "*.arrow"):
        inside = job.inside(file.value)
        if job.split and job.path.is_dir() and not any(part.startswith(job.split) for part in inside.parts):
            job.notes["files of other splits"] += 1
            continue
        yield from job.each(_rows(file.value), lambda e: _told(job, e, _kept(job, e)))


def _rows(file: Path) -> Iterator[Entry]:
    try:
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise WeftError(f"{file}: parquet needs pyarrow: pip install 'weftlm[layouts]'") from None
    try:
        batches: Iterator[Any]
        if file.suffix == ".arrow":  # a stream, whose batches hold as many rows as were written at once
            stream = pyarrow.ipc.open_stream(pyarrow.memory_map(str(file)))
            schema = stream.schema
            batches = (batch.slice(at, 16) for batch in stream for at in range(0, len(batch), 16))
        else:
            whole = pyarrow.parquet.ParquetFile(file)
            schema, batches = whole.schema_arrow, whole.iter_batches(batch_size=16)
        said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features, number = said.get("info", {}).get("features", {}), 0
        for batch in batches:
            for row in batch.to_pylist():
                value = Noted({name: _read(one, features.get(name)) for name, one in row.items()}.items())
                yield Entry(value, str(file), name=f"[{number}]")
                number += 1
    except (pyarrow.ArrowException, ValueError, OSError) as e:
        yield Entry(
            BadEntry(f"cannot be read further as {file.suffix[1:]} ({str(e)[:100]})", reason="damaged"), str(file)
        )


def _read(value: Any, feature: Any) -> Any:
    """A cell with its labels as words, whose objects note which keys were read. Media keep what their feature is."""
    if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(value, int):
        return feature["names"][value] if 0 <= value < len(feature["names"]) else None
    if isinstance(value, list):
        inner = feature[0] if isinstance(feature, list) else (feature or {}).get("feature")
        return [_read(one, inner) for one in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"bytes", "path"}:
        return value | {"_type": (feature or {}).get("_type")}
    inner = feature.get("feature", feature) if isinstance(feature, dict) else {}
    return Noted({key: _read(one, _of(feature, inner, key)) for key, one in value.items()}.items())


def _of(feature: Any, inner: Any, key: str) -> Any:
    """The feature of a field; datasets writes a sequence of objects as an object of lists."""
    one = inner.get(key) if isinstance(inner, dict) else None
    return {"feature": one} if isinstance(feature, dict) and "feature" in feature else one


def _kept(job: Job, e: Entry) -> dict[str, list[Medium]]:
    """The media of a row, written beside the output; their columns then hold paths."""
    found: dict[str, list[Medium]] = {}
    for column in list(e.value):
        held = dict.__getitem__(e.value, column)
        many = held if isinstance(held, list) else [held]
        if not many or not all(isinstance(one, bytes) or isinstance(one, dict) and "bytes" in one for one in many):
            continue
        for i, one in enumerate(many):
            one = one if isinstance(one, dict) else {"bytes": one}
            data, named, number = one["bytes"], one.get("path") or "", (e.name or "")[1:-1]
            kind = {"Image": "image", "Audio": "audio"}.get(one.get("_type") or "") or _kind(column, data or b"", named)
            if data is None:
                found.setdefault(column, []).append(Medium(kind, job.find(named, what=kind)))
                continue
            name = f"{Path(e.file).stem}/{number}-{column}{f'-{i}' if len(many) > 1 else ''}{Path(named).suffix}"
            found.setdefault(column, []).append(Medium(kind, job.keep(name, data)))
    return found


def _kind(column: str, data: bytes, name: str) -> str:
    heard = Path(name).suffix.lower() in SOUNDS or any(word in column.lower() for word in HEARD)
    return "audio" if heard or (sniff(data[:HEAD]) or "").endswith("sound") else "image"


def folder(job: Job) -> Read:
    """Hugging Face's imagefolder and audiofolder; from documentation, not verified.

    PATH is a folder with ``metadata.jsonl``, ``.csv`` or ``.parquet``, or such a table itself (any name, ``.tsv`` too):
    ``file_name`` (``file_names``, ``<column>_file_name``; ``image``, ``audio``, ``path``) names media relative to the
    table, and the other columns say of them what those of ``parquet`` do. In a folder without a table the name of the
    folder that a file lies in is its label. ``--split``: only what lies in a folder of that name.
    """
    if job.path.is_dir() and not any(job.path.rglob("metadata.*")):
        for e in job.files(*(f"*{x}" for ending in (*PICTURES, *SOUNDS) for x in (ending, ending.upper()))):
            kind = _kind("", b"", e.value.name)
            row = Noted({"label": job.inside(e.value).parent.name}.items())
            yield from job.each([e._replace(value=row)], lambda e: _told(job, e, {"file": [Medium(kind, e.file)]}))  # noqa: B023
        return
    for file in job.files("metadata.jsonl", "metadata.csv", "metadata.parquet"):
        if job.split and job.path.is_dir() and job.split not in job.inside(file.value).parts:
            job.notes["tables of other splits"] += 1
            continue
        kind = file.value.suffix
        read = _rows if kind == ".parquet" else entries if kind in (".jsonl", ".json") else _table
        yield from job.each(read(file.value), lambda e: _told(job, e, _named(job, e)))


def _table(file: Path) -> Iterator[Entry]:
    return table(file, "\t" if file.suffix == ".tsv" else ",")


def _named(job: Job, e: Entry) -> dict[str, list[Medium]]:
    if not isinstance(e.value, dict):
        raise BadEntry("a row is an object")
    inside, found = job.inside(Path(e.file)).parent, dict[str, list[Medium]]()
    for column in e.value:
        if column not in FILES and not column.endswith(("_file_name", "_file_names")) or found and column in FILES[2:]:
            continue
        given = e.value[column]
        for name in given if isinstance(given, list) else [given]:
            if not isinstance(name, str) or not name:
                raise BadEntry(f"must be the path of a file, this is {name!r}", field=column)
            kind = _kind(column, b"", name)
            path = job.find(str(inside / name), name, what=kind)
            found.setdefault(column, []).append(Medium(kind, path))
    if not found:
        raise BadEntry(f"names no file: there are {', '.join(e.value)}", reason="no media")
    return found


def _told(job: Job, e: Entry, media: dict[str, list[Medium]]) -> Iterator[Sample]:
    """What the columns beside its media say of a row."""
    row, name = e.value, str(e.value.get("id") or f"{Path(e.file).stem}-{(e.name or '')[1:-1] or e.line or 0}")
    if any(column in row for column in CHATS):
        for column in media:
            dict.pop(row, column)
        for kind in ("image", "audio"):
            row[f"{kind}s"] = [m.path for many in media.values() for m in many if m.kind == kind]
        yield named_chat(job, row, name)
        return
    main = next((c for c in ("image", "audio", "images") if c in media), next(iter(media), None))
    if main is None:
        raise BadEntry(f"holds no picture and no recording: there are {', '.join(row)}", reason="no media")
    row.get(main)
    for other in media.keys() - {main}:
        job.notes[f'column "{other}" is not used'] += 1
    kinds, paths = {m.kind for m in media[main]}, [m.path for m in media[main]]
    seen: list[Part] = [image(p) if m.kind == "image" else audio(p) for m, p in zip(media[main], paths, strict=True)]
    if "objects" in row and kinds == {"image"} and job.task in (None, *DETECTED):
        size = job.size(paths[0])
        yield from labelled(job, name, paths[0], size, list(_objects(row["objects"])))
    elif (question := row.get("question")) is not None:
        given = row.get("answers", row.get("answer"))
        many = [a.get("answer") if isinstance(a, dict) else a for a in given] if isinstance(given, list) else [given]
        yield from asked(job, name, seen, question, many, "vqa" if kinds == {"image"} else "question")
    else:
        yield from _answered(job, name, seen, row, "caption" if kinds == {"image"} else "transcribe")


def _answered(job: Job, name: str, seen: list[Part], row: dict[str, Any], usual: str) -> Iterator[Sample]:
    column = next((c for c in TEXTS if c in row), None)
    label = next((c for c in ("label", "labels", "class", "category") if c in row), None)
    said = row[column] if column else row[label] if label else None
    if column is None and job.task is None:
        named = (
            f'a label in "{label}": say with --task what it is of' if label else "no text, question, objects or label"
        )
        raise BadEntry(f"has {named} (columns: {', '.join(row)})", reason="what is asked is not said")
    wanted = job.task or usual
    language = job.language or code(next((row[c] for c in ("language", "lang", "locale") if row.get(c)), None))
    fields = {} if language is None or wanted == "caption" and usual == "caption" else {"language": language}
    for i, one in enumerate(said if isinstance(said, list) else [said]):
        yield sample(
            name + (f"-{i}" if i else ""), [*seen, task_part(wanted, **fields)], "" if one is None else str(one)
        )


def _objects(held: Any) -> Iterator[Region]:
    """``{"bbox": [[x, y, width, height]], "category": [label]}``, or a list of objects that have one of each."""
    if isinstance(held, list):
        held = {key: [one.get(key) for one in held] for key in (held[0] if held else {})}
    labels = next((held[key] for key in ("category", "categories", "label", "labels", "class") if key in held), None)
    boxes = held.get("bbox") or []
    if labels is None or len(labels) != len(boxes):
        raise BadEntry("has no category for each bbox", field="objects")
    for label, box in zip(labels, boxes, strict=True):
        yield Region(str(label), corners(numbers(list(box), 4, "objects.bbox")))
