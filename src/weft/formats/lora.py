"""LoRA as published checkpoints hold it: added to the weights that it changes, or written as an adapter beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from weft.formats.checkpoints import CheckpointError, Output, Tensors
from weft.models.adapters import PREFIX, write_adapter


@dataclass(frozen=True)
class Update:
    """What LoRA adds to a weight: ``scale`` times B [out, r] A [r, in], by the names of both in ``tensors``."""

    tensors: Tensors
    a: str
    b: str
    scale: float

    def pair(self) -> tuple[Tensor, Tensor]:
        return self.tensors[self.a], self.tensors[self.b]

    def onto(self, value: Tensor) -> Tensor:
        """The weight with the update in it, in float32."""
        a, b = self.pair()
        return value.float() + self.scale * (b.float() @ a.float())


def with_lora(outputs: Sequence[Output], lora: Mapping[str, Update], label: str, prefix: str = "") -> list[Output]:
    """``outputs`` with the updates in them, which are named without ``prefix``; ``label`` names what they change."""
    shapes = {o.name: o.shape for o in outputs}
    for name, update in lora.items():
        rows, columns = (update.tensors.shapes.get(n, (0, 0)) for n in (update.b, update.a))
        if prefix + name not in shapes:
            raise CheckpointError(f"the adapter changes {name}, which {label} does not hold")
        if (shape := shapes[prefix + name]) != (rows[0], *columns[1:]):
            raise CheckpointError(f"the adapter for {name} is {rows} x {columns}, for a weight {shape}")

    def updated(output: Output) -> Output:
        update = lora.get(output.name.removeprefix(prefix))
        return output if update is None else replace(output, make=lambda: update.onto(output.make()))

    return [updated(output) for output in outputs]


def write_lora(folder: Path, lora: Mapping[str, Update], prefix: str) -> None:
    """The LoRA of an import as an adapter folder whose base lies inside as ``base/``. Weights are named without
    ``prefix``; all have one rank and scale, as published."""
    tensors: dict[str, Tensor] = {}
    for weight, update in lora.items():
        path = PREFIX + prefix + weight.removesuffix(".weight")
        for part, value in zip("AB", update.pair(), strict=True):
            tensors[f"{path}.lora_{part}.weight"] = value.contiguous()
    one = next(iter(lora.values()))
    rank = one.tensors.shapes[one.a][0]
    targets = sorted(prefix + weight.removesuffix(".weight") for weight in lora)
    fields = {"base_model_name_or_path": "base", "r": rank, "lora_alpha": one.scale * rank, "target_modules": targets}
    write_adapter(folder, tensors, fields)
