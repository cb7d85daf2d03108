"""What training in bfloat16 does once for all updates, or in one step where others take three: frozen weights are cast
for autocast and kept so, and what LoRA adds is scaled while it is narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from weft.models.gate import scaled
from weft.training.passes import Passes


class Kept:
    """While it is open, frozen weights of linear layers are cast for autocast once, not in every forward pass, and LoRA
    takes what it is given as it comes, where peft makes float32 of it and autocast its own type again. The same bits.

    LoRA's product is scaled at its rank's width, not at the layer's, and added to the layer's output as it is made: two
    passes less over each output, forward and backward, and one rounding in place of three.

    No more memory at its height than with a cast each time, for the backward pass needs those too; with
    activation checkpointing half of those weights more.
    """

    def __init__(self, model: nn.Module) -> None:
        self.open, self.cast_L, self.passes = False, dict[nn.Module, torch.Tensor](), Passes(model)
        self.adapted = [m for m in model.modules() if hasattr(m, "cast_input_dtype_enabled")]
        for layer in model.modules():
            if type(layer) is nn.Linear and not layer.weight.requires_grad and layer.weight.device.type == "cpu":
                layer.forward = partial(self.linear, layer)  # type: ignore[method-assign]
        for layer in self.adapted:
            base = getattr(layer, "base_layer", None)
            if type(base) is nn.Linear and base.weight.device.type == "cpu":
                usual: Any = layer.forward
                if getattr(getattr(usual, "func", None), "__func__", None) is Kept.adapted_linear:
                    usual = usual.args[1]  # of the stage before, whose weights go with it
                layer.forward = partial(self.adapted_linear, layer, usual)

    def __enter__(self) -> None:
        self.set(True)

    def __exit__(self, *_: object) -> None:
        self.set(False)

    def set(self, is_open: bool) -> None:
        self.open = is_open
        self.passes.set(is_open)
        for layer in self.adapted:
            layer.cast_input_dtype_enabled = not is_open  # type: ignore[assignment]

    def linear(self, layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        if not self.open or not torch.is_autocast_enabled("cpu"):
            return F.linear(x, layer.weight, layer.bias)
        if layer not in self.cast_L:
            self.cast_L[layer] = layer.weight.to(torch.get_autocast_dtype("cpu"))
        return F.linear(x, self.cast_L[layer], layer.bias)

    def adapted_linear(
        self, layer: Any, usual: Callable[..., torch.Tensor], x: torch.Tensor, **more: Any
    ) -> torch.Tensor:
        """``usual``: the layer's own way, for all but one plain adapter."""
        name, *others = layer.active_adapters or [""]
        plain = name in layer.lora_A and not (others or more or layer.merged or layer.disable_adapters)
        if not self.open or not torch.is_autocast_enabled("cpu") or not plain or layer.lora_variant.get(name):
            return usual(x, **more)
        up = layer.lora_B[name]
        if up.bias is not None:
            return usual(x, **more)
        out = layer.base_layer(x)
        if (gate := getattr(layer, "gate", None)) is not None and gate.where is False:
            return out  # type: ignore[no-any-return]
        narrow = scaled(layer, x, layer.lora_A[name](layer.lora_dropout[name](x)))
        mixed = torch.addmm(out.flatten(0, -2), narrow.flatten(0, -2), up.weight.t())
        return mixed.view(out.shape)
