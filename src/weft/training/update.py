"""The gradient of one update, summed over micro-steps so that their grouping is immaterial.

What is learned is a list of objectives, of which the plain one is `NextTokens`. The host does not wait for the device
until `read` is asked for what an update came to.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch

from weft.data.loader import Batch
from weft.models.encoders import INPUTS
from weft.models.loss import cross_entropy, loss_at, next_tokens, sent
from weft.models.modeling import WeftForConditionalGeneration
from weft.training.ranks import ALONE, Ranks

Precision = Literal["float32", "bfloat16"]
# What stays on the CPU, where the model counts it without a wait.
COUNTED = ("input_ids", "segment_lengths", "feature_lengths")


def mixed_seed(*numbers: int) -> int:
    """One 63-bit seed from several whole numbers."""
    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> np.uint64(1))


class MicroStep:
    """A batch on its way through the model; what objectives ask for is computed once."""

    def __init__(self, model: WeftForConditionalGeneration, batch: Batch) -> None:
        self.model, self.batch = model, batch
        device = next(model.parameters()).device
        here = (*COUNTED, *(INPUTS[part] for part in model.recall))
        inputs = batch.inputs or {"input_ids": torch.zeros(1, 1, dtype=torch.long)}  # every sample was left out
        self.inputs = {k: v if k in here else sent(v, device) for k, v in inputs.items() if k != "labels"}

    @cached_property
    def hidden_BLD(self) -> torch.Tensor:
        """The language model's last hidden states."""
        return self.model.last_hidden(**self.inputs)


class Objective(Protocol):
    """Something to learn: a loss that is a mean over all that it counts in an update, on all ranks."""

    @property
    def name(self) -> str:
        """In the log; that of the first objective is "loss"."""

    @property
    def weight(self) -> float: ...

    def counts(self, batch: Batch) -> Sequence[float]:
        """How much there is to learn in a batch; where all are 0 it is not asked for its loss."""

    def watching(self, model: WeftForConditionalGeneration) -> AbstractContextManager[Any]:
        """Open while the model works on a batch; gives what `loss` is to have of that."""

    def loss(self, step: MicroStep, watched: Any, among: Sequence[float]) -> torch.Tensor:
        """A batch's share of the mean over ``among``, the `counts` of the whole update."""


@dataclass(frozen=True)
class NextTokens:
    """Cross-entropy of the next token, a mean over labels."""

    label_smoothing: float = 0.0
    name: ClassVar = "loss"
    weight: ClassVar = 1.0

    def counts(self, batch: Batch) -> tuple[float, ...]:
        return (batch.labels,)

    def watching(self, model: WeftForConditionalGeneration) -> AbstractContextManager[None]:
        return nullcontext()

    def loss(self, step: MicroStep, watched: None, among: Sequence[float]) -> torch.Tensor:
        batch, model = step.batch, step.model
        places_N, targets_N = next_tokens(batch.inputs["labels"], batch.inputs.get("segment_lengths"))
        loss, vocabulary = cross_entropy(model.logits, self.label_smoothing), model.config.text_config.vocab_size
        total = loss_at(places_N, step.hidden_BLD, loss, vocabulary, targets_N, *model.along(places_N))
        return total / len(places_N) * (batch.labels / among[0])


def batch_loss(model: WeftForConditionalGeneration, batch: Batch, precision: Precision) -> torch.Tensor:
    """Mean loss over the labels of a batch that has some."""
    with _autocast(model, precision):
        return NextTokens().loss(MicroStep(model, batch), None, (batch.labels,))


def backward(
    model: WeftForConditionalGeneration,
    micro: Sequence[Batch],
    objectives: Sequence[Objective] = (NextTokens(),),
    *,
    precision: Precision,
    seed: Sequence[int] = (0,),
    ranks: Ranks = ALONE,
    sharded: bool = False,
    meter: AbstractContextManager[Any] | None = None,
) -> dict[str, torch.Tensor]:
    """Add the gradient of the objectives over the micro-steps; returns this rank's share of each loss, by name.

    In a plain run there is one objective, `NextTokens`, and this is: for each micro-step the loss of its labels over
    the number of all labels of the update, and its gradient.

    Each micro-step counts by what it has to learn, so one batch, the same in parts, and the same packed give one
    gradient. Objectives that have nothing to learn on any rank are left out, but for the first. Dropout is drawn from
    ``seed`` and the micro-step's place: nothing of torch's generator need be saved to resume. A micro-step that reaches
    no trained weight (text only, while an encoder trains) adds nothing. ``sharded``: it runs all the same, for ranks
    that share the weights do each step together. ``meter`` is open while the model works forward.
    """
    counts, among = counted(objectives, micro, ranks)
    losses: list[list[torch.Tensor]] = [[] for _ in objectives]
    for place, batch in enumerate(micro):
        torch.manual_seed(mixed_seed(*seed, ranks.place(place)))
        asked = [number for number, each in enumerate(counts) if any(each[place])]
        with ExitStack() as stack:
            watched = [stack.enter_context(objectives[number].watching(model)) for number in asked]
            stack.enter_context(_autocast(model, precision))
            stack.enter_context(meter or nullcontext())
            step, weighted = MicroStep(model, batch), []
            if sharded:
                weighted.append(0.0 * step.hidden_BLD.float().sum())
            for number, seen in zip(asked, watched, strict=True):
                loss = objectives[number].loss(step, seen, among[number])
                losses[number].append(loss.detach())
                weighted.append(objectives[number].weight * loss)
        if weighted and (total := torch.stack(weighted).sum()).requires_grad:
            total.backward()
    nothing = torch.zeros((), dtype=torch.float64, device=next(model.parameters()).device)
    return {
        objective.name: torch.stack([loss.double() for loss in found]).sum() if found else nothing
        for number, (objective, found) in enumerate(zip(objectives, losses, strict=True))
        if number == 0 or any(among[number])
    }


def counted(
    objectives: Sequence[Objective], micro: Sequence[Batch], ranks: Ranks
) -> tuple[list[list[Sequence[float]]], list[list[float]]]:
    """How much each objective has to learn: in each micro-step here, and in the whole update on all ranks."""
    counts = [[objective.counts(batch) for batch in micro] for objective in objectives]
    own = [[sum(column) for column in zip(*each, strict=True)] for each in counts]
    whole = iter(ranks.total([count for each in own for count in each]))
    return counts, [[next(whole) for _ in each] for each in own]


def _autocast(model: WeftForConditionalGeneration, precision: Precision) -> AbstractContextManager[Any]:
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def read(numbers: dict[str, torch.Tensor]) -> dict[str, float]:
    """What lies on the device, waited for once."""
    device = next(iter(numbers.values())).device
    together = torch.stack([number.to(device, torch.float64) for number in numbers.values()])
    return dict(zip(numbers, together.tolist(), strict=True))
