"""From logits to ids: greedy and sampled choices of rows that each have their own options.

Each row draws from its own generator, so an answer does not depend on its neighbours.

Shapes: B rows, L tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from weft.generation.reply import Options


def choose(
    logits_BV: torch.Tensor,
    options: Sequence[Options],
    draws: Sequence[np.random.Generator],
    seen: Sequence[torch.Tensor | None],
) -> list[int]:
    """The next id of every row. ``seen``: which ids a row holds already [V], where its options have a penalty."""
    for row, (own, ids_V) in enumerate(zip(options, seen, strict=True)):
        if ids_V is not None:
            logits_BV[row] = penalised(logits_BV[row], ids_V, own.repetition_penalty)
    chosen_B = logits_BV.argmax(-1)
    sampled = [row for row, own in enumerate(options) if own.do_sample]
    if sampled:
        uniform = np.array([draws[row].random() for row in sampled])
        chosen_B[sampled] = drawn(logits_BV[sampled], [options[row] for row in sampled], uniform)
    return chosen_B.tolist()


def likeliest(logits_V: torch.Tensor, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """The log-probability of a chosen id, and the ``top`` likeliest ids with theirs."""
    log_V = logits_V.log_softmax(-1)
    values, ids = log_V.topk(min(top, len(log_V)))
    return float(log_V[token]), list(zip(ids.tolist(), values.tolist(), strict=True))


def seen_ids(ids: np.ndarray, vocabulary: int, device: torch.device) -> torch.Tensor:
    """Which ids a prompt holds: bool [V]."""
    seen_V = torch.zeros(vocabulary, dtype=torch.bool, device=device)
    seen_V[torch.from_numpy(ids).clamp(max=vocabulary - 1).to(device)] = True
    return seen_V


def penalised(logits_V: torch.Tensor, seen_V: torch.Tensor, penalty: float) -> torch.Tensor:
    """Divides positive and multiplies negative logits of seen ids by the penalty (Keskar et al. 2019)."""
    changed = torch.where(logits_V > 0, logits_V / penalty, logits_V * penalty)
    return torch.where(seen_V[: len(logits_V)], changed, logits_V)


def drawn(logits_BV: torch.Tensor, options: Sequence[Options], uniform_B: np.ndarray) -> torch.Tensor:
    """One id a row by inverting the distribution function at ``uniform_B``: the same on any device and in any batch."""

    def column(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits_BV.device)[:, None]

    heat_B1, mass_B1 = column([o.temperature for o in options]), column([o.top_p for o in options])
    most_B1 = column([o.top_k or logits_BV.shape[1] for o in options])
    probs, ids = torch.sort(torch.softmax(logits_BV.double() / heat_B1, -1), dim=-1, descending=True, stable=True)
    probs[torch.arange(probs.shape[1], device=probs.device) >= most_B1] = 0
    before = probs.cumsum(-1) - probs
    probs[before >= mass_B1 * probs.sum(-1, keepdim=True)] = 0  # the first is always kept
    total = probs.cumsum(-1)
    point = torch.as_tensor(uniform_B, device=total.device)[:, None] * total[:, -1:]
    place = torch.searchsorted(total, point, right=True).clamp(max=total.shape[1] - 1)
    return ids.gather(1, place)[:, 0]
