"""What files say about their own length, where the decoder would not notice that it gives less.

libsndfile shortens a WAV or OGG silently to what the file holds, and stops where a second OGG begins in the same file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import BinaryIO

from weft.media.source import MediaError

_AGAIN = "save or download it again"
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
    short = any(int(there) + 1 < int(size) < _UNKNOWN_SIZE for size, there in sizes)
    if short or (promised and int(promised[1]) > frames):
        raise MediaError(f"{name}: is cut short, its header promises more sound than is there; {_AGAIN}")


# ------------------------------------------------------------------------ MP4 (ISO 14496-12), Matroska (RFC 9559)

MOST_SAMPLES = 1 << 22
"""Samples (packets) of an MP4, each as often as its edit list shows it: 25 hours of AAC. FFmpeg keeps 24 bytes of each,
and a damaged header may claim billions."""

_MOST_BOXES = 1 << 19
_PARENTS = {b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"moof", b"traf"}


@dataclass(frozen=True, slots=True)
class Mp4Facts:
    """``clock``: units a second of edit lists. ``cuts``: parts that the longest edit list shows one after the other."""

    clock: int
    cuts: int
    index_bytes: int


def mp4_facts(file: BinaryIO, name: str) -> Mp4Facts:
    """What FFmpeg does not tell of an MP4. Raises ``MediaError`` where it ends within a box, or says that it holds too
    many samples."""
    clock, cuts, total, left = 1, 0, 0, _MOST_BOXES
    track: dict[bytes, int] = {}
    place, size = 0, file.seek(0, os.SEEK_END)
    while place + 8 <= size and left:
        file.seek(place)
        head = file.read(16)
        length, kind, body = int.from_bytes(head[:4], "big"), head[4:8], place + 8
        if length == 1:
            length, body = int.from_bytes(head[8:], "big"), place + 16
        length = max(length, 8) if length else size - place
        if place + length > size and kind.isalnum():
            raise MediaError(f"{name}: is cut short, {place + length - size:,} bytes are missing; {_AGAIN}")
        file.seek(body)
        fields = file.read(28).ljust(28, b"\0")
        if kind == b"mvhd":
            clock = max(1, int.from_bytes(fields[20:24] if fields[0] else fields[12:16], "big"))
        elif kind == b"trak":
            total, track = total + _samples(track), {}
        elif kind == b"elst":
            wide, count = 20 if fields[0] else 12, int.from_bytes(fields[4:8], "big")
            file.seek(body + 8)
            edits = file.read(wide * min(count, 1 << 12))
            starts = [edits[at + wide // 2 - 2 : at + wide - 4] for at in range(0, len(edits), wide)]
            track[kind] = count - sum(not start.strip(b"\xff") for start in starts)  # without those that show nothing
            cuts = max(cuts, track[kind])
        elif kind == b"hdlr":
            track[kind] = fields[8:12] == b"soun"
        elif kind == b"stts":
            track[kind] = fields[4:8] == fields[12:16] == b"\0\0\0\1"
        elif kind in (b"stsz", b"stz2"):
            track[b"stsz"] = int.from_bytes(fields[8:12], "big")
        elif kind == b"trun":
            total += int.from_bytes(fields[4:8], "big")
        place, left = body if kind in _PARENTS else place + length, left - 1
    total += _samples(track)
    if total > MOST_SAMPLES or not left:
        raise MediaError(f"{name}: is an MP4 of more than {MOST_SAMPLES:,} packets; split it")
    return Mp4Facts(clock, cuts, 24 * total)


def _samples(track: dict[bytes, int]) -> int:
    """Entries of FFmpeg's list for a track. It makes none of PCM, whose samples last one unit each."""
    pcm = track.get(b"hdlr") and track.get(b"stts")
    return 0 if pcm else track.get(b"stsz", 0) * max(1, track.get(b"elst", 0))


def check_matroska_promise(file: BinaryIO, name: str) -> None:
    """Raise ``MediaError`` for a Matroska or WebM that is shorter than its segment; a live recording does not say."""
    file.seek(0)
    head = file.read(1 << 12)
    at = head.find(b"\x18\x53\x80\x67") + 4
    width = 9 - head[at].bit_length() if 4 <= at < len(head) else 9
    if width < 9:
        unknown = (1 << 7 * width) - 1
        length = int.from_bytes(head[at : at + width], "big") & unknown
        missing = at + width + length - file.seek(0, os.SEEK_END)
        if length != unknown and missing > 0:
            raise MediaError(f"{name}: is cut short, {missing:,} bytes are missing; {_AGAIN}")
