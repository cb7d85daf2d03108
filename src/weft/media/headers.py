"""What sound files promise about their own length, where the decoder would not notice that less is there.

libsndfile shortens a WAV silently to what the file holds, plays an MP3 to its last whole frame, and stops where a
second recording begins in the same file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

from weft.media.source import MediaError

_UNKNOWN_SIZE = 0x7FFF0000
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
            if held // block < promised // block and (promised < _UNKNOWN_SIZE or promised == data_length):
                raise MediaError(
                    f"{name}: is cut short, its header promises {promised // block:,} blocks of {block} bytes and "
                    f"{held // block:,} are there; save or download it again"
                )
            return
        place += 8 + length + length % 2


def check_one_recording(file: BinaryIO, name: str) -> None:
    """Raise ``MediaError`` for an OGG or MP3 in which another one follows: only the first would be heard.

    Such files come from internet radio and from joining files byte by byte.
    """
    file.seek(0)
    if file.read(4) == b"OggS":
        follows = _ogg_follows(file)
    else:
        mp3 = _mp3_info(file)
        follows = mp3 is not None and mp3.end is not None and _is_mp3_start(file, mp3.end)
    if follows:
        raise MediaError(f"{name}: holds several recordings one after the other; join them (ffmpeg -i IN OUT.flac)")


def _ogg_follows(file: BinaryIO) -> bool:
    """Walk the page headers: does a stream begin (flag 2) after one has ended (flag 4)?"""
    place, ended = 0, False
    while True:
        file.seek(place)
        page = file.read(27)
        if len(page) < 27 or page[:4] != b"OggS":
            return False
        if ended and page[5] & 2:
            return True
        ended = ended or bool(page[5] & 4)
        place += 27 + page[26] + sum(file.read(page[26]))


def mp3_count(file: BinaryIO) -> int | None:
    """Samples a channel that an MP3's Xing or Info frame promises, with the encoder's padding; None without one."""
    info = _mp3_info(file)
    return None if info is None else info.samples


@dataclass(frozen=True, slots=True)
class _Mp3Info:
    samples: int | None
    end: int | None
    """Offset behind the last frame."""


def _mp3_info(file: BinaryIO) -> _Mp3Info | None:
    """The Xing or Info tag of an MP3's first frame.

    Layout: the frame header (version, channel mode), side information that is all zero, ``Xing`` or ``Info``, flags,
    then the number of frames and of bytes where the flags say so.
    """
    start = _after_id3(file, 0)
    file.seek(start)
    frame = file.read(2048)
    sync = next((i for i in range(len(frame) - 4) if frame[i] == 0xFF and frame[i + 1] & 0xE6 == 0xE2), None)
    if sync is None:
        return None
    frame, start = frame[sync:], start + sync
    mpeg1, mono = frame[1] & 0x18 == 0x18, frame[3] & 0xC0 == 0xC0
    side = {(True, True): 17, (True, False): 32, (False, True): 9, (False, False): 17}[mpeg1, mono]
    tag = frame[4 + side : 4 + side + 16]
    if tag[:4] not in (b"Xing", b"Info") or len(tag) < 16:
        return None
    has_frames, has_bytes = tag[7] & 1, tag[7] & 2
    samples = int.from_bytes(tag[8:12], "big") * (1152 if mpeg1 else 576) if has_frames else None
    size = tag[12:16] if has_frames else tag[8:12]
    return _Mp3Info(samples, start + int.from_bytes(size, "big") if has_bytes else None)


def _after_id3(file: BinaryIO, place: int) -> int:
    file.seek(place)
    head = file.read(10)
    if head[:3] != b"ID3" or len(head) < 10:
        return place
    return place + 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))


def _is_mp3_start(file: BinaryIO, place: int) -> bool:
    """Whether a frame, and not a closing tag, stands at ``place``; an ID3 tag may be before it."""
    file.seek(_after_id3(file, place))
    frame = file.read(4)
    return len(frame) == 4 and frame[0] == 0xFF and frame[1] & 0xE6 == 0xE2
