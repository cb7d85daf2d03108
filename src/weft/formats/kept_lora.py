"""The LoRA of an import, not folded in: an adapter folder with its base inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from weft.formats.lora import Update
from weft.models.adapter_folder import write_adapter
from weft.models.adapters import PREFIX


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
