"""What stands in the headers of sound files other than WAV and FLAC, and before a FLAC.

libsndfile shortens an OGG silently to what the file holds, stops where a second one begins in the same file, and notes
in its account of others that something is missing.
"""

from __future__ import annotations

import os
import re
from typing import BinaryIO

from weft.media.headers import UNKNOWN_SIZE
from weft.media.source import MediaError

TAGS = 100  # ID3 tags one after the other; a file of a million empty ones is no recording


def check_one_ogg(file: BinaryIO, name: str) -> None:
    """Raise ``MediaError`` for an OGG that ends within a page, and for one in which another one follows, as internet
    radio makes: one would be heard.

    Walks the page headers: a stream that begins (flag 2) after one has ended (flag 4).
    """
    place, ended, size = 0, False, file.seek(0, os.SEEK_END)
    while True:
        file.seek(place)
        page = file.read(27 + 255)
        if len(page) < 27 or page[:4] != b"OggS":
            return
        if ended and page[5] & 2:
            raise MediaError(f"{name}: holds several recordings one after the other; join them (ffmpeg -i IN OUT.flac)")
        ended = ended or bool(page[5] & 4)
        place += 27 + page[26] + sum(page[27 : 27 + page[26]])
        if place > size:
            raise MediaError(
                f"{name}: is cut short, its last page lacks {place - size:,} bytes; save or download it again"
            )


def check_sound_promise(format: str, said: str, head: bytes, frames: int, name: str) -> None:
    """Raise ``MediaError`` for an AIFF, AU, W64 or SPHERE that holds less than its header promises a channel.

    ``said``: libsndfile's account of the header, where it notes that and goes on with the ``frames`` that are there."""
    sizes = re.findall(r"(\d+) \(should be (\d+)\)", said) if format in ("AIFF", "AU", "W64") else []
    promised = re.search(rb"\nsample_count -i (\d+)", head) if format == "NIST" else None
    short = any(int(there) + 1 < int(size) < UNKNOWN_SIZE for size, there in sizes)
    if short or (promised and int(promised[1]) > frames):
        raise MediaError(
            f"{name}: is cut short, its header promises more sound than is there; save or download it again"
        )


def flac_behind_id3(file: BinaryIO) -> int:
    """The offset of a FLAC that stands behind ID3 tags, as some taggers write it; 0 where there is none."""
    at = 0
    for _ in range(TAGS):
        file.seek(at)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            return at if head[:4] == b"fLaC" else 0
        at += id3_size(head)
    return 0


def id3_size(head: bytes) -> int:
    """Bytes in all of the ID3 tag that begins with these ten; the size it states leaves those ten out."""
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
