"""Where media comes from: a path, a ``data:`` URL, bytes or an open file, and nothing that reaches over a network.

A media reference stands in samples and in chat requests that other people write, so opening one must not be a way to
reach a server, a device or an endless pipe: addresses are refused, only regular files are opened, and sizes are
checked before anything is read.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import stat
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

import numpy as np
import numpy.typing as npt

from weft.conversation.errors import WeftError
from weft.kinds import HEAD
from weft.named import Named

MAX_BYTES = 4 << 30
"""Largest encoded file that is opened: what a WAV header can say."""

MAX_MEMORY_BYTES = 512 << 20
"""Largest encoded item that is held in memory: data URLs, bytes, file objects, and every picture."""

DECODED_BYTES = 550_000_000
"""Most memory that decoding one picture or recording may take, unless a call or `set_decoded_bytes` says otherwise."""

# Why something is not read, in words; and what is read of an open file, which only programs hand over.
UNREAD = Named[Callable[..., Any]]({name: f"weft.media.unread:{name}" for name in ("sound", "file", "handle")})


class MediaError(WeftError):
    """A picture or a sound that cannot be used. The message names it, says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class EncodedFile:
    """An encoded file before decoding: a path to a regular file, or its bytes. ``name`` is what messages call it."""

    name: str
    path: str | None
    data: bytes | None

    def open(self) -> BinaryIO:
        if self.data is not None:
            return io.BytesIO(self.data)
        assert self.path is not None
        try:
            return open(self.path, "rb")
        except OSError as error:
            raise MediaError(f"{self.name}: cannot be opened ({error.strerror}); check its permissions") from None

    def read(self) -> bytes:
        """All bytes, where they fit in ``MAX_MEMORY_BYTES``."""
        if self.data is not None:
            return self.data
        with self.open() as file:
            try:
                data = file.read(MAX_MEMORY_BYTES + 1)
            except OSError as error:
                raise MediaError(f"{self.name}: cannot be read ({error.strerror})") from None
        return _within_memory(data, self.name)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self.data) if self.data is not None else os.stat(self.path or "").st_size

    def head(self, count: int = HEAD) -> bytes:
        if self.data is not None:
            return self.data[:count]
        with self.open() as file:
            return file.read(count)


@dataclass(frozen=True, slots=True)
class Stored:
    """A medium that lies inside of another file, such as a tar: read when it is decoded.

    ``same`` stands for its bytes: media are equal by it. ``facts``, where they were written down: ``(width, height)``
    of a picture as a person sees it, or ``(frames, their rate)`` of a sound; then its header need not be read.
    """

    name: str = field(compare=False)
    read: Callable[[], bytes] = field(compare=False, repr=False)
    same: Hashable
    facts: tuple[int, int] | None = field(default=None, compare=False)


_decoded_bytes = DECODED_BYTES


def set_decoded_bytes(count: int) -> None:
    """Set for this process how much memory decoding one picture or recording may take."""
    global _decoded_bytes
    _decoded_bytes = count


def decoded_bytes(given: int | None) -> int:
    """The limit of a call: what it was given, or that of the process."""
    return _decoded_bytes if given is None else given


def over_limit(what: str, needed: float, limit: int, advice: str) -> MediaError:
    """The error for what needs more memory than it may take."""
    return MediaError(
        f"{what} take {needed / 1e6:,.0f} MB to decode, over the limit of {limit / 1e6:,.0f} MB; {advice}, or raise it "
        "(weft --media-mb N, or max_bytes= in Python)"
    )


def without_extra(name: str, kind: str) -> MediaError:
    """The error for what the extra ``media`` reads, where it is not installed."""
    return MediaError(f'{name}: is {kind}, which is read with the extra "media": pip install "weftlm[media]"')


def encoded_source(source: Any, what: str) -> EncodedFile:
    """A path, ``data:`` URL, bytes or binary file object; ``what`` is "image" or "audio" for messages.

    `Stored` media are read whole. A seekable file object is put back where it stood, so it can be read twice. Raises
    ``MediaError`` for addresses (``http:``, ``file:``, ...), missing files, folders, devices and pipes, empty input,
    and input over the limits.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        name = f"{what} bytes"
        return EncodedFile(name, None, _not_empty(_within_memory(bytes(source), name), name))
    if isinstance(source, Stored):
        return EncodedFile(source.name, None, _not_empty(_within_memory(source.read(), source.name), source.name))
    if isinstance(source, str) and source[:5].lower() == "data:":
        name = f"{what} data URL"
        return EncodedFile(name, None, _not_empty(_decode_data_url(source, what), name))
    if isinstance(source, (str, os.PathLike)):
        return _regular_file(os.fspath(source), what)
    if hasattr(source, "read"):
        name, data = UNREAD["handle"](source, what, MAX_MEMORY_BYTES + 1)
        return EncodedFile(name, None, _not_empty(_within_memory(data, name), name))
    raise MediaError(
        f"{what}: a {type(source).__name__} cannot be read; give a path, a data: URL, bytes, an open binary file, "
        + ("a PIL image or an array" if what == "image" else "an array [samples] or an (array, rate) pair")
    )


def decoded_array(source: Any, what: str) -> npt.NDArray[Any] | None:
    """``source`` as an array where it is one (numpy, torch, anything with ``__array__``), else None."""
    if isinstance(source, np.ndarray):
        return source
    if not hasattr(source, "__array__") or hasattr(source, "read"):
        return None
    try:
        return np.asarray(source)
    except (TypeError, RuntimeError, ValueError) as error:  # a tensor on a GPU, in bfloat16, or with a gradient
        raise MediaError(f"{what} array: cannot be read ({error}); give a float32 array on the CPU") from error


def _regular_file(path: str | bytes, what: str) -> EncodedFile:
    text = os.fsdecode(path)
    name = text if len(text) <= 300 else f"{text[:60]}... ({len(text)} characters)"
    if not text:
        raise MediaError(f"{what}: the path is empty; give the path of a file")
    try:
        status = os.stat(text)
    except (OSError, ValueError) as error:
        raise MediaError(UNREAD["file"](text, name, what, error)) from None
    if stat.S_ISDIR(status.st_mode):
        raise MediaError(f"{name}: is a folder; give one {what} file")
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{name}: is a device or a pipe, not a file; save the {what} to a file first")
    if status.st_size == 0:
        raise MediaError(f"{name}: the file is empty (0 bytes)")
    if status.st_size > MAX_BYTES:
        raise MediaError(f"{name}: {status.st_size:,} bytes is over the limit of {MAX_BYTES:,}; split the file")
    return EncodedFile(name, text, None)


def _decode_data_url(url: str, what: str) -> bytes:
    """RFC 2397: ``data:[type][;base64],data``. Blanks inside base64 and URL-safe letters are taken as meant."""
    name = f"{what} data URL"
    header, comma, body = url.partition(",")
    if not comma:
        raise MediaError(f"{name}: has no comma; it should read 'data:<type>;base64,<data>'")
    if len(body) > MAX_MEMORY_BYTES * 4 // 3 + 4:
        raise MediaError(f"{name}: {len(body):,} characters is over the limit of {MAX_MEMORY_BYTES:,} bytes")
    raw = unquote_to_bytes(body)
    if not header.lower().endswith(";base64"):
        return raw
    raw = b"".join(raw.split()).replace(b"-", b"+").replace(b"_", b"/").rstrip(b"=")
    try:
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaError(f"{name}: is not valid base64 ({error}); encode the file again") from None


def _within_memory(data: bytes, name: str) -> bytes:
    if len(data) > MAX_MEMORY_BYTES:
        raise MediaError(f"{name}: more than the limit of {MAX_MEMORY_BYTES:,} bytes; make it smaller")
    return data


def _not_empty(data: bytes, name: str) -> bytes:
    if not data:
        raise MediaError(f"{name}: is empty (0 bytes)")
    return data
