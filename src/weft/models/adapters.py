"""LoRA in a model, merged into its weights. What the folder of an adapter needs is in `adapter_folder`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from weft.conversation import WeftError
from weft.named import Named

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # peft's name for the model inside a PeftModel
# What the folder of an adapter needs that is to be used.
FOLDER = Named[Callable[..., Any]](
    {name: f"weft.models.adapter_folder:{name}" for name in ("base", "lost", "putting_on", "check_trainable")}
)


class AdapterError(WeftError):
    """An adapter without its base, or of a kind that cannot be loaded, merged or written."""


def is_adapter(name: str) -> bool:
    return (Path(name) / CONFIG).is_file()


def adapter_base(name: str) -> tuple[str, bool]:
    """The folder or hub name of the weights, and whether ``name`` is an adapter on top of them."""
    return (FOLDER["base"](name), True) if is_adapter(name) else (name, False)


def merge_lora(
    model: nn.Module, around: Callable[[Any], AbstractContextManager[None]] = lambda _: nullcontext()
) -> int:
    """Add every adapter into the weights it adapts and take it out; returns how many there were.

    Each layer is merged within the context that ``around`` gives for it.
    """
    from peft.tuners.lora import LoraLayer
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper

    tied = {id(m) for m in model.modules() if isinstance(m, TrainableTokensLayer) and m.tied_adapter is not None}
    kinds = (LoraLayer, TrainableTokensWrapper, ModulesToSaveWrapper)
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, kinds)]
    for name, wrapped in found:
        if isinstance(wrapped, ModulesToSaveWrapper):
            base: Any = wrapped.modules_to_save["default"]
        else:
            layer = wrapped.token_adapter if isinstance(wrapped, TrainableTokensWrapper) else wrapped
            if id(layer) not in tied:  # a tied head has its rows from the embedding
                with around(layer):
                    layer.merge(safe_merge=True)
            base = layer.get_base_layer()
        base.requires_grad_(False)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, base)
    for module in model.modules():
        if hasattr(module, "peft_config"):
            delattr(module, "peft_config")
    return len(found)
