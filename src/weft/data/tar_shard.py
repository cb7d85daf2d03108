"""A tar of samples in webdataset's layout (``KEY.json``, ``KEY.0.jpg``, ...), read at random by an index beside it.

The index, ``NAME.tar.index``, is one array (``.npy``, mapped, not read): first a row for each sample's JSON text, then
rows for the media. A tar of somebody else has none; it is walked once, and its index kept in the user's cache.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fsspec.spec import AbstractFileSystem
from platformdirs import user_cache_path

from weft.conversation import WeftError
from weft.files import whole_file
from weft.media import Stored

# Name, first byte, bytes, and of a medium its facts and a number that stands for its bytes (`media.Stored`).
Member = tuple[str, int, int, tuple[int, int, int]]
UNKNOWN = 0, 0, 0
ROW = [("start", "<u8"), ("bytes", "<u8"), ("a", "<u4"), ("b", "<u4"), ("same", "<u8")]


class TarShard:
    def __init__(self, files: Any, path: str, record: Callable[..., Any]) -> None:
        self.files, self.path, self.record = files, path, record
        # What fsspec makes of file systems that read no range of their own (hf) reads 5 MB beyond each.
        own = type(files).cat_file is not AbstractFileSystem.cat_file or "file" in files.protocol
        self.exactly = {} if own else {"cache_type": "none"}
        self.rows = _index(files, path)
        self.samples = int(self.rows[0]["a"]) if len(self.rows) else 0

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Any:
        sample = self.rows[index]
        first, count = int(sample["a"]), int(sample["b"])
        text = self._read(int(sample["start"]), int(sample["bytes"]))
        return self.record(text, dict(map(self._medium, self.rows[first : first + count])))

    def _medium(self, row: Any) -> tuple[str, Stored]:
        name, facts = bytes(row["name"]).decode(), (int(row["a"]), int(row["b"]))
        read, place = partial(self._read, int(row["start"]), int(row["bytes"])), f"{self.path}/{name}"
        return name, Stored(place, read, int(row["same"]) or place, facts if all(facts) else None)

    def _read(self, start: int, count: int) -> bytes:
        data: bytes = self.files.cat_file(self.path, start=start, end=start + count, **self.exactly)
        if len(data) != count:
            raise OSError(f"{self.path} ends at byte {start + len(data):,}, within a sample")
        return data


def index_rows(samples: Sequence[Sequence[Member]]) -> np.ndarray:
    """The index of samples, each its JSON text and then its media."""
    wide = max((len(name.encode()) for sample in samples for name, *_ in sample), default=1)
    rows = np.zeros(sum(map(len, samples)), [("name", f"S{wide}"), *ROW])
    media = len(samples)
    for number, (text, *others) in enumerate(samples):
        rows[number] = text[0].encode(), *text[1:3], media, len(others), 0
        for name, start, count, facts in others:
            rows[media] = name.encode(), start, count, *facts
            media += 1
    return rows


def _index(files: Any, path: str) -> np.ndarray:
    beside = f"{path}.index"
    if "file" in files.protocol and Path(beside).is_file():
        return np.load(beside, mmap_mode="r")
    kept = user_cache_path("weft") / "indexes" / f"{files.checksum(path):x}.npy"
    if not kept.is_file():
        with whole_file(kept, "wb") as file:
            if files.exists(beside):
                file.write(files.cat_file(beside))
            else:
                np.save(file, index_rows(list(_samples(files, path))))
    return np.load(kept, mmap_mode="r")


def _samples(files: Any, path: str) -> Iterable[list[Member]]:
    """The members of each sample, its JSON text first: files that share their name up to its first dot."""
    last, text, media = "", list[Member](), list[Member]()
    with files.open(path, "rb") as raw, tarfile.open(fileobj=io.BufferedReader(raw, 1 << 20), mode="r:") as tar:
        for member in tar:
            if not member.isfile():
                continue
            folder, slash, base = member.name.rpartition("/")
            key, _, ending = base.partition(".")
            if folder + slash + key != last:
                yield from _whole(path, last, text, media)
                last, text, media = folder + slash + key, [], []
            # Paths in a sample start from where its text stands.
            (text if ending == "json" else media).append((base, member.offset_data, member.size, UNKNOWN))
    yield from _whole(path, last, text, media)


def _whole(path: str, key: str, text: list[Member], media: list[Member]) -> Iterable[list[Member]]:
    if text:
        yield [text[-1], *media]
    elif media:
        raise WeftError(
            f"{path}: {key} has no .json with a sample in it; make samples of such shards first "
            f"(weft data convert webdataset {path} -o samples.jsonl)"
        )
