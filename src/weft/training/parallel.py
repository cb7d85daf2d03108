"""Gradients over all ranks: each holds the whole model and its optimizer, and makes the same update from one sum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import nn

from weft.data.loader import Batch
from weft.training.ranks import Ranks, others

BUCKET = 1 << 24  # gradient entries sent at once: 64 MiB


def add_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """Every gradient becomes the sum over the ranks. One that no rank has stays None."""
    if ranks.world == 1:
        return
    trained = list(parameters)
    present = ranks.reduced([p.grad is not None for p in trained], dist.ReduceOp.MAX)
    there = [p for p, some in zip(trained, present, strict=True) if some]
    for p in there:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    for bucket in _buckets(there):
        flat = torch.cat([p.grad.flatten() for p in bucket if p.grad is not None])
        with others():
            dist.all_reduce(flat)
        for p, summed in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            p.grad = summed.view_as(p)


def forget_unreached(parameters: Mapping[str, nn.Parameter], ranks: Ranks) -> None:
    """Gradients of modules that only blank items have been through become None, as they are where none are run.

    A module's are nothing but zeros then, on every rank. (LoRA's first factor has such a one at first, and the second
    has not.)
    """
    groups: dict[str, list[nn.Parameter]] = {}
    for name, p in parameters.items():
        groups.setdefault(name.split(".lora_")[0].rpartition(".")[0], []).append(p)
    some = [
        torch.stack([own(p.grad).any() for p in g if p.grad is not None] or [torch.tensor(False)]).any()
        for g in groups.values()
    ]
    reached = ranks.reduced(torch.stack([each.cpu() for each in some]).tolist(), dist.ReduceOp.MAX)
    for group, there in zip(groups.values(), reached, strict=True):
        for p in group if not there else ():
            p.grad = None


def in_step(batches: Iterator[Batch], ranks: Ranks) -> Iterator[Batch]:
    """A rank's batches, and then empty ones as long as another has some."""
    while ranks.largest(int((batch := next(batches, None)) is not None)):
        yield batch or Batch({}, tokens=0, places=0, labels=0, samples=[])


def own(value: torch.Tensor) -> torch.Tensor:
    """What this rank holds of a tensor that may be shared out."""
    return value.to_local() if hasattr(value, "to_local") else value


def entire(value: torch.Tensor) -> torch.Tensor:
    """All of it, on every rank, which all call this together."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def add_numbers(numbers_n: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """Sums over the ranks of what lies on the device, where they stay."""
    if ranks.world > 1:
        with others():
            dist.all_reduce(numbers_n)
    return numbers_n


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for p in parameters:
        if bucket and sum(b.numel() for b in bucket) + p.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float | None) -> torch.Tensor:
    """Scale the gradients to a norm of at most ``limit``; returns the norm they had.

    Where that is not finite they are spoilt: the update is not to be made.
    """
    trained = [p for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    norm = entire(norm)
    if limit is not None and trained:
        torch.nn.utils.clip_grads_with_norm_(trained, limit, norm)
    return norm
