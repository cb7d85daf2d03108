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

from weft.conversation import WeftError
from weft.data.converters.base import BadEntry, Job, Read, Sample, blip_caption, each, image, sample, task
from weft.data.converters.jsonfile import Entry

PICTURES = ("jpg", "jpeg", "png", "webp")


def webdataset(job: Job) -> Read:
    """Captions of the pictures in tar shards; from documentation, not verified.

    PATH is a shard or a folder of shards. The caption is the ``.txt``, else ``caption`` in the ``.json``. Pictures are
    taken out of the shards, as they are, into a folder beside the output (``samples.jsonl``:
    ``samples_media/<shard>``).
    """
    shards = sorted(job.path.glob("*.tar")) if job.path.is_dir() else [job.path]
    if not shards:
        raise WeftError(f"{job.path}: holds no .tar file: name a shard or a folder of shards")
    media = job.out.parent / f"{job.out.stem}_media"

    def make(e: Entry) -> Iterator[Sample]:
        name, files = e.value
        kind = next((k for k in PICTURES if k in files), None)
        if kind is None:
            raise BadEntry(f"holds no picture (.{', .'.join(PICTURES)})", reason="no picture")
        said = _caption(files)
        place = media / Path(e.file).stem / f"{name}.{kind}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(files[kind])
        yield sample(name, [image(str(place)), task("caption")], blip_caption(said) if job.clean else said)

    for shard in shards:
        yield from each(_samples(shard), make)


def _caption(files: dict[str, bytes]) -> str:
    try:
        if "txt" in files:
            return files["txt"].decode("utf-8").removesuffix("\n")
        held = json.loads(files["json"].decode("utf-8")) if "json" in files else None
    except ValueError as e:
        raise BadEntry(f"is damaged ({e})", field="txt" if "txt" in files else "json") from None
    said = held.get("caption") if isinstance(held, dict) else None
    if not isinstance(said, str):
        raise BadEntry("holds no caption (a .txt, or caption in the .json)", reason="no caption")
    return said


def _samples(shard: Path) -> Iterator[Entry]:
    """The files of each sample by their ending: ``(name, {"jpg": ..., "txt": ...})``."""
    name, files = "", dict[str, bytes]()
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
                    if files:
                        yield Entry((name, files), str(shard), name=name)
                    name, files = here, {}
                stream = tar.extractfile(member)
                files[ending.lower()] = stream.read() if stream else b""
    except (tarfile.TarError, OSError, EOFError) as e:
        yield Entry(BadEntry(f"cannot be read further as a tar file ({e}): download it again"), str(shard))
    if files:
        yield Entry((name, files), str(shard), name=name)
