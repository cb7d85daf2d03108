"""What stands around the pixels of a picture: chunks, blocks, directories.

Read by hand, for Pillow walks them slowly and keeps what it finds: millions of empty ones take it minutes.
Sources of the layouts: PNG (third edition), GIF89a, JPEG (ISO 10918-1), TIFF 6.0 and BigTIFF, and WebP's container.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

MOST_BLOCKS = 1 << 16
"""Blocks, chunks, segments, strips or pages that are looked at; no camera, scanner or editor writes half as many."""


class TooMany(ValueError):
    """More than ``MOST_BLOCKS`` of what the text names."""


def check_blocks(file: BinaryIO, head: bytes) -> None:
    """Raise ``TooMany`` for a JPEG or TIFF whose header Pillow would walk for long. ``file`` is put to its start."""
    if head[:3] == b"\xff\xd8\xff":
        for _ in jpeg_segments(file):
            pass
    elif head[:2] in (b"II", b"MM"):
        order, big = ("<" if head[:2] == b"II" else ">"), 43 in head[2:4]
        file.seek(struct.unpack_from(order + "Q", head, 8)[0] if big else struct.unpack_from(order + "I", head, 4)[0])
        (entries,) = struct.unpack(order + "Q" if big else order + "H", file.read(8 if big else 2))
        for _ in range(min(entries, MOST_BLOCKS)):
            entry = file.read(20 if big else 12)
            tag, _, count = struct.unpack_from(order + ("HHQ" if big else "HHI"), entry)
            if tag in (273, 324) and count > MOST_BLOCKS:  # StripOffsets, TileOffsets
                raise TooMany(f"{count:,} strips")
    file.seek(0)


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


def webp_size(head: bytes) -> tuple[int, int]:
    """Width and height of a WebP from its first 30 bytes: libwebp makes room for the picture when it opens one."""
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def gif_size(file: BinaryIO, head: bytes) -> tuple[int, int]:
    """Width and height of a GIF: of its screen, or of a first image that goes beyond. Pillow makes room on opening.

    Raises ``TooMany`` where too many blocks come before that image. ``file`` is put to its start.
    """
    width, height = struct.unpack_from("<HH", head, 6)
    file.seek(13 + colour_bytes(head[10]))
    left = MOST_BLOCKS
    while (mark := file.read(1)) == b"!":
        file.seek(1, 1)
        while (length := file.read(1)) not in (b"\0", b""):
            file.seek(length[0], 1)
            left -= 1
            if left <= 0:
                break
        left -= 1
        if left <= 0:
            raise TooMany(f"more than {MOST_BLOCKS:,} blocks")
    if mark == b",":
        x, y, across, down = struct.unpack("<HHHH", file.read(8))
        width, height = max(width, x + across), max(height, y + down)
    file.seek(0)
    return width, height


def jxl_size(file: BinaryIO) -> tuple[int, int]:
    """Width and height of a JPEG XL (ISO 18181-1, SizeHeader); ``ValueError`` where there is none. Its reader decodes
    all of it on opening."""
    place, skip = 0, 0
    for _ in range(MOST_BLOCKS):
        file.seek(place)
        head = file.read(16)
        if head[:2] == b"\xff\x0a" or head[4:8] in (b"jxlc", b"jxlp"):  # bare, or in a box; of a part its number first
            skip = 0 if head[:2] == b"\xff\x0a" else 12 if head[4:8] == b"jxlp" else 8
            break
        length = int.from_bytes(head[8:] if head[:4] == b"\0\0\0\1" else head[:4], "big")
        if length < 8:
            raise ValueError("no codestream")
        place += length
    file.seek(place + skip + 2)
    bits = int.from_bytes(file.read(16), "little")
    file.seek(0)

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & (1 << count) - 1, bits >> count
        return value

    def side() -> int:
        return 8 * (take(5) + 1) if small else 1 + take((9, 13, 18, 30)[take(2)])

    small, height = take(1), 0
    height = side()
    over, under = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[take(3)]
    return height * over // under or side(), height


def ico_png(file: BinaryIO) -> bytes | None:
    """The largest picture of an ICO where that is a PNG; None where it is a bitmap, which has at most 256x256 pixels.

    Raises ``ValueError`` where a bitmap has another size than the directory says: Pillow makes room for it. ``file`` is
    put to its start."""
    file.seek(4)
    best: tuple[int, int, int, int, bool] = (0, 0, 0, 0, False)
    for i in range(int.from_bytes(file.read(2), "little")):
        file.seek(6 + 16 * i)
        across, down, bits, length, place = struct.unpack("<BB4xHII", file.read(16))
        file.seek(place)
        head = file.read(24)
        png = head.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", head[16:]) if png else struct.unpack("<ii", head[4:12])
        if not png and (width, height // 2) != (across or 256, down or 256):
            raise ValueError("a bitmap of another size")
        best = max(best, (width * height // (1 if png else 2), bits, place, length, png))
    file.seek(best[2])
    data = file.read(best[3]) if best[4] else None
    file.seek(0)
    return data


def colour_bytes(flags: int) -> int:
    """Bytes of the colour table that the flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
