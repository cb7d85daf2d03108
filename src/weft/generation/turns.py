"""What one turn of a conversation leaves for the next: embeddings of media, and keys and values of all that was said.

A later turn's prompt begins as the one before and its answer did, for the most part: only what is new is read.
"""

from __future__ import annotations

from typing import Any

import torch

from weft.generation.embedding import Embedder
from weft.generation.rows import Growing

GROWING_SCALES = ("dynamic", "longrope")  # rotary embeddings that turn what was read otherwise in a longer row


class Turns(Embedder):
    """An `Embedder` for one conversation, whose turns are answered one after the other, each in a batch of one.

    What is asked may be any other conversation too: keys and values serve as far as embeddings are the same, bit by
    bit. In float32 the tokens are those of the turn alone. Layers that keep anything else than all keys and values
    (of a sliding window, of a recurrence) are read anew.
    """

    _last: tuple[Any, torch.Tensor, Any] | None = None  # a row, the embeddings of its prompt [L, W], its cache

    def begin(self, rows: list[Any], embeds_BLW: torch.Tensor) -> tuple[Any, int]:
        cache, known = super().begin(rows, embeds_BLW)
        last, self._last = self._last, (rows[0], embeds_BLW[0], cache)
        if last is None or not _whole(last[2], self._model.config.get_text_config()):
            return cache, known
        row, said_LW, held = last
        answer_NW = self._model.get_input_embeddings()(torch.tensor(row.ids, dtype=torch.long, device=said_LW.device))
        most = min(held.get_seq_length(), embeds_BLW.shape[1] - 1)  # the last token gives the answer's first
        said_LW = torch.cat([said_LW, answer_NW])[:most]
        same_L = (said_LW == embeds_BLW[0, : len(said_LW)]).all(-1)
        known = int(same_L.long().cumprod(0).sum())
        if not known:
            return cache, known
        if surplus := held.get_seq_length() - known:
            held.crop(-surplus)
        self._last = rows[0], embeds_BLW[0], held
        return held, known


def _whole(cache: Any, config: Any) -> bool:
    """Whether a cache can be cut back to any column: an answer that was broken off may have left it uneven."""
    turned = str(getattr(config, "rope_parameters", None))
    if getattr(config, "use_dynamic_ntk", False) or any(scale in turned for scale in GROWING_SCALES):
        return False
    if not all(type(layer) is Growing and layer.get_seq_length() for layer in cache.layers):
        return False
    return len({states.shape[2] for layer in cache.layers for states in (layer.keys, layer.values)}) == 1
