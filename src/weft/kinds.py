"""What a file is by its first bytes, in words for a message, and what to do with one of a kind that is not read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

HEAD = 512
"""Bytes that are looked at."""

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
_SIGNATURES: list[tuple[int, bytes, str, str]] = [
    (offset, magic.encode("latin-1"), words, do) for offset, magic, words, do in _TABLE["signatures"]
]


def sniff(head: bytes) -> str | None:
    """What the first ``HEAD`` bytes of a file say it is; None where they say nothing."""
    if head[4:8] == b"ftyp" and b"avif" in head[8 : 4 + head[3]]:  # often the second brand, behind mif1
        return "an AVIF picture"
    if head[:5] == b"<?xml" and b"<svg" in head:
        return "an SVG drawing"
    for offset, magic, words, _ in _SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return words
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:  # a sync of 12 bits, and layer 0
        return "an AAC sound"
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:  # packets of 188 bytes
        return "an MPEG transport stream"
    if len(head) > 99 and all(head[at] >> 4 == 13 for at in (0, 33, 66, 99)):  # frames of 33 bytes
        return "a GSM sound without a header"
    # A TGA has no signature: a map of colours or none, a kind, bits a pixel, and eight empty bytes or a place.
    tga = len(head) > 18 and head[1] < 2 and head[2] in (1, 2, 3, 9, 10, 11) and head[16] in (1, 8, 16, 24, 32)
    return "a TGA picture" if tga and head[12:14] != b"\0\0" != head[14:16] and not head[17] & 0xC0 else None


def advice(kind: str | None) -> str:
    """What to do with a file of this kind; "" where the one who asked knows better."""
    return next((do for _, _, words, do in _SIGNATURES if words == kind), "")


def layout(entry: Any) -> str | None:
    """The layout of `weft data convert` that a value of JSON seems to be an entry of."""
    entry = entry[0] if isinstance(entry, list) and entry else entry
    keys = entry.keys() if isinstance(entry, dict) else set()
    return next((name for wanted, name in _TABLE["layouts"] if keys >= set(wanted)), None)
