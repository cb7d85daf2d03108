"""Which samples share a row of tokens: one plan for the whole run, made in index space before anything is decoded.

The stream of positions (see `mixture`) is cut into windows; the samples of a window are packed into rows of at most
``row_tokens`` by best fit, in a shuffled order, and the rows of a window are shuffled. Rows are numbered through the
whole run, so "rows consumed" is all the state there is, and any number of ranks can go on from it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np

from weft.conversation import WeftError

EMPTY = 100  # windows without a row, one after the other, after which there will be none
FULL = 0.995  # of rows that are to cost the same
WINDOW = 1024  # samples planned together: large enough that a row in a hundred is not full, small enough to be instant


def pack(lengths: Sequence[int], row_tokens: int, order: Sequence[int] | np.ndarray | None = None) -> list[list[int]]:
    """Rows of indices into ``lengths``, each of at most ``row_tokens``: best fit, in ``order`` (None: as given).

    Every index with a length above 0 is in exactly one row; an index with length 0 (a sample that is left out) in none.
    A shuffled order fills rows one or two percent less than the longest first would, but mixes them: samples of one
    length are of one kind, and an update should not learn one kind alone.
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens free, row), sorted
    for index in range(len(lengths)) if order is None else map(int, order):
        need = int(lengths[index])
        if need > row_tokens:
            raise ValueError(f"sample of {need} tokens does not fit a row of {row_tokens}")
        if need == 0:
            continue
        at = bisect_left(room, (need, -1))
        if at < len(room):
            free, row = room.pop(at)
        else:
            free, row = row_tokens, len(rows)
            rows.append([])
        rows[row].append(index)
        insort(room, (free - need, row))
    return rows


def pack_evenly(tokens_n: np.ndarray, media_nM: np.ndarray, row_tokens: int) -> list[list[int]]:
    """Rows as `pack` makes them, that cost about the same: in text, in attention, and in what encoders have to do.

    ``media_nM``: of each sample how much there is for each encoder. Samples that are a large part of a row's share of
    anything are placed first, each where the row has least of what it has itself.
    """
    tokens_n = np.asarray(tokens_n, np.float64)
    there = np.flatnonzero(tokens_n)
    if not len(there):
        return []
    if tokens_n.max() > row_tokens:
        raise ValueError(f"sample of {int(tokens_n.max())} tokens does not fit a row of {row_tokens}")
    count = int(np.ceil(tokens_n.sum() / (FULL * row_tokens)))
    amount_nK = np.column_stack([tokens_n, tokens_n**2, media_nM]).astype(np.float64)
    amount_nK /= np.maximum(amount_nK[there].sum(0) / count, 1e-9)  # 1: what a row has of it on average
    load_RK, room_R = np.zeros((len(there) + count, amount_nK.shape[1])), np.full(len(there) + count, float(row_tokens))
    rows: list[list[int]] = [[] for _ in range(count)]
    for index in there[np.argsort(-amount_nK[there].max(1), kind="stable")]:
        # The squares of all loads grow by this, and by as much again in every row.
        grows_R = np.where(room_R[: len(rows)] >= tokens_n[index], load_RK[: len(rows)] @ amount_nK[index], np.inf)
        row = int(grows_R.argmin())
        if np.isinf(grows_R[row]):
            row = len(rows)
            rows.append([])
        rows[row].append(int(index))
        load_RK[row] += amount_nK[index]
        room_R[row] -= tokens_n[index]
    return [row for row in rows if row]


class PlanEnds(IndexError):
    """A row past the last one of a plan that has an end."""


class PackingPlan:
    """``plan[row] -> positions`` for every row from 0 on, without end.

    ``length(position)`` gives a sample's tokens, 0 where it is left out. With ``packing`` off every row is one sample.
    ``media(position)``, if given, is what a sample has for each encoder: rows have like shares of it (`pack_evenly`).
    ``end`` ends the stream at that position (evaluation); then rows past the last raise `PlanEnds`. Equal arguments
    give equal plans in any process. Reading rows in order costs one planning per window; a jump far ahead plans the
    windows between, unless ``anchor`` (what `anchor` returned for the row where the run stopped) says where to begin.
    """

    def __init__(
        self,
        length: Callable[[int], int],
        row_tokens: int,
        *,
        seed: int = 0,
        window: int | None = None,
        packing: bool = True,
        shuffle: bool = True,
        end: int | None = None,
        anchor: tuple[int, int] | None = None,
        media: Callable[[int], tuple[int, ...]] | None = None,
    ) -> None:
        self.length, self.row_tokens, self.seed, self.window = length, row_tokens, seed, window or WINDOW
        self.packing, self.shuffle, self.end, self.media = packing, shuffle, end, media
        self._first_window, first_row = anchor or (0, 0)
        self._starts = [first_row]  # first row of each window from _first_window on
        self._planned: OrderedDict[int, list[list[int]]] = OrderedDict()
        self._lock = Lock()  # loader threads share a plan

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())

    def __getitem__(self, row: int) -> list[int]:
        with self._lock:
            window = self._locate(row)
            return self._rows(window)[row - self._starts[window - self._first_window]]

    def anchor(self, row: int) -> tuple[int, int]:
        """``(window, its first row)`` of a row: a new plan given it begins there without planning what was before.

        Where a window up to there cannot be planned, that of the first which cannot.
        """
        with self._lock:
            try:
                window = self._locate(row)
            except WeftError:
                window = self._first_window + len(self._starts) - 1
            return window, self._starts[window - self._first_window]

    def opened(self, row: int) -> range:
        """The positions of the windows that begin with a row: its own, and those before it that have no rows."""
        with self._lock:
            window = self._locate(row)
            if self._starts[window - self._first_window] != row:
                return range(0)
            first = self._first_window + bisect_left(self._starts, row)
            end = (window + 1) * self.window
            return range(first * self.window, end if self.end is None else min(end, self.end))

    def _locate(self, row: int) -> int:
        if row < self._starts[0]:
            raise IndexError(f"row {row} lies before row {self._starts[0]}, where this plan begins")
        while self._starts[-1] <= row:
            window = self._first_window + len(self._starts) - 1
            if self.end is not None and window * self.window >= self.end:
                raise PlanEnds(f"row {row} of {self._starts[-1]}")
            if window - self._first_window >= EMPTY and self._starts[-1] == self._starts[-EMPTY]:
                raise WeftError(f"{EMPTY * self.window:,} samples in a row were left out; nothing is left to train on")
            self._starts.append(self._starts[-1] + len(self._rows(window)))
        return self._first_window + bisect_right(self._starts, row) - 1

    def _rows(self, window: int) -> list[list[int]]:
        if window not in self._planned:
            begin = window * self.window
            end = begin + self.window if self.end is None else min(begin + self.window, self.end)
            lengths = [self.length(p) for p in range(begin, end)]
            rng = np.random.default_rng([self.seed, window])
            order = rng.permutation(len(lengths)) if self.shuffle else np.arange(len(lengths))
            media = [self.media(p) for p in range(begin, end)] if self.media and self.packing else []
            if np.any(media):
                rows = pack_evenly(np.array(lengths), np.array(media), self.row_tokens)
            elif self.packing:
                rows = pack(lengths, self.row_tokens, order)
            else:
                rows = [[int(i)] for i in order if lengths[i]]
            if self.shuffle:  # the rows opened last are the emptiest
                rows = [rows[i] for i in rng.permutation(len(rows))]
            self._planned[window] = [[begin + i for i in row] for row in rows]
            if len(self._planned) > 4:
                self._planned.popitem(last=False)
        return self._planned[window]


def micro_step_rows(step: int, rows: int, rank: int = 0, world: int = 1) -> range:
    """The rows that a rank reads for its ``step``-th micro-step: ranks share out consecutive rows of the one plan."""
    first = (step * world + rank) * rows
    return range(first, first + rows)
