"""What training in bfloat16 does once for all updates: frozen weights are cast for autocast and kept so."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F


class Kept:
    """While it is open, frozen weights of linear layers are cast for autocast once, not in every forward pass, and LoRA
    takes what it is given as it comes, where peft makes float32 of it and autocast its own type again.

    The same bits. No more memory at its height than with a cast each time, for the backward pass needs those too; with
    activation checkpointing half of those weights more.
    """

    def __init__(self, model: nn.Module) -> None:
        self.open, self.cast_L = False, dict[nn.Module, torch.Tensor]()
        self.adapted = [m for m in model.modules() if hasattr(m, "cast_input_dtype_enabled")]
        for layer in model.modules():
            if type(layer) is nn.Linear and not layer.weight.requires_grad and layer.weight.device.type == "cpu":
                layer.forward = partial(self.linear, layer)  # type: ignore[method-assign]

    def __enter__(self) -> None:
        self.set(True)

    def __exit__(self, *_: object) -> None:
        self.set(False)

    def set(self, is_open: bool) -> None:
        self.open = is_open
        for layer in self.adapted:
            layer.cast_input_dtype_enabled = not is_open  # type: ignore[assignment]

    def linear(self, layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        if not self.open or not torch.is_autocast_enabled("cpu"):
            return F.linear(x, layer.weight, layer.bias)
        if layer not in self.cast_L:
            self.cast_L[layer] = layer.weight.to(torch.get_autocast_dtype("cpu"))
        return F.linear(x, self.cast_L[layer], layer.bias)
