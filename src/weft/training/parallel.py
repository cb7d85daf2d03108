"""Gradients over all ranks: each holds the whole model and its optimizer, and makes the same update from one sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from weft.data.loader import TrainingData
from weft.models.adapters import merge_lora
from weft.models.modeling import WeftForConditionalGeneration
from weft.training import checkpoint as ckpt
from weft.training.asked import ASKED
from weft.training.build import build_model
from weft.training.export import round_as_saved, save_model
from weft.training.parts import TrainedPart
from weft.training.ranks import Ranks, others
from weft.training.recipe import ModelSpec
from weft.training.update import Precision, batch_loss

T = TypeVar("T")

BUCKET = 1 << 24  # gradient entries sent at once: 64 MiB


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float | None) -> torch.Tensor:
    """Scale the gradients to a norm of at most ``limit``; returns the norm they had.

    Where that is not finite they are spoilt: the update is not to be made.
    """
    trained = [p for p in parameters if p.grad is not None]
    norm = entire(torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None]))
    if limit is not None and trained:
        torch.nn.utils.clip_grads_with_norm_(trained, limit, norm)
    return norm


class Whole:
    """Every rank holds the whole model: what is done once, the first one does. (`sharding.Shared`: each has a part.)"""

    sharded = False  # whether every rank has to run the whole model in every step
    together: Callable[[], AbstractContextManager[None]] = nullcontext  # around what computes gradients
    batches, clip = staticmethod(TrainingData.batches), staticmethod(clip_gradients)

    def __init__(self, checkpoints: Path, ranks: Ranks) -> None:
        self.checkpoints, self.ranks = checkpoints, ranks

    def build(self, spec: ModelSpec) -> tuple[Any, Any]:
        """``(model, processor)`` that a stage starts from."""
        return build_model(spec, self.ranks.device)

    def begin(self, model: WeftForConditionalGeneration, parts: list[TrainedPart], half: bool) -> list[TrainedPart]:
        """Before a stage: the parts that train in it, as they are held."""
        kept = ASKED["kept"](model) if half else nullcontext()
        self.together = lambda: kept
        return parts

    def add(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Gradients become their sums over the ranks."""
        add_gradients(parameters.values(), self.ranks)

    def prepared(self, work: Callable[[], T]) -> T | None:
        """What an evaluation needs, made by those who take part in it."""
        return self.ranks.lead(work)

    def judged(self, model: WeftForConditionalGeneration, work: Callable[[], T]) -> T | None:
        """An evaluation, by those who take part in it."""
        return self.ranks.lead(work)

    def loss(self, model: WeftForConditionalGeneration, data: TrainingData, precision: Precision) -> float:
        """The mean over the labels of all batches."""
        total, labels = 0.0, 0
        for batch in data.batches():
            if batch.labels:
                total += float(batch_loss(model, batch, precision)) * batch.labels
                labels += batch.labels
        return total / max(labels, 1)

    def save(
        self, state: dict[str, Any], tensors: Callable[[], Sequence[dict[str, Any]]], prune: Callable[[], None]
    ) -> None:
        """Writes a checkpoint: of ``tensors()`` the weights and the optimizer's."""

        def write() -> None:
            prune()
            ckpt.save(self.checkpoints, state, *tensors())
            prune()

        self.ranks.lead(write)

    def look(self) -> None:
        """Between updates: what was begun may have ended."""

    def wait(self) -> None:
        """Until all that was begun has ended."""

    def leave(self, model: WeftForConditionalGeneration, processor: Any, path: Path, last: bool) -> None:
        """Writes the model that a stage leaves, LoRA merged; a later one (not ``last``) goes on with it as written."""
        merge, save = ASKED["gated"].ENDS if model.gate else (merge_lora, save_model)
        merge(model)
        self.ranks.lead(partial(save, model, processor, path))
        if not last and not self.ranks.first:
            round_as_saved(model)


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


def entire(value: torch.Tensor) -> torch.Tensor:
    """All of it, on every rank, which all call this together."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for p in parameters:
        if bucket and sum(b.numel() for b in bucket) + p.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket
