"""Rows of an embedding table of which some train beside LoRA (`peft`'s trainable tokens), without the table.

`peft` puts the trained rows into a copy of the whole table whenever it is asked for one, and the gradient is a table
too. A model whose media carry places asks half a dozen times an update: of SmolLM2, a quarter of its time.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import nn
from torch.nn import functional as F


def rows(layer: Any, ids: torch.Tensor, padding: int | None = None) -> torch.Tensor:
    """[..., W]: what the merged table of peft's ``layer`` has at ``ids``. The row ``padding`` gets no gradient."""
    fixed, (adapter,) = F.embedding(ids, layer.base_layer.weight), layer.active_adapters
    trained_RW, which = layer.trainable_tokens_delta[adapter], layer.token_indices[adapter]
    known, place_V = getattr(layer, "_known", None), None
    if known is not None and known[0] == which:  # else another adapter is active than the last time
        place_V = known[1]
    if place_V is None or place_V.device != ids.device:
        place_V = torch.full((len(layer.base_layer.weight),), -1, device=ids.device)
        place_V[torch.tensor(which, device=ids.device)] = torch.arange(len(which), device=ids.device)
        layer._known = list(which), place_V
    at, pad = place_V[ids], which.index(padding) if padding in which else None
    trained = F.embedding(at.clamp(min=0), trained_RW, padding_idx=pad)
    return torch.where((at >= 0)[..., None], trained.to(fixed.dtype), fixed)


def table_rows(part: Any, ids: torch.Tensor) -> torch.Tensor:
    """[..., W]: rows of a table or head, trained beside LoRA or not."""
    layer = getattr(part, "token_adapter", None)
    if layer is None or layer.merged:
        return part.weight[ids]  # type: ignore[no-any-return]
    if layer.disable_adapters or len(layer.active_adapters) != 1:  # none, or several, whose rows differ
        active = [] if layer.disable_adapters else layer.active_adapters
        return layer.get_merged_weights(active)[ids]  # type: ignore[no-any-return]
    return rows(layer, ids)


def look_up(module: nn.Module) -> None:
    """Lets embedding tables within a module look rows up so, and the head that is tied to one add theirs to the logits.
    Such as scale what they give stay as they are."""
    for layer in module.modules():
        if not isinstance(layer, TrainableTokensLayer) or type(layer.base_layer) not in (nn.Embedding, nn.Linear):
            continue
        if getattr(layer.base_layer, "bias", None) is None:
            layer.forward = partial(_forward, layer)  # type: ignore[method-assign]


def _forward(layer: Any, given: torch.Tensor) -> torch.Tensor:
    if layer.merged or layer.disable_adapters or len(layer.active_adapters) != 1:
        return TrainableTokensLayer.forward(layer, given)  # type: ignore[no-any-return]
    if type(layer.base_layer) is nn.Embedding:
        return rows(layer, given, layer.base_layer.padding_idx)
    logits_V, (adapter,) = layer.base_layer(given), layer.active_adapters
    own_R = F.linear(given, layer.trainable_tokens_delta[adapter].to(layer.base_layer.weight.dtype))
    return logits_V.index_copy_(-1, torch.tensor(layer.token_indices[adapter], device=given.device), own_R)
