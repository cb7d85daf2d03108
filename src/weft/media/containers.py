"""What stands around the pixels of a picture: chunks and segments.

Read by hand, for Pillow walks them slowly and keeps what it finds: millions of empty ones take it minutes.
Sources of the layouts: PNG (third edition) and JPEG (ISO 10918-1). Other formats: `more_pictures`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

MOST_BLOCKS = 1 << 16
"""Blocks, chunks, segments, strips or pages that are looked at; no camera, scanner or editor writes half as many."""


class TooMany(ValueError):
    """More than ``MOST_BLOCKS`` of what the text names."""


def png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """``(kind, length)`` of each chunk; ``file`` stands at its data meanwhile, and its position is lost."""
    place = 8
    for _ in range(MOST_BLOCKS):
        file.seek(place)
        header = file.read(8)
        if len(header) < 8:
            return
        length, kind = struct.unpack(">I4s", header)
        yield kind, length
        if kind == b"IEND":
            return
        place += length + 12
    raise TooMany(f"more than {MOST_BLOCKS:,} chunks")


def jpeg_segments(file: BinaryIO) -> Iterator[int]:
    """The marker of each segment up to the first scan; ``file`` stands behind its length meanwhile."""
    file.seek(2)
    mark = b""
    for _ in range(MOST_BLOCKS):
        mark, before = file.read(1), mark
        if not mark:
            return
        if before != b"\xff" or mark in (b"\0", b"\1", b"\xff") or 0xD0 <= mark[0] <= 0xD9:
            continue  # stray and filling bytes, and markers without a length
        length = file.read(2)
        place = file.tell()
        yield mark[0]
        if mark[0] == 0xDA:
            return
        file.seek(place + max(int.from_bytes(length, "big") - 2, 0))
    raise TooMany(f"more than {MOST_BLOCKS:,} segments")
