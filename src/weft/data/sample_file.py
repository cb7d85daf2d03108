"""One JSON Lines file of conversations, read at random.

Only line offsets are kept in memory (16 bytes a sample), so a file of millions opens in seconds and `source[i]` costs
one read and one parse. No media file is opened here.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from weft.conversation import Conversation, WeftError, within
from weft.conversation.foreign import command
from weft.conversation.samples import BOM, parse_line
from weft.media import image_size

CHUNK = 1 << 24


class SampleFile:
    """The samples of ``path`` in file order; ``source[i]`` is a `Conversation` whose media paths are resolved.

    Blank lines are not samples. A line that is not a sample raises `SampleError` with file, line and field when it is
    read; so does one that names a medium outside of ``media_root``, where that is given. Instances are cheap to send to
    another process and safe to read from several threads.
    """

    def __init__(self, path: str | Path, name: str | None = None, media_root: str | None = None) -> None:
        self.path, self.media_root = Path(path), media_root
        self.home: Path | None = self.path.resolve().parent
        self.name = name or self.path.stem
        self._file: int | None = None
        try:
            self._starts, self._lines = _index(self.path)
        except OSError as error:
            problem = command(self.path) or f"cannot be read ({error.strerror}); give a JSON Lines file"
            raise WeftError(f"{self.path}: {problem}") from None
        if not len(self._lines):
            raise WeftError(f"{self.path}: holds no samples; give a JSON Lines file with one conversation a line")

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Conversation:
        line = int(self._lines[index])
        folder, exists = self.path.parent, within(self.media_root)
        raw = self.raw(index)
        return parse_line(raw, where=str(self.path), line=line, root=folder, probe=image_size, exists=exists)

    def raw(self, index: int) -> bytes:
        """The line of one sample as it stands in the file."""
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
        start, end = (int(x) for x in self._starts[index])
        return os.pread(self._file, end - start, start)  # no shared file position: threads do not disturb each other

    def where(self, index: int) -> str:
        """``file:line`` of one sample, for messages."""
        return f"{self.path}:{int(self._lines[index])}"

    def fingerprint(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def close(self) -> None:
        """Give the file handle back; reading opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


def _index(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """``([n, 2] start and end byte, [n] line number from 1)`` of the lines that are not blank."""
    ends: list[np.ndarray] = []
    with path.open("rb") as file:
        offset = 0
        while chunk := file.read(CHUNK):
            ends.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == 10) + offset)
            offset += len(chunk)
        newlines = np.concatenate(ends) if ends else np.zeros(0, np.int64)
        if not len(newlines) or newlines[-1] != offset - 1:
            newlines = np.append(newlines, offset)  # the last line has no newline
        starts = np.concatenate([[0], newlines[:-1] + 1])
        file.seek(0)
        if file.read(len(BOM)) == BOM:
            starts[0] = len(BOM)
        spans = np.stack([starts, newlines], axis=1).astype(np.int64)
        # A line whose first byte is no space is not blank: reading the others alone keeps the scan at the speed of the
        # disk.
        keep = spans[:, 1] > spans[:, 0]
        firsts = np.memmap(path, np.uint8, "r")[spans[keep, 0]] if keep.any() else np.zeros(0, np.uint8)
        for i in np.flatnonzero(keep)[np.isin(firsts, list(b" \t\r\n\v\f"))]:
            file.seek(int(spans[i, 0]))
            keep[i] = bool(file.read(int(spans[i, 1] - spans[i, 0])).strip())
    return spans[keep], np.flatnonzero(keep) + 1
