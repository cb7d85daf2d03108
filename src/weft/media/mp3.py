"""An MP3's true length. The format has none: a stream of frames, and perhaps a first frame that claims a count.

libsndfile reads no further than that claim, or without one than a guess from the first frame's bitrate. So a stream of
varying bitrate without a claim, or two files joined byte by byte, would lose most of its sound without a word. Here
the frames are counted, and where claim or guess is too small a right claim is put before the stream.

Source of the layout: ISO 11172-3 (frame header), and the Xing, LAME and VBRI tags as libmpg123 reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

from weft.media.more_headers import TAGS, id3_size
from weft.media.sound import Memory, Stream, open_stream
from weft.media.source import EncodedFile, MediaError

LAME_DELAY, DECODER_DELAY = 576, 529
"""Frames before the sound: what LAME puts there by default, and what decoding adds (dropped where a first frame claims
the length)."""

# kbit/s by bitrate index for layer III, and Hz by rate index, of MPEG 1 and of MPEG 2 and 2.5.
_KBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_SAME = 0xFFFE0C00
"""Header bits that all frames of a stream share: sync, version, layer and sample rate."""


_SYNC = re.compile(
    b"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]["
    + b"".join(re.escape(bytes([b])) for b in range(256) if b >> 4 not in (0, 15) and b >> 2 & 3 != 3)
    + b"]"
)
"""The first three bytes of what may be a frame: layer III, a bitrate, a sample rate."""

_TRIES = 1 << 16
"""Places that look like a frame and are none. A file of random bytes has one in 16,000 bytes."""


@dataclass(frozen=True, slots=True)
class _Header:
    bits: int

    @property
    def mpeg1(self) -> bool:
        return self.bits >> 19 & 3 == 3

    @property
    def rate(self) -> int:
        return _RATES[self.bits >> 19 & 3][self.bits >> 10 & 3]

    @property
    def samples(self) -> int:
        return 1152 if self.mpeg1 else 576

    @property
    def size(self) -> int:
        kbits = _KBITS[self.mpeg1][self.bits >> 12 & 15]
        return self.samples // 8 * kbits * 1000 // self.rate + (self.bits >> 9 & 1)

    @property
    def tag_offset(self) -> int:
        """Where a Xing or Info tag stands: behind the header and the side information."""
        mono = self.bits >> 6 & 3 == 3
        return 4 + ((17 if mono else 32) if self.mpeg1 else (9 if mono else 17))


def _header(data: bytes, at: int) -> _Header | None:
    """The layer III frame header at ``at``, if there is a valid one. Free bitrates are not known to it."""
    bits = int.from_bytes(data[at : at + 4], "big")
    valid = (
        at + 4 <= len(data)
        and bits >> 21 == 0x7FF
        and bits >> 19 & 3 != 1
        and bits >> 17 & 3 == 1
        and bits >> 12 & 15 not in (0, 15)
        and bits >> 10 & 3 != 3
    )
    return _Header(bits) if valid else None


def _next_frame(data: bytes, at: int, tries: Iterator[int], name: str) -> tuple[int, _Header] | None:
    """The first frame from ``at`` on that another one of its kind follows, or the end of the data."""
    for match in _SYNC.finditer(data, at):
        if next(tries, None) is None:
            raise MediaError(f"{name}: is no MP3, though much in it looks like one; save or download it again")
        at = match.start()
        if (header := _header(data, at)) is not None:
            end = at + header.size
            follower = int.from_bytes(data[end : end + 4], "big")
            if (end + 4 <= len(data) and follower & _SAME == header.bits & _SAME) or end == len(data):
                return at, header
    return None


@dataclass(frozen=True, slots=True)
class Mp3:
    """An MP3 whose frames were counted. ``samples`` a channel are in them, the encoder's padding included."""

    data: bytes
    samples: int
    claimed: bool
    """Whether its first frame claims the count. If not, libsndfile guesses, often rightly."""
    delayed: bool
    """Whether that frame also says how much the encoder put before the sound: the decoder then drops it."""
    start: int
    header: _Header

    def with_claim(self) -> bytes:
        """The same stream behind a first frame that claims the count; the decoder then also drops its own delay of
        529 samples, so this is for streams whose length is guessed wrong."""
        return _info_frame(self.header, self.samples // self.header.samples) + self.data[self.start :]


def open_sound(encoded: EncodedFile, raw: BinaryIO, kind: str, stack: ExitStack) -> Stream:
    """The sound of an MP3, by libsndfile, which is told how long it is."""
    mp3, name, head = count_frames(encoded.read(), encoded.name), encoded.name, encoded.head()
    file = open_stream(Memory(mp3.data), name, head, stack)
    claimed = mp3.claimed
    if not claimed and file.frames < mp3.samples:
        file, claimed = open_stream(Memory(mp3.with_claim()), name, head, stack), True
    file.counted = min(file.frames, mp3.samples)
    file.least = file.counted - 1152  # a first frame that leans on one before it is silent
    file.held = 3 * len(mp3.data)  # as read, with its claim corrected, and behind one
    file.late = 0 if mp3.delayed else LAME_DELAY + (0 if claimed else DECODER_DELAY)
    return file


def count_frames(data: bytes, name: str) -> Mp3:
    """Walk the frames. Where a tag claims fewer than there are, ``Mp3.data`` has the tag corrected.

    Raises ``MediaError`` where more than one of the claimed frames is missing, where the sample rate changes, or where
    there is no frame.
    """
    tries = iter(range(_TRIES))
    first = _next_frame(data, _after_id3(data, 0), tries, name)
    if first is None:
        raise MediaError(f"{name}: is an MP3 without a single whole frame; save or download it again")
    start, header = first
    claim, tag, tag_at = _claim(data, start, header)

    sound = start + (header.size if tag else 0)
    frames, at, bits = 0, sound, header.bits
    sizes: dict[int, int] = {}  # of the few kinds of frames that a file has; there may be a million frames
    while True:
        here = int.from_bytes(data[at : at + 4], "big")
        if (size := sizes.get(here >> 9)) is None:
            known = _header(data, at)
            size = sizes[here >> 9] = known.size if known else 0
        if not size or here & _SAME != bits & _SAME:
            found = _next_frame(data, _after_id3(data, at), tries, name)
            if found is None:
                break
            at, there = found
            if there.rate != header.rate:
                raise MediaError(
                    f"{name}: changes its sample rate from {header.rate} to {there.rate} Hz at byte {at:,}; "
                    "save its recordings as files of their own"
                )
            here, size = there.bits, there.size
        if at + size > len(data):
            break  # a last frame that is not whole
        frames, at, bits = frames + 1, at + size, here
    if claim is not None and frames < claim - 1:
        raise MediaError(
            f"{name}: is cut short, its header promises {claim:,} MP3 frames and {frames:,} are there; "
            "save or download it again"
        )
    if claim is not None and frames > claim and tag != b"VBRI":
        patched = bytearray(data)  # the tag also says how much the encoder put before the sound: keep it
        patched[tag_at + 8 : tag_at + 12] = frames.to_bytes(4, "big")
        if data[tag_at + 7] & 2:
            patched[tag_at + 12 : tag_at + 16] = (at - start).to_bytes(4, "big")
        data, claim = bytes(patched), frames
    delayed = tag in (b"Xing", b"Info") and _says_delay(data, tag_at)
    return Mp3(data, frames * header.samples, claim is not None and frames <= claim, delayed, sound, header)


def _claim(data: bytes, start: int, header: _Header) -> tuple[int | None, bytes, int]:
    """``(frames, tag, its offset)``: a Xing, Info or VBRI tag in the first frame; ``(None, b"", 0)`` without one."""
    at = start + header.tag_offset
    tag = data[at : at + 4]
    if tag in (b"Xing", b"Info") and at + 16 <= len(data):
        return (int.from_bytes(data[at + 8 : at + 12], "big") if data[at + 7] & 1 else None), tag, at
    at = start + 36
    if data[at : at + 4] == b"VBRI" and at + 18 <= len(data):
        return int.from_bytes(data[at + 14 : at + 18], "big"), b"VBRI", at
    return None, b"", 0


def _says_delay(data: bytes, tag_at: int) -> bool:
    """Whether LAME's part of the tag, behind the fields that the flags name, gives delay and padding (12 bits each)."""
    flags = data[tag_at + 7]
    at = tag_at + 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1) + 21
    return any(data[at : at + 3])


def _info_frame(like: _Header, frames: int) -> bytes:
    """A silent frame of the stream's kind with an Info tag that says ``frames``."""
    for index in range(1, 15):
        # No checksum, no padding, and the lowest bitrate whose frame has room for the tag.
        header = _Header(like.bits & ~0xF200 | 0x10000 | index << 12)
        if header.size >= header.tag_offset + 12:
            break
    body = b"\0" * (header.tag_offset - 4) + b"Info" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
    return (header.bits.to_bytes(4, "big") + body).ljust(header.size, b"\0")


def _after_id3(data: bytes, at: int) -> int:
    for _ in range(TAGS):
        if data[at : at + 3] != b"ID3" or at + 10 > len(data):
            break
        at += id3_size(data[at : at + 10])
    return at
