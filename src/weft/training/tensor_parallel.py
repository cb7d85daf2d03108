"""Several ranks compute each layer of the language model together, by the plan that `transformers` models carry.

Such neighbours work on the same rows: the first of them reads, and sends the others what it has read. Each has some of
the heads and of the inner width of the MLP, and what they make is added up twice a layer, forward and backward. What
the plan does not name (norms, embeddings, encoders, connectors) each computes alike. FSDP2 (`sharding`) shares all of
that out among those who have the same place among neighbours.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn import functional as F

from weft.conversation import WeftError
from weft.data.loader import Batch, TrainingData
from weft.models.modeling import WeftForConditionalGeneration
from weft.training.parts import TrainedPart
from weft.training.ranks import Ranks, others
from weft.training.recipe import Recipe
from weft.training.sharding import Shared, axes, own, share_out

logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)  # tells of two gathers in a row

COLUMNS, ROWS, GATHERED, SUMMED = "colwise", "rowwise", "colwise_gather_output", "replicated_with_grad_allreduce"


@dataclass(frozen=True)
class Neighbours(Ranks):
    """Ranks of which ``tensor`` after each other take the same rows: what is counted of them counts once."""

    tensor: int = 1

    @classmethod
    def of(cls, ranks: Ranks, recipe: Recipe) -> Neighbours:
        """Raises `WeftError` where the recipe or the number of ranks does not allow it."""
        tensor, same = recipe.parallel.tensor, {f.name: getattr(ranks, f.name) for f in fields(Ranks)}
        taught = [s.name for s in recipe.stages if s.lessons or any(source.lessons for source in s.mixture)]
        if taught:
            raise WeftError(
                f'parallel.tensor {tensor}: the lessons of stage "{taught[0]}" read whole heads and tables; leave out '
                "the lessons, or parallel.tensor"
            )
        if ranks.world % tensor:
            raise WeftError(f"parallel.tensor {tensor}: {ranks.world} ranks do not come in groups of so many")
        return cls(**same, tensor=tensor)

    def share(self) -> dict[str, int]:
        return {"rank": self.rank // self.tensor, "world": self.world // self.tensor}

    def place(self, micro_step: int) -> int:
        rank, world = self.share().values()
        return micro_step * world + rank

    @property
    def reads(self) -> bool:
        return self.rank % self.tensor == 0

    def total(self, values: Any) -> list[float]:
        return super().total(values if self.reads else [0.0] * len(values))

    def added(self, numbers_n: torch.Tensor) -> torch.Tensor:
        return super().added(numbers_n) / self.tensor

    def gathered(self, items: list[Any]) -> list[Any]:
        return super().gathered(items if self.reads else [])


class Same:
    """What the first of neighbours reads, all of them have: whether a read succeeds, one of them decides."""

    def __init__(self, ranks: Neighbours) -> None:
        self.reads, self.first = ranks.reads, ranks.rank // ranks.tensor * ranks.tensor
        self.group = dist.new_subgroups(group_size=ranks.tensor, backend="gloo")[0]

    def batches(self, own: Iterator[Batch]) -> Iterator[Batch]:
        """``own`` is begun by those who read."""
        try:
            while True:
                given: list[Any] = [None]
                if self.reads:
                    try:
                        given = [next(own, None)]
                    except WeftError as error:
                        given = [str(error)]
                with others():
                    dist.broadcast_object_list(given, self.first, group=self.group)
                if isinstance(given[0], str):
                    raise WeftError(given[0])
                if given[0] is None:
                    return
                yield given[0]
        finally:
            own.close()  # type: ignore[attr-defined]


class Together(Shared):
    """Neighbours compute each layer of the language model together, and hold what all of a place hold of it."""

    ranks: Neighbours

    def __init__(self, checkpoints: Path, ranks: Ranks, recipe: Recipe) -> None:
        neighbours = Neighbours.of(ranks, recipe)
        super().__init__(checkpoints, neighbours, recipe)
        self.same, self.in_parts = Same(neighbours), list[str]()

    def begin(self, model: WeftForConditionalGeneration, parts: list[TrainedPart], half: bool) -> list[TrainedPart]:
        def first(whole: Any) -> None:
            self.in_parts = spread(whole, self.mesh["tensor"])

        return share_out(model, parts, self.mesh, self.ranks, half, first)

    def batches(self, data: TrainingData, **how: Any) -> Iterator[Batch]:  # type: ignore[override]
        return self.same.batches(data.batches(**how))

    def add(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().add(parameters)
        for name in self.in_parts:
            if name in parameters and (gradient := parameters[name].grad) is not None:
                with others():
                    dist.all_reduce(own(gradient), group=self.mesh["tensor"].get_group())

    def clip(self, parameters: Iterable[nn.Parameter], limit: float | None) -> torch.Tensor:  # type: ignore[override]
        """As `parallel.clip_gradients`; torch's own takes no gradients that are not all held by the same ranks."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        norms = [torch.nn.utils.get_total_norm([own(g) for g in gradients if apart(g) == whose]) for whose in (0, 1)]
        alike, once = (norm.double().to(self.ranks.device) ** 2 for norm in norms)
        squares = Ranks.added(self.ranks, once + alike / self.ranks.tensor)
        norm = (squares / self.mesh.size(0)).sqrt().float()
        if limit is not None:
            for gradient in gradients:
                own(gradient).mul_((limit / (norm + 1e-6)).clamp(max=1.0))
        return norm


def apart(value: torch.Tensor) -> bool:
    """Whether each of neighbours has another part of it."""
    return isinstance(value, DTensor) and "tensor" in axes(value) and value.placements[-1].is_shard()


def spread(model: Any, mesh: DeviceMesh) -> list[str]:
    """Gives each of neighbours its part of the layers that the language model's plan names, LoRA on them included.

    Returns the names of weights that are whole on each and of whose gradient each has a part. Raises
    `WeftError` where there is no plan, or heads do not come in so many equal groups.
    """
    language, count, summed, found = model.language_model, mesh.size(), [], list(planned(model.language_model))
    if found[-1][2] == GATHERED and found[-1][1].out_features % count:
        found.pop()  # a head of any number of rows: it stays whole
    for name, module, style in found:
        if style != SUMMED:
            _check(name, language.get_submodule(name.rpartition(".")[0]), _linear(module), style, count)
    learned = {name: p.requires_grad for name, p in model.named_parameters()}
    for name, module, style in found:
        if style == SUMMED:
            summed += [f"language_model.{name}.{inner}" for inner, _ in module.named_parameters()]
            continue
        adapted = "lora_A" if style == ROWS else "lora_B"
        kind: Any = RowwiseParallel if style == ROWS else ColwiseParallel
        way = kind(output_layouts=Replicate()) if style == GATHERED else kind()
        for each in (_linear(module), *getattr(module, adapted, {}).values()):
            parallelize_module(each, mesh, way, src_data_rank=None)
        if style == ROWS:
            dropouts: Any = getattr(module, "lora_dropout", {})
            for key, dropout in dropouts.items():
                if isinstance(dropout, nn.Dropout):
                    dropouts[key] = PartDropout(dropout.p, count, mesh.get_local_rank())
    for name, p in model.named_parameters():
        p.requires_grad_(learned[name])
    return summed


def planned(language: Any) -> Iterator[tuple[str, Any, str]]:
    """``(name, module, style)`` of what the plan of a language model names, layers first; then its head."""
    prefix, plan = language.base_model_prefix, getattr(language.config, "base_model_tp_plan", None)
    if not plan:
        raise WeftError(
            f"language model '{language.config.model_type}' carries no plan for tensor parallelism "
            "(base_model_tp_plan); leave out parallel.tensor"
        )
    unknown = set(plan.values()) - {COLUMNS, ROWS, SUMMED}
    if unknown:
        raise WeftError(
            f"language model '{language.config.model_type}' has a plan for tensor parallelism with "
            f"{', '.join(sorted(unknown))}, which is not done here; leave out parallel.tensor"
        )
    if any(module.training and getattr(module, "attention_dropout", 0) for module in language.modules()):
        raise WeftError("attention_dropout is drawn for all heads together: set it to 0, or leave out parallel.tensor")
    ways = [(re.compile(re.escape(f"{prefix}.{key}").replace(r"\*", r"\d+")), style) for key, style in plan.items()]
    for name, module in language.named_modules():
        if style := next((style for way, style in ways if way.fullmatch(name)), None):
            yield name, module, style
    head, table = language.get_output_embeddings(), language.get_input_embeddings()
    # A tied head is the table of embeddings, which stays whole; so does one with rows that train beside LoRA.
    if type(head) is nn.Linear and head.weight is not getattr(table, "weight", None):
        name = next(name for name, module in language.named_modules() if module is head)
        if (getattr(language, "_tp_plan", None) or {}).get(name) == GATHERED:
            yield name, head, GATHERED


def _linear(module: nn.Module) -> Any:
    """The layer itself, where LoRA is around it."""
    return getattr(module, "base_layer", module)


def _check(name: str, around: Any, linear: nn.Module, style: str, count: int) -> None:
    if type(linear) is not nn.Linear:
        raise WeftError(f"parallel.tensor: {name} is a {type(linear).__name__}, and only linear layers are shared out")
    width = linear.in_features if style == ROWS else linear.out_features
    size = getattr(around, "head_dim", 1)
    if width // size % count:
        what = f"{width // size} heads" if size > 1 else f"a width of {width}"
        raise WeftError(
            f"parallel.tensor {count}: {name} has {what}, which do not come in {count} equal parts; take a number that "
            "divides them, or leave it out"
        )


class PartDropout(nn.Module):
    """Dropout of this rank's part of the last axis, by the mask that one process draws for all of it."""

    def __init__(self, p: float, count: int, place: int) -> None:
        super().__init__()
        self.p, self.count, self.place = p, count, place

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return given
        whole = given.new_ones(*given.shape[:-1], given.shape[-1] * self.count)
        return given * F.dropout(whole, self.p).chunk(self.count, -1)[self.place]
