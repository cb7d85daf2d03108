"""Losses on hidden states, made outside the model: the output head runs only where there is something to learn.

Answers are a small part of a multimodal row, and a [L, V] tensor of logits is often the largest of a training step;
here at most `CHUNK` logits exist at once, or those of `ROWS` rows, and the gradient is made of them while they are
there: nothing is computed twice. A loss is a sum over rows, for only sums add up over rows, micro-steps and ranks to
what one large batch would give.

Where labels stay on the CPU, nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.autograd.graph import GradientEdge
from torch.nn import functional as F

from weft.named import Named

IGNORE = -100
CHUNK = 1 << 24  # logits held at once: 64 MiB in float32
# Rows of a chunk at least: the gradient of the head is added up once a chunk, which costs as much as the products of
# some 20 rows.
ROWS = 192

HALF = Named[Any]({"loss": "weft.models.softmax_loss:SoftmaxLoss"})  # of logits in bfloat16 on a CPU
Head = Callable[..., torch.Tensor]  # hidden states [n, D], and what stands beside them, to logits [n, V]
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
    """The loss of hidden states [n, D] and targets [n], and of what else the head takes of them."""

    def loss(hidden_nD: torch.Tensor, targets_n: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        logits_nV = head(hidden_nD, *more)
        if logits_nV.dtype == torch.bfloat16 and logits_nV.device.type == "cpu":
            return HALF["loss"].apply(logits_nV, targets_n, label_smoothing)  # type: ignore[no-any-return]
        return F.cross_entropy(logits_nV.float(), targets_n, reduction="none", label_smoothing=label_smoothing).sum()

    return loss


def loss_at(
    places_N: torch.Tensor,
    hidden_BLD: torch.Tensor,
    loss: Loss,
    vocabulary: int,
    *targets_N: torch.Tensor,
    chunk: int | None = None,
) -> torch.Tensor:
    """``loss`` of the hidden states at ``places_N`` and of what stands beside them, as many rows at a time as fit."""
    if not len(places_N):
        return hidden_BLD.float().sum() * 0.0  # keeps the graph whole: gradients are zero, not missing
    places_N, *targets = (sent(each, hidden_BLD.device) for each in (places_N, *targets_N))
    # On a CPU in half precision a logit with its gradient is 4 bytes, not 8 or 10: twice the rows.
    rows = chunk_rows(vocabulary) << torch.is_autocast_enabled("cpu") if chunk is None else max(1, chunk // vocabulary)
    return in_chunks(loss, rows)(hidden_BLD.flatten(0, 1)[places_N], *targets)


def chunk_rows(vocabulary: int) -> int:
    """Rows whose logits are held at once, in float32."""
    return max(ROWS, CHUNK // vocabulary)


def in_chunks(loss: Loss, rows: int) -> Loss:
    """``loss`` made of ``rows`` rows at a time, and of each part the gradient with it; it has no second derivative."""

    def whole(*tensors: torch.Tensor) -> torch.Tensor:
        if len(tensors[0]) <= rows:
            return loss(*tensors)
        hidden_ND, total, slopes_ND = tensors[0], tensors[0].new_zeros((), dtype=torch.float32), list[Any]()
        weights: dict[torch.Tensor, torch.Tensor] = {}  # what the head learns, and the sum of its gradients
        for some_nD, *others in zip(*(tensor.split(rows) for tensor in tensors), strict=True):
            own_nD = some_nD.detach().requires_grad_(torch.is_grad_enabled() and hidden_ND.requires_grad)
            part = loss(own_nD, *others)
            total += part.detach()
            if part.requires_grad:
                asked = [own_nD] if own_nD.requires_grad else []
                found = [(leaf, edge) for leaf, edge in leaves(part) if leaf is not own_nD]
                slopes = torch.autograd.grad(part, [*asked, *(edge for _, edge in found)])
                slopes_ND += slopes[: len(asked)]
                weights |= {
                    leaf: weights[leaf].add_(slope) if leaf in weights else slope.to(leaf.dtype)
                    for (leaf, _), slope in zip(found, slopes[len(asked) :], strict=True)
                }
                del slopes  # before the next chunk makes its own
        pairs = [(hidden_ND, torch.cat(slopes_ND))] if slopes_ND else []
        pairs += weights.items()
        return _Known.apply(total, *(t for pair in pairs for t in pair)) if pairs else total  # type: ignore[no-any-return]

    return whole


def leaves(result: torch.Tensor) -> Iterator[tuple[torch.Tensor, Any]]:
    """What ``result`` was made of and learns, each once, and where its gradient is to be asked for.

    Of a weight that was cast that is behind the cast, in the lower precision: half of the bytes, and the same numbers.
    """
    todo, users = [result.grad_fn], dict[Any, list[Any]]()
    for node in todo:
        for following, _ in node.next_functions if node is not None else ():
            if following not in users:
                todo.append(following)
            users.setdefault(following, []).append(node)
    for node, (first, *others) in users.items():
        if hasattr(node, "variable"):
            cast = first.name() == "ToCopyBackward0" and not others
            yield node.variable, GradientEdge(first, 0) if cast else node.variable


class _Known(torch.autograd.Function):
    """A number whose gradients are known: ``total``, and tensors each with its own behind it."""

    @staticmethod
    def forward(ctx: Any, total: torch.Tensor, *pairs: torch.Tensor) -> torch.Tensor:
        ctx.slopes = pairs[1::2]
        return total.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        slopes, ctx.slopes = ctx.slopes, ()
        return (None, *(each for known in slopes for each in (known.mul_(slope), None)))


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``tensor`` on its way to the device, which nobody waits for: a GPU takes it so from locked memory alone."""
    if tensor.device.type != "cpu" or device.type == "cpu":
        return tensor.to(device)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
