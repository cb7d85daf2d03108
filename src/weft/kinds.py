"""What a file is by its first bytes, in words for a message, and what to do with one of a kind that is not read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

HEAD = 512
"""Bytes that are looked at."""

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
_SIGNATURES = [(re.compile(begins.encode("latin-1"), re.DOTALL), *said) for begins, *said in _TABLE["signatures"]]


def sniff(head: bytes) -> str | None:
    """What the first ``HEAD`` bytes of a file say it is; None where they say nothing."""
    return next((words for begins, words, _ in _SIGNATURES if begins.match(head)), None)


def advice(kind: str | None) -> str:
    """What to do with a file of this kind; "" where the one who asked knows better."""
    return next((do for _, words, do in _SIGNATURES if words == kind), "")


def layout(entry: Any) -> str | None:
    """The layout of `weft data convert` that a value of JSON seems to be an entry of."""
    entry = entry[0] if isinstance(entry, list) and entry else entry
    keys = entry.keys() if isinstance(entry, dict) else set()
    return next((name for wanted, name in _TABLE["layouts"] if keys >= set(wanted)), None)
