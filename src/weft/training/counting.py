"""How many parameters a stage would train, from the shapes of a model that nothing is done to.

Says what `parts.apply_parts` makes, without adapters being made: a tenth of the time for a large model, which can then
be one and the same for every stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from weft.models.modeling import WeftForConditionalGeneration
from weft.training.parts import lora_targets, tables
from weft.training.recipe import PART_NAMES, Lora, PartTraining, Stage


@dataclass(frozen=True)
class Counted:
    name: str
    trained: int
    added: int  # of these, what is not in the model yet
    how: str  # full, or LoRA with its rank


def count_trained(model: WeftForConditionalGeneration, stage: Stage, tokens: Sequence[int] = ()) -> list[Counted]:
    """Of each part of ``model`` (as it is built: on the meta device, constants without a gradient) that trains.

    ``tokens``: the dialect's own, whose rows train beside LoRA. Raises WeftError as `apply_parts` does.
    """
    counted, seen = [], set[int]()
    for name in PART_NAMES:
        training = stage.parts.get(name, PartTraining())
        trained = added = 0
        for module in model.part(name) if training.train != "frozen" else ():
            if training.train == "lora" and (targets := lora_targets(module, training.lora)):
                rows = tokens if training.dialect_tokens and name == "language" else ()
                added += _adapters(module, targets, training.lora) + _rows(module, rows)
                continue
            for p in module.parameters():
                if p.requires_grad and id(p) not in seen:
                    seen.add(id(p))
                    trained += p.numel()
        if trained + added:
            how = f"LoRA r={training.lora.r}" if training.train == "lora" else "full"
            counted.append(Counted(name, trained + added, added, how))
    return counted


def _adapters(module: nn.Module, targets: Sequence[str], lora: Lora) -> int:
    """Two matrices for each layer: down to the rank, and up from it; for a convolution the first has its shape."""
    found = 0
    for name, layer in module.named_modules():
        if any(name == t or name.endswith(f".{t}") for t in targets) and isinstance(
            weight := getattr(layer, "weight", None), nn.Parameter
        ):
            out = weight.shape[0]
            found += lora.r * (weight.numel() // out + out)
    return found


def _rows(language: Any, tokens: Sequence[int]) -> int:
    if not tokens:
        return 0
    modules = dict(language.named_modules())
    return sum(len(tokens) * modules[name].weight.shape[1] for name in tables(language))
