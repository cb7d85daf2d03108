"""Cross-entropy that runs the output head only where there is something to learn, a chunk at a time.

Answers are a small part of a multimodal row, and a [L, V] tensor of logits is often the largest of a training step;
here at most `CHUNK` logits exist at once, recomputed in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def answer_weights(targets_BL: torch.Tensor, power: float) -> torch.Tensor:
    """[B, L]: what each label counts for, the number of labels of its answer to the power of -``power``.

    An answer is a run of labels without a gap. 0: every label alike; 1: every answer alike; 0.5 lies between (the
    square averaging of InternVL 2.5, there of samples). Positions without a label weigh as the answer before them.
    """
    labelled_BL = targets_BL != IGNORE
    begins_BL = labelled_BL & ~F.pad(labelled_BL[:, :-1], (1, 0))
    answer_N = begins_BL.flatten().cumsum(0)
    counts = torch.bincount(answer_N, labelled_BL.flatten().float())
    return counts.clamp(min=1).pow(-power)[answer_N].view(targets_BL.shape)


def chunked_cross_entropy(
    hidden_BLD: torch.Tensor,
    targets_BL: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    vocabulary: int,
    *,
    label_smoothing: float = 0.0,
    scales: Sequence[tuple[int, int]] = (),
    near: float = 0.0,
    weights_BL: torch.Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the losses over labelled positions (float32) and their number (or weight).

    ``head`` turns hidden states [n, D] into logits [n, V] of ``vocabulary`` entries. Sum and number are given apart
    because only they add up over rows, micro-steps and ranks to what one large batch would give. ``weights_BL`` is what
    positions count for (then the number is the sum of the weights). With ``near`` > 0 a target on one of ``scales``
    (first id, number of steps) is a bell of that width in steps around the right one: a step beside it is nearly right,
    which one step of a hundred, seen a few times, does not tell.
    """
    labelled_BL = targets_BL != IGNORE
    hidden_ND, targets_N = hidden_BLD[labelled_BL], targets_BL[labelled_BL]
    weights_N = (
        weights_BL[labelled_BL] if weights_BL is not None else torch.ones(len(targets_N), device=hidden_BLD.device)
    )
    count = weights_N.sum()
    if len(targets_N) == 0:
        return hidden_BLD.float().sum() * 0.0, count  # keeps the graph whole: gradients are zero, not missing

    def part(hidden_nD: torch.Tensor, targets_n: torch.Tensor, weights_n: torch.Tensor) -> torch.Tensor:
        logits_nV = head(hidden_nD).float()
        loss_n = F.cross_entropy(logits_nV, targets_n, reduction="none", label_smoothing=label_smoothing)
        for first, steps in scales if near else ():
            on_n = (targets_n >= first) & (targets_n < first + steps)
            extra_m = _bell_extra(logits_nV[on_n, first : first + steps], targets_n[on_n] - first, near)
            loss_n = loss_n.masked_scatter(on_n, loss_n[on_n] + extra_m)
        return (loss_n * weights_n).sum()

    rows = max(1, chunk // vocabulary)
    if len(targets_N) <= rows:
        return part(hidden_ND, targets_N, weights_N), count
    total = hidden_ND.new_zeros((), dtype=torch.float32)
    for some in zip(hidden_ND.split(rows), targets_N.split(rows), weights_N.split(rows), strict=True):
        total = total + checkpoint(part, *some, use_reentrant=False, preserve_rng_state=False)
    return total, count


def bell_loss(logits_nS: torch.Tensor, step_n: torch.Tensor, near: float) -> torch.Tensor:
    """Summed cross-entropies between bells of width ``near`` around the right steps and the softmax; 0 at best."""
    log_nS = logits_nS.log_softmax(1)
    hard_n = F.nll_loss(log_nS, step_n, reduction="none")
    return (hard_n + _bell_extra(log_nS, step_n, near)).sum()


def _bell_extra(logits_nS: torch.Tensor, step_n: torch.Tensor, near: float) -> torch.Tensor:
    """[n]: what a bell of width ``near`` (in steps) around the right step adds to the cross-entropy of that step.

    The bell's entropy is taken off, so that the best loss stays 0. Log p of the whole vocabulary cancels, for both
    targets sum to 1: ``logits_nS`` of the scale's steps are enough.
    """
    away_nS = torch.arange(logits_nS.shape[1], device=logits_nS.device) - step_n[:, None]
    wanted_nS = torch.softmax(-0.5 * (away_nS / near) ** 2, 1)
    entropy_n = -torch.special.xlogy(wanted_nS, wanted_nS).sum(1)
    return logits_nS.gather(1, step_n[:, None])[:, 0] - (wanted_nS * logits_nS).sum(1) - entropy_n
