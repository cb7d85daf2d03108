"""Entries of large JSON files one at a time: only the entry at hand is in memory.

Annotation files are lists of a million objects, or objects that hold such a list under a key; reading one whole costs
ten times its size.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TextIO

from weft.conversation import SampleError

CHUNK = 1 << 20  # characters read at a time
NEAR = 16  # a mistake this close to the end of what was read may only be unfinished


class Noted(dict[str, Any]):
    """An object that notes which of its keys were read, so that those a reader has no use for can be counted."""

    def __init__(self, pairs: Iterable[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)


def unread(value: Any, where: str = "") -> Iterator[str]:
    """The paths (``messages[].weight``) of all keys in a value, at any depth, that hold something and were not read."""
    if isinstance(value, Noted):
        for key, inner in value.items():
            if inner is None:
                continue
            path = f"{where}.{key}" if where else key
            if key in value.read:
                yield from unread(inner, path)
            else:
                yield path
    elif isinstance(value, list):
        for inner in value:
            yield from unread(inner, f"{where}[]")


class Entry(NamedTuple):
    """A value and where it stands: ``line`` in JSON Lines and tables, ``name`` (``[3]``, a key) in other files.

    ``inside``: what holds it and its like (``annotations[]``), for the paths of its keys.
    """

    value: Any
    file: str
    line: int | None = None
    name: str | None = None
    inside: str = ""


def entries(path: Path) -> Iterator[Entry]:
    """The entries of a JSON list or of a JSON Lines file, told apart by how the file begins.

    A line that is not JSON comes as an `Entry` whose value is the `SampleError`: the lines after it can still be read.
    """
    if {".jsonl", ".ndjson"} & {suffix.lower() for suffix in path.suffixes[-2:]} or _is_lines(path):
        return _json_lines(path)
    return items(path)


def items(path: Path, key: str | None = None) -> Iterator[Entry]:
    """The items of the list that is the document, or that the document holds under ``key``."""
    with _Stream(path) as stream:
        first = stream.peek()
        if key is None:
            if first != "[":
                stream.fail("begins with no list: a JSON list or JSON Lines are read here")
            yield from stream.list("")
            return
        if first != "{":
            stream.fail(f'is no object with a list "{key}"')
        for name in stream.names():
            if stream.peek() != "[":
                stream.value()
            elif name == key:
                yield from stream.list(key)
                return
            else:
                for _ in stream.list(name):
                    pass
        stream.fail(f'has no list "{key}"')


def members(path: Path) -> Iterator[Entry]:
    """The members of the object that is the document: an `Entry` each, ``name`` is the key."""
    with _Stream(path) as stream:
        if stream.peek() != "{":
            stream.fail("is no object")
        for name in stream.names():
            yield Entry(stream.value(), str(path), name=name)


def document(path: Path) -> Entry:
    """The whole document, where it is small."""
    with _Stream(path) as stream:
        value = stream.value()
        if stream.peek():
            stream.fail("goes on after its end")
        return Entry(value, str(path))


def begins_with(path: Path) -> str:
    """The first character of a JSON document: ``[`` or ``{``."""
    with _Stream(path) as stream:
        return stream.peek()


def _is_lines(path: Path) -> bool:
    if begins_with(path) != "{":
        return False
    with open(path, encoding="utf-8-sig") as file:
        first = next((line for line in file if line.strip()), "")
    try:
        json.loads(first)
    except ValueError:
        return False
    return True


def lines(path: Path) -> Iterator[Entry]:
    """Lines of a text file that are not blank, without what ends them; the `SampleError` of one that is not UTF-8."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                raw = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
                if raw.isspace() or not raw:
                    continue
                try:
                    value: str | SampleError = raw.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError:
                    value = SampleError("is not UTF-8: save the file as UTF-8")
                yield Entry(value, str(path), line=number)
    except EOFError:
        yield Entry(SampleError("ends too early: the file is cut"), str(path))
    except OSError as e:
        raise _unreadable(path, e) from e


def _json_lines(path: Path) -> Iterator[Entry]:
    for entry in lines(path):
        value = entry.value
        if isinstance(value, str):
            try:
                value = json.loads(value, object_pairs_hook=Noted)
            except json.JSONDecodeError as e:
                value = SampleError(f"invalid JSON at column {e.colno} ({e.msg})")
            except (RecursionError, ValueError) as e:
                value = SampleError(f"invalid JSON: {e}")
        yield entry._replace(value=value)


def _unreadable(path: Path, error: OSError) -> SampleError:
    problem = "is a folder, a file is needed here" if isinstance(error, IsADirectoryError) else error.strerror
    return SampleError(f"cannot be read ({problem or error}): check the path", file=str(path))


class _Stream:
    """A JSON document read from the front, with as much of it in memory as one value takes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.buffer, self.place, self.line, self.ended = "", 0, 1, False
        self.decoder = json.JSONDecoder(object_pairs_hook=Noted)

    def __enter__(self) -> _Stream:
        try:
            self.file: TextIO = open(self.path, encoding="utf-8-sig")
        except OSError as e:
            raise _unreadable(self.path, e) from e
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def fail(self, problem: str) -> NoReturn:
        raise SampleError(problem, file=str(self.path), line=self.line)

    def peek(self) -> str:
        """The next character that is not blank, "" at the end."""
        while True:
            start = self.place
            while self.place < len(self.buffer) and self.buffer[self.place] in " \t\r\n":
                self.place += 1
            self.line += self.buffer.count("\n", start, self.place)
            if self.place < len(self.buffer):
                return self.buffer[self.place]
            if not self._more():
                return ""

    def take(self, characters: str) -> str:
        found = self.peek()
        if not found or found not in characters:
            wanted = " or ".join(repr(c) for c in characters)
            self.fail(f"invalid JSON: expected {wanted}, " + (f"found {found!r}" if found else "the file ends"))
        self.place += 1
        return found

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.buffer, self.place)
            except json.JSONDecodeError as e:
                unfinished = e.msg.startswith("Unterminated string") or e.pos >= len(self.buffer) - NEAR
                if unfinished and self._more():
                    continue
                self.line += self.buffer.count("\n", self.place, e.pos)
                self.fail(f"invalid JSON ({e.msg})")
            except (RecursionError, ValueError) as e:
                self.fail(f"invalid JSON: {e}")
            if end == len(self.buffer) and isinstance(value, int | float) and self._more():
                continue  # a number may go on
            self.line += self.buffer.count("\n", self.place, end)
            self.place = end
            return value

    def list(self, name: str) -> Iterator[Entry]:
        self.take("[")
        if self.peek() == "]":
            self.place += 1
            return
        number = 0
        while True:
            yield Entry(self.value(), str(self.path), name=f"{name}[{number}]", inside=f"{name}[]" if name else "")
            number += 1
            if self.take(",]") == "]":
                return

    def names(self) -> Iterator[str]:
        """The keys of an object; the caller takes the value of each before the next."""
        self.take("{")
        if self.peek() == "}":
            self.place += 1
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                self.fail("invalid JSON: a key is a string")
            self.take(":")
            yield key
            if self.take(",}") == "}":
                return

    def _more(self) -> bool:
        """Reads on, at least as much again as is waiting; False at the end of the file."""
        if self.ended:
            return False
        waiting = self.buffer[self.place :]
        try:
            chunk = self.file.read(max(CHUNK, len(waiting)))
        except UnicodeDecodeError:
            self.fail("is not UTF-8: save the file as UTF-8")
        except OSError as e:
            raise _unreadable(self.path, e) from e
        self.buffer, self.place, self.ended = waiting + chunk, 0, not chunk
        return bool(chunk)
