"""Measured lengths, kept from run to run: beside the samples in ``.weft``, or in the user's cache where nothing can be
written there.

A file is found by what its numbers depend on (the samples' bytes, tokenizer, dialect and encoders, limits), and taken
where every medium still has the size and time that it had and some samples, measured again, come out alike: so a change
of weft's own code, or of a file that could not be read before, is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_path

from weft.data.clip_lengths import ClipLengths
from weft.data.lengths import Lengths
from weft.data.quick_lengths import sooner
from weft.data.source import Source
from weft.files import whole_file
from weft.media.source import decoded_bytes

KEPT = 8  # of one file of samples: those of other models stay beside them
LOOKED_AT = 16  # samples that are measured again before the others are believed
GONE = -1  # the size of a medium that is not there


class KeptLengths:
    """Where the lengths of one source are kept for one processor."""

    def __init__(self, source: Source, processor: Any) -> None:
        self.source, self.processor = source, processor
        home = source.home
        beside = hashlib.sha256(str(home or source.path).encode()).hexdigest()[:16]
        self.folders = [user_cache_path("weft") / "lengths" / beside]
        self.folders[:0] = [home / ".weft" / "lengths"] if home else []
        self.stem = Path(source.path).name
        self.name = f"{self.stem}.{_key(source, processor)}"

    @property
    def sooner(self) -> tuple[Source, Any]:
        """Source and processor of which a first measuring takes less time and finds the same."""
        return sooner(self.source, self.processor)

    def read(self, edited: bool, again: Callable[[Sequence[int]], Lengths]) -> Lengths | None:
        """What is there and still true, with `clips` where ``edited``; ``again`` measures samples anew."""
        for folder in self.folders:
            with suppress(Exception):  # absent or damaged, which zip, zlib and numpy say in a dozen ways
                with np.load(folder / f"{self.name}.npz") as data:
                    clips = ClipLengths(**{f.name: data[f.name] for f in fields(ClipLengths)}) if edited else None
                    problems = tuple(map(str, data["problems"]))
                    lengths = Lengths(data["tokens"], data["embedded"], problems, clips)
                    media, facts = json.loads(bytes(data["media"])), data["facts"]
                if np.array_equal(_facts(media), facts) and _same(lengths, again):
                    return lengths
        return None

    def write(self, lengths: Lengths, media: Sequence[str]) -> None:
        """Keeps them; without room anywhere, they are measured again next time."""
        arrays = {} if lengths.clips is None else {f.name: getattr(lengths.clips, f.name) for f in fields(ClipLengths)}
        arrays |= {"tokens": lengths.tokens, "embedded": lengths.embedded}
        arrays["problems"] = np.array(lengths.problems, dtype=str)
        arrays["media"] = np.frombuffer(json.dumps(list(media)).encode(), np.uint8)
        arrays["facts"] = _facts(media)
        for folder in self.folders:
            with suppress(OSError):
                with whole_file(folder / f"{self.name}.npz", "wb") as handle:
                    np.savez(handle, **arrays)
                others = folder.glob(f"{escape(self.stem)}.{'?' * 16}.npz")
                for old in sorted(others, key=lambda file: file.stat().st_mtime)[:-KEPT]:
                    old.unlink(missing_ok=True)
                return


def _facts(media: Sequence[str]) -> np.ndarray:
    """Size and time of each medium."""
    found = np.full((len(media), 2), GONE, np.int64)
    for i, path in enumerate(media):
        with suppress(OSError):
            status = os.stat(path)
            found[i] = status.st_size, status.st_mtime_ns
    return found


def _same(lengths: Lengths, again: Callable[[Sequence[int]], Lengths]) -> bool:
    n = len(lengths.tokens)
    left_out = np.flatnonzero(lengths.tokens == 0)[:1000]  # they may be mended by now
    which = np.union1d(np.linspace(0, n - 1, min(n, LOOKED_AT)).astype(int), left_out)
    now = again(which.tolist())
    same = all(np.array_equal(getattr(lengths, name)[which], getattr(now, name)) for name in ("tokens", "embedded"))
    return same and all(
        np.array_equal(getattr(lengths.clips, name)[which], getattr(now.clips, name))
        for name in (("clip_samples", "clip_tokens", "shared", "words") if lengths.clips is not None else ())
    )


def _key(source: Source, processor: Any) -> str:
    """Of all that lengths depend on, but for the media."""
    tokenizer = processor.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    limits = getattr(source, "media_root", None), decoded_bytes(None)
    facts = [str(source.path), source.fingerprint(), limits, type(tokenizer).__name__, words, processor.to_dict()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
