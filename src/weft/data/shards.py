"""Samples in shards: files that hold many samples and their media, in a folder here or behind an address of fsspec.

A shard is a tar in webdataset's layout (`tar_shard`) or a Parquet file (`parquet_shard`). Any sample is read at random,
nothing is unpacked, and no medium is read before it is decoded.
"""

from __future__ import annotations

import hashlib
import json
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypeVar

from weft.conversation import Audio, Conversation, Image, Part, SampleError, WeftError
from weft.conversation.samples import parse_line
from weft.data.parquet_shard import ParquetShard
from weft.data.source import MANIFEST
from weft.data.tar_shard import TarShard
from weft.media import Stored, image_size

TRIES, PAUSE = 3, 0.5  # of a read; seconds before the second, and twice that before the third
KEPT_OPEN = 256  # shards

Made = TypeVar("Made")


@dataclass(frozen=True)
class Record:
    """One sample as it is stored: its JSON text, and its media by the names that the text calls them."""

    text: bytes
    media: dict[str, Stored]


class Shard(Protocol):
    """One file. Whatever its methods raise is taken as a failed read, and tried again."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


OPEN: dict[str, Callable[[Any, str, Callable[..., Record]], Shard]] = {".tar": TarShard, ".parquet": ParquetShard}


class Shards:
    """The samples of shards in the order of their names; ``source[i]`` is a `Conversation` whose media are `Stored`.

    A read that fails is tried again, and then is a `WeftError` that names the sample: of that one alone.
    """

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        self.path = str(path)
        self.name = name or Path(self.path.rstrip("/")).stem
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._lock = Lock()
        import fsspec  # a tenth of a second, which a file of samples need not wait for

        try:
            self._files, root = fsspec.core.url_to_fs(self.path)
        except ImportError as error:  # s3fs, gcsfs, ...: fsspec says which
            raise WeftError(f"{self.path}: {error}") from None
        local = "file" in self._files.protocol
        self.home = Path(root).resolve().parent if local else None
        found = tried(lambda: self._list(root), self.path)
        self._names = [file for file, _ in found]
        counts = [
            len(tried(partial(self._shard, i), file)) if count is None else count
            for i, (file, count) in enumerate(found)
        ]
        self._ends = list(accumulate(counts))
        if not len(self):
            raise WeftError(f"{self.path}: holds no samples; name a folder of .tar or .parquet shards")

    def _list(self, root: str) -> list[tuple[str, int | None]]:
        """Each shard's file, and how many samples it holds where that is written down."""
        if root.endswith(tuple(OPEN)):
            return [(root, None)]
        if self._files.exists(manifest := f"{root}/{MANIFEST}"):
            listed = json.loads(self._files.cat_file(manifest))["shards"]
            return [(f"{root}/{shard['name']}", int(shard["samples"])) for shard in listed]
        return [(file, None) for file in sorted(self._files.ls(root, detail=False)) if file.endswith(tuple(OPEN))]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Conversation:
        number, row = self._place(index)
        record = tried(lambda: self._shard(number)[row], self.where(index))
        media = {name: replace(held, read=partial(tried, held.read, held.name)) for name, held in record.media.items()}
        try:
            conversation = parse_line(
                record.text, probe=lambda name: image_size(media.get(name, name)), exists=media.__contains__
            )
        except SampleError as error:
            raise SampleError(error.problem, file=self._names[number], line=row + 1, field=error.field) from None

        def stored(part: Part) -> Part:
            if isinstance(part, Image | Audio) and part.source in media:
                return replace(part, source=media[part.source])
            return part

        return conversation.changed(stored) if media else conversation

    def where(self, index: int) -> str:
        number, row = self._place(index)
        return f"{self._names[number]}:{row + 1}"

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for file in tried(lambda: [self._files.info(name) for name in self._names], self.path):
            digest.update(json.dumps(file, sort_keys=True, default=str).encode())
        return digest.hexdigest()

    def bytes(self) -> int:
        """Of all shards."""
        return sum(tried(lambda: [self._files.size(name) or 0 for name in self._names], self.path))

    def _place(self, index: int) -> tuple[int, int]:
        """The shard of a sample, and its row there."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)

    def _shard(self, number: int) -> Shard:
        with self._lock:
            if number not in self._open:
                file = self._names[number]
                self._open[number] = OPEN[Path(file).suffix](self._files, file, Record)
                if len(self._open) > KEPT_OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(number)
            return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())


def tried(read: Callable[[], Made], where: str) -> Made:
    """What ``read`` gives, after some tries; a `WeftError` of ``where`` after the last."""
    for left in reversed(range(TRIES)):
        try:
            return read()
        except WeftError:
            raise
        except Exception as error:  # each file system has errors of its own, and few of them are OSError
            if not left or isinstance(error, FileNotFoundError):
                said = " ".join(str(error).split()) or type(error).__name__
                raise WeftError(f"{where}: cannot be read ({said}); see that the shard is there and whole") from error
        time.sleep(PAUSE * 2 ** (TRIES - 1 - left))
    raise AssertionError
