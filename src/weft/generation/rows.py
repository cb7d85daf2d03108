"""The cache of a running batch: rows join it, leave it, and lose the columns that none of them needs.

Rows end at one column and are padded on the left, as in a batch that began together; so masks, positions and sliding
windows are those of transformers, whatever the language model. What a layer keeps is told by its attributes: keys and
values, states of a recurrence or convolution, how many columns it has seen.

Shapes: B rows, L columns, H heads, K size of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # columns that a layer has before it is copied into a larger one


class Growing(DynamicLayer):
    """Keys and values in a room for more: a step writes one column, and rows that come or go are copied alone, where
    transformers copies all."""

    keys: Any
    values: Any
    _room: tuple[torch.Tensor, ...] = ()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if key_states.shape[2] > 1 or self.get_seq_length() == 0:
            return super().update(key_states, value_states, *args, **kwargs)
        return self._put(0, self.keys.shape[2] + 1, key_states, value_states)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        rows = beam_idx.tolist()
        if self.get_seq_length() == 0 or any(row < place for place, row in enumerate(rows)):
            return super().reorder_cache(beam_idx)
        for states in (self.keys, self.values):
            for place, row in enumerate(rows):
                if place != row:
                    states[place] = states[row]
        self.keys, self.values = self.keys[: len(rows)], self.values[: len(rows)]

    def take(self, other: Any) -> None:
        """Puts the rows of another layer behind."""
        self._put(len(self.keys), max(self.keys.shape[2], other.keys.shape[2]), other.keys, other.values)

    def _put(self, first: int, columns: int, *given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes keys and values at the end of rows from ``first`` on; then there are so many columns."""
        rows = first + len(given[0])
        end = self._end(rows, columns)
        for room, states in zip(self._room, given, strict=True):
            room[first:rows, :, end - states.shape[2] : end] = states
        self.keys, self.values = (room[:rows, :, end - columns : end] for room in self._room)
        return self.keys, self.values

    def _end(self, rows: int, columns: int) -> int:
        """Where so many columns end in the room, which has place for them and so many rows."""
        mine, heads, held, size = self.keys.shape
        further = rows == mine  # else rows join, behind the same last column
        if self._room and self._room[0].untyped_storage().data_ptr() == self.keys.untyped_storage().data_ptr():
            most, _, width, _ = self._room[0].shape
            end = int(self.keys.storage_offset()) // size % width + held + further
            if rows <= most and columns <= end <= width:
                return end
        both = self.keys, self.values
        self._room = tuple(states.new_zeros(rows, heads, columns + ROOM, states.shape[3]) for states in both)
        for room, states in zip(self._room, both, strict=True):
            room[:mine, :, columns - further - held : columns - further] = states
        return columns


def empty(config: Any) -> DynamicCache:
    """A cache of a language model of this configuration, for a running batch."""
    cache = DynamicCache(config=config)
    cache.layers = [Growing() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def keep(cache: DynamicCache, rows: torch.Tensor) -> None:
    """Leaves these rows alone in the cache, and in the rotary factor of each row that the first Qwen keeps on it."""
    cache.reorder_cache(rows)  # type: ignore[arg-type]
    if (alpha := getattr(cache, "ntk_alpha", None)) is not None:
        cache.ntk_alpha = alpha[rows]  # type: ignore[attr-defined]


def join(cache: DynamicCache, other: DynamicCache, rows: tuple[int, int]) -> None:
    """Puts the rows of ``other`` behind those of ``cache``, the shorter padded on the left. ``rows``: how many each."""
    for mine, theirs in zip(cache.layers, other.layers, strict=True):
        if (keys := getattr(mine, "keys", None)) is None or not keys.numel():
            pass
        elif isinstance(mine, Growing):
            mine.take(theirs)
        else:
            width = max(mine.keys.shape[2], theirs.keys.shape[2])
            for name in ("keys", "values"):
                both = [F.pad(x, (0, 0, width - x.shape[2], 0)) for x in (getattr(mine, name), getattr(theirs, name))]
                setattr(mine, name, torch.cat(both))
        if hasattr(mine, "cumulative_length"):  # of a sliding window
            mine.cumulative_length = max(mine.cumulative_length, theirs.cumulative_length)
        for states in ("conv_states", "recurrent_states"):
            for i, state in getattr(mine, states, {}).items():
                if state is not None:
                    getattr(mine, states)[i] = torch.cat([state, getattr(theirs, states)[i]])
    alphas = [getattr(c, "ntk_alpha", None) for c in (cache, other)]
    known = next((alpha for alpha in alphas if alpha is not None), None)
    if known is not None:
        both = [known.new_ones(n, 1) if alpha is None else alpha for alpha, n in zip(alphas, rows, strict=True)]
        cache.ntk_alpha = torch.cat(both)  # type: ignore[attr-defined]


def cut(cache: DynamicCache, columns: int) -> None:
    """Drops the first columns, which are padding in every row."""
    for layer in cache.layers:
        left = None
        if hasattr(layer, "cumulative_length"):
            layer.cumulative_length -= columns
            left = layer.cumulative_length
        if (keys := getattr(layer, "keys", None)) is not None and keys.numel():
            width = keys.shape[2] - columns if left is None else min(left, keys.shape[2])
            layer.keys, layer.values = layer.keys[:, :, -width:], layer.values[:, :, -width:]
