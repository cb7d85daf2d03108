"""Autocast's own work, done once: what several layers read is cast for all of them together."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

TOGETHER = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"})  # linear layers that read one input


def cast_once(model: nn.Module) -> None:
    """Under autocast, what queries, keys and values are made of is cast once before them; and of gate and up.

    The forward pass gives the same bits, and the gradient of that input is added up in the lower precision.
    """
    for module in model.modules():
        names = {name for name, _ in module.named_children()}
        if any(each <= names for each in TOGETHER):
            module.register_forward_pre_hook(_cast, with_kwargs=True)


def _cast(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    given = args[0] if args else kwargs.get("hidden_states")
    if not isinstance(given, torch.Tensor) or given.dtype != torch.float32:
        return None
    kind = given.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return None
    given = given.to(torch.get_autocast_dtype(kind))
    return ((given, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": given})
