"""Image-text pairs in webdataset tar shards (LAION, CC3M, SBU as img2dataset writes them).

Sources: webdataset's format (files of one sample share their name up to the first dot and follow each other);
img2dataset's README (``.jpg``, ``.txt``, ``.json``); cc_sbu_dataset.py of Vision-CAIR/MiniGPT-4 (``jpg``, and
``caption`` in ``json``). From documentation, not verified.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weft.conversation import WeftError
from weft.data.converters.base import EMPTY_FILE, BadEntry, Job, Read, Sample, blip_caption, image, sample, task
from weft.data.converters.jsonfile import Entry, Noted

PICTURES = ("jpg", "jpeg", "png", "webp")
DOT = "a sample's name ends at its first dot, and names differ before it"


def webdataset(job: Job) -> Read:
    """Captions of the pictures in tar shards; from documentation, not verified.

    PATH is a shard or a folder of shards. The caption is the ``.txt``, else ``caption`` in the ``.json``. Pictures are
    taken out of the shards, as they are, into a folder beside the output (``samples.jsonl``:
    ``samples_media/<shard>``).
    """
    shards = sorted(job.path.glob("*.tar")) if job.path.is_dir() else [job.path]
    if not shards:
        raise WeftError(f"{job.path}: holds no .tar file: name a shard or a folder of shards")

    def make(e: Entry) -> Iterator[Sample]:
        files, shard = e.value, Path(e.file).stem
        kind = next((k for k in PICTURES if k in files), None)
        if kind is None:
            there = ", ".join(f".{ending}" for ending in files)
            raise BadEntry(f"holds no picture (.{', .'.join(PICTURES)}) but {there}: {DOT}", reason="no picture")
        if not files[kind]:
            raise BadEntry("is empty (0 bytes)", reason=EMPTY_FILE, field=kind)
        said = _caption(files)
        place = job.keep(f"{shard}/{e.name}.{kind}", files[kind])  # a name that comes again is another sample
        name = place.rpartition(f"_media/{shard}/")[2].removesuffix(f".{kind}")
        yield sample(name, [image(place), task("caption")], blip_caption(said) if job.clean else said)

    for shard in shards:
        yield from job.each(_samples(shard), make)


def _caption(files: dict[str, Any]) -> str:
    try:
        if "txt" in files:
            said = files["txt"].decode("utf-8").removesuffix("\n")
        elif "json" in files:
            files["json"] = held = json.loads(files["json"].decode("utf-8"), object_pairs_hook=Noted)
            said = held.get("caption") if isinstance(held, dict) else None
        else:
            said = None
    except ValueError as e:
        raise BadEntry(f"is damaged ({e})", field="txt" if "txt" in files else "json") from None
    if not isinstance(said, str):
        raise BadEntry("holds no caption (a .txt, or caption in the .json)", reason="no answer")
    return said


def _samples(shard: Path) -> Iterator[Entry]:
    """The files of each sample by their ending: ``{"jpg": ..., "txt": ...}``."""
    name, files = "", Noted(())
    twice: str | None = None  # an ending that comes twice in the sample at hand
    try:
        with tarfile.open(shard, "r|*") as tar:
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                if not member.isfile() or not stem or not ending:
                    continue
                here = os.path.normpath(os.path.join(folder, stem))
                if here.startswith(("..", "/")):
                    here = stem  # no name in an archive leads out of the folder
                if here != name:
                    yield from _whole(files, twice, shard, name)
                    name, files, twice = here, Noted(()), None
                ending = ending.lower()
                twice = ending if ending in files else twice
                stream = tar.extractfile(member)
                files[ending] = stream.read() if stream else b""
    except (tarfile.TarError, OSError, EOFError) as e:
        yield Entry(BadEntry(f"cannot be read further as a tar file ({e}): download it again"), str(shard))
    yield from _whole(files, twice, shard, name)


def _whole(files: Noted, twice: str | None, shard: Path, name: str) -> Iterator[Entry]:
    if twice is not None:
        problem = f"holds two files .{twice}, one after the other, so which belongs to which is not known: {DOT}"
        yield Entry(BadEntry(problem, reason="name twice in a row"), str(shard), name=name)
    elif files:
        yield Entry(files, str(shard), name=name)
