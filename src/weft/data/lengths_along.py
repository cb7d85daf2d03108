"""Lengths of more samples than are measured before training begins: each when its turn comes to be planned.

They are written down as they are found, so that other processes, later epochs and later runs find them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from weft.conversation import WeftError
from weft.data.kept_lengths import LOOKED_AT, KeptLengths
from weft.data.lengths import ADVICE, Keep, Lengths, measure_some
from weft.data.source import Source
from weft.models.processing import WeftProcessor

UNKNOWN, LEFT_OUT = 0, -1


class LengthsAlong:
    """What `Lengths` is to the loader, but for what asks of all samples at once: no clips are joined.

    A sample that breaks the format, or is longer than a row, is an error, or 0 tokens and a `problem`, when it is met.
    """

    problems: tuple[str, ...] = ()
    total = 0

    def __init__(
        self, source: Source, processor: WeftProcessor, row_tokens: int, on_bad_sample: str, keep: Keep | None
    ) -> None:
        self.source, self.processor, self.row_tokens, self.fail = source, processor, row_tokens, on_bad_sample == "fail"
        self.file = self._found(keep(source, processor)) if keep else None
        self._begin()

    def _begin(self) -> None:
        n = len(self.source)
        self.known = np.memmap(self.file, "<i4", "r+", shape=(n, 3)) if self.file else np.zeros((n, 3), "<i4")
        self.one = lru_cache(1 << 13)(self._one)

    def _found(self, kept: KeptLengths) -> Path | None:
        """The file of them, made where there is none, or where what it says is no longer what is measured."""
        for folder in kept.folders:
            with suppress(OSError):
                file = folder / f"{kept.name}.tokens"
                folder.mkdir(parents=True, exist_ok=True)
                if file.is_file() and not self._true(file):
                    file.unlink()
                with open(file, "ab") as handle:
                    os.truncate(handle.fileno(), 12 * len(self.source))  # a file of nothing takes no room
                return file
        return None

    def _true(self, file: Path) -> bool:
        whole = np.memmap(file, "<i4", "r")
        if len(whole) != 3 * len(self.source):
            return False
        known = whole[::3]
        some = np.linspace(0, len(known) - 1, min(len(known), 1 << 12)).astype(np.int64)
        some = some[known[some] > 0][:LOOKED_AT]
        now = measure_some(self.source, self.processor, "skip", which=some.tolist())[0]
        return bool(np.array_equal(known[some], now.tokens))

    def _one(self, index: int) -> Lengths:
        return measure_some(self.source, self.processor, "skip", True, which=[index])[0]

    @property
    def tokens(self) -> LengthsAlong:
        return self

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> int:
        """Tokens of a sample; 0 where it is left out."""
        count = int(self.known[index, 0])
        if count == UNKNOWN:
            one = self.one(index)
            self.known[index, 1:] = one.embedded[0]  # first: others look at the count
            count = self.known[index, 0] = int(one.tokens[0]) or LEFT_OUT
        if 0 < count <= self.row_tokens:
            return count
        if self.fail:
            raise WeftError(f"{self.problem(index)}; {ADVICE}")
        return 0

    @property
    def embedded(self) -> np.ndarray:
        """[n, 2], of samples whose tokens have been asked for."""
        return self.known[:, 1:]

    def problem(self, index: int) -> str | None:
        """Why a sample is left out; None where it is not."""
        count = int(self.known[index, 0])
        if count > self.row_tokens:
            return f"{self.source.where(index)}: {count} tokens do not fit a row of {self.row_tokens}"
        return next(iter(self.one(index).problems), None) if count == LEFT_OUT else None

    @property
    def clips(self) -> ClipsAlong:
        return ClipsAlong(self)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("known", "one")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()


class ClipsAlong:
    """What `clip_lengths.ClipLengths` is to edits."""

    def __init__(self, lengths: LengthsAlong) -> None:
        self.lengths = lengths

    def __getattr__(self, name: str) -> _Column:
        if name in ("clip_samples", "clip_tokens", "group", "words", "shared"):
            return _Column(self.lengths, name)
        raise AttributeError(name)

    def cut_points(self, index: int) -> np.ndarray:
        return self.lengths.one(index).clips.cut_points(0)  # type: ignore[no-any-return]

    def answer_tokens(self, _: Any, index: int, words: tuple[int, int] | None) -> int:
        one = self.lengths.one(index)
        return one.clips.answer_tokens(one.tokens, 0, words)  # type: ignore[no-any-return]

    def members(self, _: Any) -> dict[int, np.ndarray]:
        return {1: np.zeros(1, np.int64)}  # each is the first of its own group, as it is measured by itself


class _Column:
    def __init__(self, lengths: LengthsAlong, name: str) -> None:
        self.lengths, self.name = lengths, name

    def __getitem__(self, index: int) -> Any:
        return getattr(self.lengths.one(index).clips, self.name)[0]
