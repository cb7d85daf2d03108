"""What a file is by its first bytes, in words for a message, and what to do with one of a kind that is not read."""

from __future__ import annotations

import re

from weft.named import beside

HEAD = 512
"""Bytes that are looked at."""

_TABLE = beside(__file__)
_SIGNATURES = [(re.compile(begins.encode("latin-1"), re.DOTALL), *said) for begins, *said in _TABLE["signatures"]]


def sniff(head: bytes) -> str | None:
    """What the first ``HEAD`` bytes of a file say it is; None where they say nothing."""
    return next((words for begins, words, _ in _SIGNATURES if begins.match(head)), None)


def advice(kind: str | None) -> str:
    """What to do with a file of this kind; "" where the one who asked knows better."""
    return next((do for _, words, do in _SIGNATURES if words == kind), "")
