"""One JSON Lines file of conversations, read at random.

Only where lines begin is known (16 bytes a sample), so `source[i]` costs one read and one parse; of a large file that
is written down once and mapped, so it takes no memory and opens at once. No media file is opened here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from weft.conversation import Conversation, WeftError
from weft.conversation.parts import Exists
from weft.conversation.samples import BOM, FOREIGN, parse_line
from weft.media import image_size
from weft.named import Named

CHUNK = 1 << 24
LARGE = 1 << 26  # bytes of a file whose index is kept
TIMED = 1 << 30  # bytes of a file that is known by its size and time, for reading it would take seconds
ROOTS = Named[Callable[[str], Exists]]({"within": "weft.conversation.roots:within"})  # of samples of strangers
INDEX = Named[Callable[[Path], tuple[bool, np.ndarray]]]({"kept": "weft.data.kept_index:kept"})
LINE = np.dtype([("start", "<u8"), ("bytes", "<u4"), ("line", "<u4")])  # of each sample


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
            self._kept, self._lines = _index(self.path)
        except OSError as error:
            problem = FOREIGN["command"](self.path) or f"cannot be read ({error.strerror}); give a JSON Lines file"
            raise WeftError(f"{self.path}: {problem}") from None
        if not len(self._lines):
            raise WeftError(f"{self.path}: holds no samples; give a JSON Lines file with one conversation a line")

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Conversation:
        line = int(self._lines[index]["line"])
        exists = os.path.isfile if self.media_root is None else ROOTS["within"](self.media_root)
        raw = self.raw(index)
        return parse_line(raw, where=str(self.path), line=line, root=self.path.parent, probe=image_size, exists=exists)

    def raw(self, index: int) -> bytes:
        """The line of one sample as it stands in the file."""
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
        start, count, _ = self._lines[index].item()
        return os.pread(self._file, count, start)  # no shared file position: threads do not disturb each other

    def where(self, index: int) -> str:
        """``file:line`` of one sample, for messages."""
        return f"{self.path}:{int(self._lines[index]['line'])}"

    def fingerprint(self) -> str:
        if (status := self.path.stat()).st_size > TIMED:
            return f"{status.st_size} {status.st_mtime_ns}"
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
        return {**self.__dict__, "_file": None, **({"_lines": None} if self._kept else {})}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._lines is None:
            self._kept, self._lines = _index(self.path)


def _index(path: Path) -> tuple[bool, np.ndarray]:
    """Whether it is kept on the disk, and the lines that are not blank (`LINE`)."""
    status = path.stat()
    if status.st_size < LARGE:
        return False, np.concatenate([np.zeros(0, LINE), *lines(path)])
    return INDEX["kept"](path)  # type: ignore[no-any-return]


def lines(path: Path) -> Iterator[np.ndarray]:
    """Runs of the lines that are not blank."""
    with path.open("rb") as file:
        start = len(BOM) if os.pread(file.fileno(), len(BOM), 0) == BOM else 0
        place, before = 0, 0  # bytes read, lines that have ended
        while data := file.read(CHUNK):
            chunk = np.frombuffer(data, np.uint8)
            ends = np.flatnonzero(chunk == ord("\n"))
            if len(ends):
                starts = np.append(start - place, ends[:-1] + 1)
                blank = np.isin(chunk[np.maximum(starts, 0)], list(b" \t\r\n\v\f")) | (starts < 0)
                yield _spans(file, starts + place, ends + place, before, blank)
                start, before = place + int(ends[-1]) + 1, before + len(ends)
            place += len(data)
        if start < place:  # the last line has no newline
            yield _spans(file, np.array([start]), np.array([place]), before, np.array([True]))


def _spans(file: BinaryIO, starts: np.ndarray, ends: np.ndarray, before: int, maybe: np.ndarray) -> np.ndarray:
    """The lines of a run that are not blank. ``maybe``: those that may be, for they begin with a space: reading these
    alone keeps the scan at the speed of the disk."""
    rows, lengths = np.zeros(len(ends), LINE), ends - starts
    if lengths.max() >> 32:
        raise WeftError(f"{file.name}:{before + 1 + int(lengths.argmax())}: is a line of more than 4 GB; split it")
    rows["start"], rows["bytes"], rows["line"] = starts, lengths, np.arange(before + 1, before + 1 + len(ends))
    keep = lengths > 0
    for i in np.flatnonzero(maybe & keep):
        keep[i] = bool(os.pread(file.fileno(), int(lengths[i]), int(starts[i])).strip())
    return rows[keep]
