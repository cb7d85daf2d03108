"""LoRA as published checkpoints hold it, added to the weights that it changes (`kept_lora`: kept beside them)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from weft.formats.checkpoints import CheckpointError, Output, Tensors


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
