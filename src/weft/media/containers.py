"""What stands around the pixels of a picture: chunks, blocks, directories; read by hand, for Pillow walks them slowly.

Sources of the layouts: PNG (third edition), GIF89a, TIFF 6.0 and BigTIFF, the RIFF container of WebP.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

MOST_PAGES = 1 << 16
"""Where the count of a TIFF's pages stops."""


def png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """``(kind, length)`` of each chunk; ``file`` stands at its data meanwhile, and its position is lost."""
    place = 8
    while True:
        file.seek(place)
        header = file.read(8)
        if len(header) < 8:
            return
        length, kind = struct.unpack(">I4s", header)
        yield kind, length
        if kind == b"IEND":
            return
        place += length + 12


def count_pictures(data: bytes) -> int:
    """Pages of a TIFF, frames of a GIF or WebP; 1 for other formats, and for what is damaged before a second."""
    try:
        if data[:4] == b"GIF8":
            return _gif_frames(data)
        if data[8:12] == b"WEBP":
            return _webp_frames(data)
        if data[:2] in (b"II", b"MM"):
            return _tiff_pages(data)
    except (IndexError, struct.error):  # it ends early
        pass
    return 1


def _gif_frames(data: bytes) -> int:
    at, frames, end = 13 + _colours(data[10]), 0, len(data)
    while at < end:
        if data[at] == 0x2C:  # an image: place, size, colours, and a byte before its blocks
            frames, at = frames + 1, at + 11 + _colours(data[at + 9])
        elif data[at] == 0x21:  # an extension
            at += 2
        else:
            break
        while at < end and (length := data[at]):
            at += length + 1
        at += 1
    return max(1, frames)


def _colours(flags: int) -> int:
    """Bytes of the colour table that the flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _webp_frames(data: bytes) -> int:
    at, frames = 12, 0
    while at + 8 <= len(data):
        frames += data[at : at + 4] == b"ANMF"
        (length,) = struct.unpack_from("<I", data, at + 4)
        at += 8 + length + length % 2
    return max(1, frames)


def _tiff_pages(data: bytes) -> int:
    """Directories in the chain, without those that are a smaller version of another (NewSubfileType)."""
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    count_kind, entry, place_kind, value_at = ("Q", 20, "Q", 12) if big else ("H", 12, "I", 8)
    (place,) = struct.unpack_from(order + place_kind, data, 8 if big else 4)
    seen: set[int] = set()
    pages = 0
    while place and place not in seen and len(seen) < MOST_PAGES:
        seen.add(place)
        (entries,) = struct.unpack_from(order + count_kind, data, place)
        place += struct.calcsize(count_kind)
        (tag,) = struct.unpack_from(order + "H", data, place) if entries else (0,)
        smaller = tag == 254 and struct.unpack_from(order + "I", data, place + value_at)[0] & 1
        pages += not smaller
        (place,) = struct.unpack_from(order + place_kind, data, place + entries * entry)
    return max(1, pages)
