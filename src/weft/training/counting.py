"""How many parameters a stage would train, from the shapes of a model that nothing is done to.

Says what `parts.apply_parts` makes, without adapters being made: a tenth of the time for a large model, which can then
be one and the same for every stage.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from weft.models.modeling import WeftForConditionalGeneration
from weft.training.outline import Counted, Layer, Part, count
from weft.training.parts import linears, tables
from weft.training.recipe import PART_NAMES, Stage


def layers_of(module: nn.Module) -> frozenset[Layer]:
    """Every module of a part by its name."""
    adapted = {name for name, _ in linears(module)}
    found = []
    for name, layer in module.named_modules():
        weight = getattr(layer, "weight", None)
        shape = weight.shape if isinstance(weight, nn.Parameter) else ()
        found.append(Layer(name, name in adapted, *((shape[0], shape.numel()) if shape else (0, 0))))
    return frozenset(found)


def count_trained(model: WeftForConditionalGeneration, stage: Stage, tokens: Sequence[int] = ()) -> list[Counted]:
    """Of each part of ``model`` (as it is built: on the meta device, constants without a gradient) that trains.

    ``tokens``: the dialect's own, whose rows train beside LoRA. Raises WeftError as `apply_parts` does.
    """
    parts = []
    for name in PART_NAMES:
        for module in model.part(name):
            sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
            parts.append(Part(name, sum(n for n, _ in sizes), sum(n for n, on in sizes if on), "", layers_of(module)))
    modules = dict(model.language_model.named_modules())
    rows = sum(modules[name].weight.shape[1] for name in tables(model.language_model))
    return count(parts, stage, len(tokens) * rows)
