"""What a WAV says about its own length, where the decoder would not notice that it gives less.

libsndfile shortens it silently to what the file holds. Other formats: `more_headers`.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from weft.media.source import MediaError

UNKNOWN_SIZE = 0x7FFF0000
"""Programs that write WAV to a pipe cannot know the size and put 0x7FFFF000, 0xFFFFFFFF or the like."""


def check_wav_promise(file: BinaryIO, name: str) -> None:
    """Raise ``MediaError`` for a WAV or RF64 whose data chunk promises more samples than the file holds."""
    file.seek(0)
    head = file.read(12)
    if head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
        return
    size = file.seek(0, os.SEEK_END)
    place, block, data_length = 12, 1, None
    for _ in range(1000):  # chunks; a file of a million empty ones is no recording
        file.seek(place)
        header = file.read(8)
        if len(header) < 8:
            return
        length = int.from_bytes(header[4:], "little")
        if header[:4] == b"ds64":
            data_length = int.from_bytes(file.read(16)[8:], "little")
        elif header[:4] == b"fmt ":
            block = max(1, int.from_bytes(file.read(14)[12:14], "little"))
        elif header[:4] == b"data":
            promised = data_length if head[:4] == b"RF64" and data_length is not None else length
            held = max(0, size - place - 8)
            if held // block < promised // block and (promised < UNKNOWN_SIZE or promised == data_length):
                raise MediaError(
                    f"{name}: is cut short, its header promises {promised // block:,} blocks of {block} bytes and "
                    f"{held // block:,} are there; save or download it again"
                )
            return
        place += 8 + length + length % 2


def looks_like_mp3(head: bytes) -> bool:
    """An ID3 tag, or what may be a frame's sync. libsndfile decides; this only says that it may come to it."""
    return head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 6 == 2)
