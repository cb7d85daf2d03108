"""Losses on hidden states, made outside the model: the output head runs only where there is something to learn.

Answers are a small part of a multimodal row, and a [L, V] tensor of logits is often the largest of a training step;
here at most `CHUNK` logits exist at once, recomputed in the backward pass. A loss is a sum over rows, for only sums add
up over rows, micro-steps and ranks to what one large batch would give.

Where labels stay on the CPU, nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

IGNORE = -100
CHUNK = 1 << 24  # logits held at once: 64 MiB in float32

Head = Callable[[torch.Tensor], torch.Tensor]  # hidden states [n, D] to logits [n, V]
Loss = Callable[..., torch.Tensor]  # hidden states [n, D] and tensors of n rows to the sum of their losses, float32


def next_tokens(
    labels_BL: torch.Tensor, segment_lengths_S: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """``(places_N, targets_N)``: where, in the rows laid end to end, a next token is to be predicted, and which.

    ``labels[i]`` is the id *at* i, -100 where nothing is learned. In a packed row no sample predicts the first token of
    the next one.
    """
    targets_BL = F.pad(labels_BL[:, 1:], (0, 1), value=IGNORE)
    if segment_lengths_S is not None:
        targets_BL.view(-1)[segment_lengths_S.cumsum(0).to(labels_BL.device) - 1] = IGNORE
    targets_n = targets_BL.flatten()
    places_N = (targets_n != IGNORE).nonzero()[:, 0]
    return places_N, targets_n[places_N]


def cross_entropy(head: Head, label_smoothing: float = 0.0) -> Loss:
    """The loss of hidden states [n, D] and targets [n]."""

    def loss(hidden_nD: torch.Tensor, targets_n: torch.Tensor) -> torch.Tensor:
        logits_nV = head(hidden_nD).float()
        return F.cross_entropy(logits_nV, targets_n, reduction="none", label_smoothing=label_smoothing).sum()

    return loss


def loss_at(
    places_N: torch.Tensor,
    hidden_BLD: torch.Tensor,
    loss: Loss,
    vocabulary: int,
    *targets_N: torch.Tensor,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """``loss`` of the hidden states at ``places_N`` and of what stands beside them, as many rows at a time as fit."""
    if not len(places_N):
        return hidden_BLD.float().sum() * 0.0  # keeps the graph whole: gradients are zero, not missing
    places_N, *targets = (sent(each, hidden_BLD.device) for each in (places_N, *targets_N))
    return in_chunks(loss, max(1, chunk // vocabulary))(hidden_BLD.flatten(0, 1)[places_N], *targets)


def in_chunks(loss: Loss, rows: int) -> Loss:
    """``loss`` made of ``rows`` rows at a time, each part computed again in the backward pass."""

    def whole(*tensors: torch.Tensor) -> torch.Tensor:
        if len(tensors[0]) <= rows:
            return loss(*tensors)
        total = tensors[0].new_zeros((), dtype=torch.float32)
        for some in zip(*(tensor.split(rows) for tensor in tensors), strict=True):
            total = total + checkpoint(loss, *some, use_reentrant=False, preserve_rng_state=False)
        return total

    return whole


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``tensor`` on its way to the device, which nobody waits for: a GPU takes it so from locked memory alone."""
    if tensor.device.type != "cpu" or device.type == "cpu":
        return tensor.to(device)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
