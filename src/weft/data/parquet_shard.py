"""A Parquet file of samples: ``sample`` (JSON text) and ``media`` (a list of ``struct{bytes, path}``).

``facts``, which may be missing, are of each medium what `media.Stored` knows of it: two numbers, and one for its bytes.
A sample is read with its row group, so these are small where samples are read at random. Needs pyarrow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from threading import Lock
from typing import Any

import numpy as np

from weft.conversation import WeftError
from weft.media import Stored

LIGHT = ["sample", "facts", "media.list.element.path"]  # all but the bytes
KEPT = 8  # row groups in memory, with and without bytes


class ParquetShard:
    def __init__(self, files: Any, path: str, record: Callable[..., Any]) -> None:
        try:
            import pyarrow.parquet as pq
        except ImportError:
            raise WeftError(
                f'{path}: Parquet is read with the extra "layouts": pip install "weftlm[layouts]"'
            ) from None
        self.path, self.record = path, record
        self.file, self.lock = pq.ParquetFile(files.open(path, "rb")), Lock()
        if missing := {"sample", "media"} - set(self.file.schema_arrow.names):
            raise WeftError(
                f"{path}: has no column {' and '.join(sorted(missing))}; make samples of it first "
                f"(weft data convert parquet {path} -o samples.jsonl)"
            )
        groups = self.file.metadata
        self.ends = np.cumsum([groups.row_group(i).num_rows for i in range(groups.num_row_groups)])
        self.light: Callable[[int], Any] = lru_cache(KEPT)(partial(self._group, LIGHT))
        self.heavy: Callable[[int], Any] = lru_cache(KEPT)(partial(self._group, ["media"]))

    def _group(self, columns: list[str], number: int) -> Any:
        with self.lock:  # the reader is of one thread
            return self.file.read_row_group(number, columns=columns, use_threads=False)

    def __len__(self) -> int:
        return int(self.file.metadata.num_rows)

    def __getitem__(self, index: int) -> Any:
        number = int(np.searchsorted(self.ends, index, side="right"))
        row = index - (int(self.ends[number - 1]) if number else 0)
        table = self.light(number)
        names = [medium["path"] for medium in table["media"][row].as_py() or ()]
        facts = table["facts"][row].as_py() if "facts" in table.column_names else [None] * len(names)
        media = {}
        for i, (name, known) in enumerate(zip(names, facts, strict=True)):
            place, read = f"{self.path}/{index + 1}/{name}", partial(self._read, number, row, i)
            media[name] = Stored(place, read, known[2], tuple(known[:2])) if known else Stored(place, read, place)
        return self.record(table["sample"][row].as_py().encode(), media)

    def _read(self, group: int, row: int, place: int) -> bytes:
        data: bytes = self.heavy(group)["media"][row][place]["bytes"].as_py()
        return data
