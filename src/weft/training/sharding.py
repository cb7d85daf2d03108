"""One model shared out among ranks: FSDP2 over its layers, applied from outside. The model itself knows nothing of it.

Each layer of the language model and of the encoders is a unit, and what is left is one more: of every weight, trained
or frozen, a rank holds a slice, with its gradient and the optimizer's state, and has the whole of one unit at a time.
For that every rank has to run the same units in the same order: `training.update` runs the whole model in every
micro-step, and a batch without a picture or a clip runs a blank one that counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from weft.conversation import WeftError
from weft.data.loader import Batch, TrainingData
from weft.models.adapters import merge_lora
from weft.models.modeling import WeftForConditionalGeneration
from weft.training.build import build_model
from weft.training.parallel import Whole, entire
from weft.training.parts import TrainedPart
from weft.training.ranks import Ranks, others
from weft.training.recipe import ModelSpec, Parallel, Recipe
from weft.training.shard_files import ShardWriter, save_shards
from weft.training.update import MicroStep, Precision, batch_loss

T = TypeVar("T")

SENSES = ("vision", "audio")


class Shared(Whole):
    """Each rank holds a slice of every weight."""

    sharded = True

    def __init__(self, checkpoints: Path, ranks: Ranks, recipe: Recipe) -> None:
        super().__init__(checkpoints, ranks)
        self.mesh, self.writer = mesh_of(recipe.parallel, ranks), ShardWriter(checkpoints, ranks)

    def build(self, spec: ModelSpec) -> tuple[Any, Any]:
        return build_once(spec, self.ranks)

    def begin(self, model: WeftForConditionalGeneration, parts: list[TrainedPart], half: bool) -> list[TrainedPart]:
        return share_out(model, parts, self.mesh, self.ranks, half)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Layers fetch their weights from the others while they work, and one of these may be gone."""
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise  # the model's own, such as a full memory
            with others():
                raise

    def add(self, parameters: Mapping[str, nn.Parameter]) -> None:
        forget_unreached(parameters, self.ranks)  # FSDP has added them up

    def prepared(self, work: Callable[[], T]) -> T | None:
        return self.ranks.after_first(work)

    def judged(self, model: WeftForConditionalGeneration, work: Callable[[], T]) -> T | None:
        value = work()  # of all together
        model.reshard()
        return value

    def loss(self, model: WeftForConditionalGeneration, data: TrainingData, precision: Precision) -> float:
        """As `Whole.loss`; then what is no layer stays whole, for answers are made without a call of the model."""
        total, labels = 0.0, 0.0
        for batch in in_step(self.batches(data), self.ranks):
            with self.together():
                if batch.labels:
                    total += float(batch_loss(model, batch, precision)) * batch.labels
                    labels += batch.labels
                else:
                    _ = MicroStep(model, batch).hidden_BLD  # with the others
        total, labels = self.ranks.total([total, labels])
        model.unshard()
        return total / max(labels, 1)

    def save(
        self, state: dict[str, Any], tensors: Callable[[], Sequence[dict[str, Any]]], prune: Callable[[], None]
    ) -> None:
        self.writer.wait()
        self.ranks.lead(prune)
        weights, moments = tensors()
        self.writer.begin(state, {**weights, **moments})

    def look(self) -> None:
        self.writer.look()

    def wait(self) -> None:
        self.writer.wait()

    def leave(self, model: WeftForConditionalGeneration, processor: Any, path: Path, last: bool) -> None:
        merge_lora(model, put_together)
        save_shards(model, processor, path, self.ranks)


def mesh_of(parallel: Parallel, ranks: Ranks) -> DeviceMesh:
    """Ranks by (group that holds the model once, place in it, place among those that compute layers together)."""
    apart = ranks.world // parallel.tensor
    if apart % parallel.replicate:
        what = f"{ranks.world} ranks" + (f", {parallel.tensor} of them together," if parallel.tensor > 1 else "")
        raise WeftError(
            f"parallel.replicate {parallel.replicate}: {what} do not come in so many equal groups; take a divisor, "
            "such as the number of machines"
        )
    shape, names = (parallel.replicate, apart // parallel.replicate, parallel.tensor), ("replicate", "shard", "tensor")
    return init_device_mesh(torch.device(ranks.device).type, shape, mesh_dim_names=names)


def build_once(spec: ModelSpec, ranks: Ranks) -> tuple[WeftForConditionalGeneration, Any]:
    """``(model, processor)``, the model on the first rank's CPU; on the others, without memory or values."""
    if spec.bits:
        raise WeftError(f"a model in {spec.bits} bits is not shared out; leave out parallel, or model.bits")
    built = ranks.lead(partial(build_model, spec))
    given = [(built[0].config, built[1]) if built else None]
    with others():
        dist.broadcast_object_list(given, 0)
    if given[0][0].lora_for_media:  # type: ignore[index]
        raise WeftError("a model whose LoRA is for media alone (lora_for_media) is not shared out; leave out parallel")
    if built:
        return built
    config, processor = given[0]  # type: ignore[misc]
    with torch.device("meta"):
        return WeftForConditionalGeneration(config).float(), processor


def share_out(
    model: WeftForConditionalGeneration,
    parts: Sequence[TrainedPart],
    mesh: DeviceMesh,
    ranks: Ranks,
    half: bool,
    first: Callable[[Any], None] = lambda _: None,
) -> list[TrainedPart]:
    """The model of `build_once`, in which ``parts`` train, shared out; gives the parts as they are then.

    ``half``: layers are gathered in bfloat16, in which autocast would compute them anyway; gradients add up in float32.
    ``first`` is done to the model before.
    """
    whole = {name: value.detach() for name, value in _held(model)} if ranks.first else {}
    first(model)
    mesh = mesh["replicate", "shard"] if mesh.size(0) > 1 else mesh["shard"]
    half_type = torch.bfloat16 if half else None
    layers = MixedPrecisionPolicy(half_type, torch.float32, cast_forward_inputs=False)
    for unit in units(model):
        fully_shard(unit, mesh=mesh, mp_policy=layers)
    fully_shard(model, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Losses are shares of one mean over all ranks, so that gradients are sums. gloo has no other way.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    register_fsdp_forward_method(model, "last_hidden")
    if not ranks.first:
        model.to_empty(device=ranks.device)
    with torch.no_grad(), others():
        for name, value in _held(model):
            _send(whole.get(name), value, ranks)
    model.always_encode = [sense for sense in SENSES if model.part(sense)]
    return [replace(part, parameters={n: model.get_parameter(n) for n in part.parameters}) for part in parts]


def units(model: nn.Module) -> list[nn.Module]:
    """What is gathered at a time: layers of the language model and of encoders, outermost ones."""
    found = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    inner = {id(m) for layer in found for m in layer.modules() if m is not layer}
    return [layer for layer in found if id(layer) not in inner]


@contextmanager
def put_together(module: nn.Module) -> Iterator[None]:
    """The weights of a module are whole meanwhile, on every rank, and what becomes of them is shared out again."""
    held = [(m, name, p) for m in module.modules() for name, p in m.named_parameters(recurse=False)]
    for m, name, p in held:
        m._parameters[name] = nn.Parameter(entire(p).detach(), requires_grad=False)
    yield
    for m, name, p in held:
        if isinstance(p, DTensor):
            whole: Any = m._parameters[name]
            own(p.detach()).copy_(slice_of(whole.detach(), p))
        m._parameters[name] = p


def _held(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _send(whole: torch.Tensor | None, value: torch.Tensor, ranks: Ranks) -> None:
    """Fills each rank's part of ``value`` from what the first rank has of it."""
    if whole is None:
        whole = torch.empty(value.shape, dtype=value.dtype)
    there = whole.to(ranks.device)
    if isinstance(value, DTensor) and value.device_mesh.size() == ranks.world and "tensor" not in axes(value):
        part = distribute_tensor(there, value.device_mesh, value.placements)
        own(value).copy_(own(part))
    else:
        dist.broadcast(there, 0)
        own(value).copy_(slice_of(there, value))


def slice_of(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """What this rank holds of a whole tensor that is shared out as ``like``.

    Of layers that ranks compute together, a rank's part is shared out once more: the last axis of the mesh comes first.
    """
    if not isinstance(like, DTensor):
        return whole
    mesh, place = like.device_mesh, list(like.device_mesh.get_coordinate() or ())
    for axis in reversed(range(mesh.ndim)):
        if (dim := getattr(like.placements[axis], "dim", None)) is not None:
            parts = whole.chunk(mesh.size(axis), dim)
            whole = parts[place[axis]] if place[axis] < len(parts) else whole.narrow(dim, 0, 0)
    return whole


def axes(value: DTensor) -> tuple[str, ...]:
    return value.device_mesh.mesh_dim_names or ()


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
