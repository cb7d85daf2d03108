"""Why a sound or a file is not read, in words; and what is read of a file that a program has opened."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from weft.kinds import advice, sniff
from weft.media.source import MediaError

SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):")  # two letters at least: ``C:\\pictures`` is a path
WAV_TAGS = {1, 2, 3, 6, 7, 0x11, 0x31, 0x55, 0xFFFE}  # codecs of a WAV that libsndfile knows; else "malformed"
KNOWN = "give WAV, FLAC, MP3, OGG, AIFF or, with weftlm[media], M4A, MP4 or WebM"


def sound(head: bytes, error: Exception) -> str:
    """What a file is that libsndfile does not open."""
    kind = sniff(head)
    if kind is None:
        return f"is not a sound; {KNOWN}"
    at = head.find(b"fmt ") + 8 if head[8:12] == b"WAVE" else 0
    codec = getattr(error, "code", 0) == 4  # "supported format but unsupported encoding"
    if codec or 8 <= at < len(head) - 2 and int.from_bytes(head[at : at + 2], "little") not in WAV_TAGS:
        return f"is {kind} in a codec that is not read; save it again as WAV or FLAC (ffmpeg -i IN OUT.flac)"
    if kind.endswith(" sound") and not advice(kind):
        return f"is {kind} that is damaged or cut short; save or download it again"
    return f"is {kind}, which is not read; {advice(kind) or KNOWN}"


def file(text: str, name: str, what: str, error: OSError | ValueError) -> str:
    """What is wrong with a path that cannot be looked up; ``name`` is what messages call it."""
    scheme = SCHEME.match(text)
    if scheme and scheme[1].lower() == "file":
        return f"{name}: file: addresses are not opened; give the plain path"
    if scheme and text[scheme.end() :].startswith("//"):
        return f"{name}: weft opens no addresses; download the file and give its path or a data: URL"
    if len(text) > 300:
        return f"{what}: {name} is not the path of a file; base64 data needs 'data:<type>;base64,' before it"
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"{name!r}: cannot be opened ({getattr(error, 'strerror', None) or error})"
    return f"{name}: no such {what} file" + ("" if os.path.isabs(text) else f" (looked in {Path.cwd()})")


def handle(source: Any, what: str, most: int) -> tuple[str, bytes]:
    """What messages call an open file, and at most so many bytes of it; it is put back where it stood."""
    name = f"{what} file {source.name}" if isinstance(getattr(source, "name", None), str) else f"{what} file object"
    start = None
    try:
        if hasattr(source, "seekable") and source.seekable():
            start = source.tell()
        data = source.read(most)
        if start is not None:
            source.seek(start)
    except (OSError, ValueError, TypeError) as error:
        raise MediaError(f"{name}: cannot be read ({error}); give a file that is open in binary mode") from None
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise MediaError(f"{name}: gives {type(data).__name__}, not bytes; open it in binary mode ('rb')")
    return name, bytes(data)
