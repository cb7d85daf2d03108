"""Cross-entropy that runs the output head only where there is something to learn, a chunk at a time.

Answers are a small part of a multimodal row, and a [L, V] tensor of logits is often the largest of a training step;
here at most `CHUNK` logits exist at once, recomputed in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

IGNORE = -100
CHUNK = 1 << 24  # logits held at once: 64 MiB in float32


def next_token_targets(labels_BL: torch.Tensor, segment_lengths_S: torch.Tensor | None = None) -> torch.Tensor:
    """What each position is to predict, [B, L], -100 where nothing: ``labels[i]`` is the id *at* i, so one to the left.

    In a packed row no sample predicts the first token of the next one.
    """
    if segment_lengths_S is not None:
        first = segment_lengths_S.cumsum(0)[:-1].to(labels_BL.device)
        labels_BL = labels_BL.clone()
        labels_BL.view(-1)[first] = IGNORE
    return F.pad(labels_BL[:, 1:], (0, 1), value=IGNORE)


def chunked_cross_entropy(
    hidden_BLD: torch.Tensor,
    targets_BL: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    vocabulary: int,
    *,
    label_smoothing: float = 0.0,
    chunk: int = CHUNK,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the losses over labelled positions (float32) and their number.

    ``head`` turns hidden states [n, D] into logits [n, V] of ``vocabulary`` entries. Sum and number are given apart
    because only they add up over rows, micro-steps and ranks to what one large batch would give.
    """
    labelled_BL = targets_BL != IGNORE
    hidden_ND, targets_N = hidden_BLD[labelled_BL], targets_BL[labelled_BL]
    count = torch.tensor(len(targets_N), device=hidden_BLD.device)
    if len(targets_N) == 0:
        return hidden_BLD.float().sum() * 0.0, count  # keeps the graph whole: gradients are zero, not missing

    def part(hidden_nD: torch.Tensor, targets_n: torch.Tensor) -> torch.Tensor:
        logits_nV = head(hidden_nD).float()
        return F.cross_entropy(logits_nV, targets_n, reduction="sum", label_smoothing=label_smoothing)

    rows = max(1, chunk // vocabulary)
    if len(targets_N) <= rows:
        return part(hidden_ND, targets_N), count
    total = hidden_ND.new_zeros((), dtype=torch.float32)
    for hidden_nD, targets_n in zip(hidden_ND.split(rows), targets_N.split(rows), strict=True):
        total = total + checkpoint(part, hidden_nD, targets_n, use_reentrant=False, preserve_rng_state=False)
    return total, count
