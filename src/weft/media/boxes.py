"""What MP4 (ISO 14496-12) and Matroska (RFC 9559) say about their own length, where FFmpeg does not tell."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

from weft.media.source import MediaError

_AGAIN = "save or download it again"

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
