"""LoRA of the language model for media alone: a token has it from the first picture or sound of its conversation on.

Before it, and where a conversation is text alone, tokens are what the language model makes of them without LoRA and
without the rows of its tables that train beside it (Phi-4-multimodal keeps its language model so,
https://arxiv.org/abs/2503.01743). A token looks back only, so this depends on what was said so far and on nothing
later: a packed sample, a row of a batch, a turn that goes on from kept keys and values and the conversation in one
piece agree.

Shapes: B rows, L tokens, n tokens in a row of their own. A mask is True where LoRA applies, [B, L, 1], or one bool
for all of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from weft.conversation import WeftError
from weft.models.adapters import merge_lora
from weft.models.cache import CACHE
from weft.models.loss import sent
from weft.models.splice import among
from weft.models.table_rows import look_up

Mask = bool | torch.Tensor


class Gate:
    """Of the forward pass under way: ``where`` LoRA applies; ``words`` and ``head``, of what is asked of the tables."""

    def __init__(self, model: Any) -> None:
        self.model, self.ids = model, (model.config.image_token_id, *model.config.audio_ids)
        self.where: Mask = True
        self.coming: Mask | None = None  # ``where``, until the words of that pass are embedded
        self.words: Mask = True
        self.head: Mask = True
        self.on_BL: torch.Tensor | None = None  # as ``where``, unless all of it is True

    def after_media(self, ids_BL: torch.Tensor, segment_lengths_S: torch.Tensor | None = None) -> torch.Tensor:
        """[B, L], where the ids lie: True from the first placeholder of a row, or of a packed sample, on."""
        met_BL = among(ids_BL, self.ids).long().cumsum(-1)
        if segment_lengths_S is None:
            return met_BL > 0
        lengths_S = segment_lengths_S.to(met_BL.device)
        before_S = F.pad(met_BL[0], (1, 0))[lengths_S.cumsum(0) - lengths_S]
        return met_BL > before_S.repeat_interleave(lengths_S)[None]

    def told(self, rows: Sequence[Any], width: int) -> torch.Tensor:
        """[B, L] or [B, 1], as ``adapted`` of `woven`: rows of a running batch, padded on the left to ``width``."""
        if all(row.prompt is None for row in rows):
            return torch.tensor([[row.shown] for row in rows])
        each = [self.after_media(torch.from_numpy(row.prompt.input_ids)[None])[0] for row in rows]
        found_BL = pad_sequence(each, True, False, "left")
        return F.pad(found_BL, (width - found_BL.shape[1], 0), value=False)

    def along(self, places_n: torch.Tensor) -> torch.Tensor:
        """[n]: whether LoRA applied at places of the last pass, rows laid end to end; `logits` is asked with it."""
        if self.on_BL is None:
            return torch.full(places_n.shape, self.where is True, device=self.model.device)
        return self.on_BL.flatten()[sent(places_n, self.on_BL.device)]

    def mask(self, on_BL: torch.Tensor) -> Mask:
        """What ``on_BL`` says, on the model's device."""
        if (every := bool(on_BL.all())) or not on_BL.any():
            return every
        return sent(on_BL[..., None], self.model.device)

    def begin(self, on_BL: torch.Tensor) -> None:
        """A forward pass with LoRA where ``on_BL`` says."""
        self.where = self.mask(on_BL)
        self.on_BL = None if isinstance(self.where, bool) else self.where[..., 0]

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Around a pass that comes between another's forward and backward pass, which reads this again."""
        held = dict(vars(self))
        try:
            yield
        finally:
            vars(self).update(held)


def install(model: Any) -> None:
    """Gives LoRA of the model's language model, and rows that train beside it, a gate; a model that has one keeps it.

    Raises `WeftError` where there is more than one adapter, or one that is no plain LoRA.
    """
    layers = [m for m in model.language_model.modules() if isinstance(m, LoraLayer)]
    if model.gate is not None or not layers:
        return
    if any(len(m.active_adapters) != 1 or m.lora_variant for m in layers):
        raise WeftError("lora_for_media takes one plain LoRA (no DoRA, no second adapter); set it to false")
    gate = model.gate = Gate(model)
    look_up(model.language_model)
    for module in model.language_model.modules():
        if isinstance(module, LoraLayer):
            vars(module)["gate"] = gate  # which `kept` asks
            module.forward = partial(_adapted, module, gate, module.forward)  # type: ignore[attr-defined]
        elif isinstance(module, TrainableTokensLayer):
            module.forward = partial(_looked_up, module, gate, module.forward)  # type: ignore[method-assign]
    model.woven = partial(_woven, model, gate, model.woven)
    model.weave = partial(_weave, gate, model.weave)
    model.logits = partial(_logits, gate, model.logits)
    model.language_model.register_forward_pre_hook(partial(_at_head, gate), with_kwargs=True)
    model.language_model.register_forward_hook(partial(_after, gate))


def merge_others(model: Any) -> None:
    """Merges LoRA of all but the language model, which is of media anyway."""
    for name, part in model.named_children():
        if name != "language_model":
            merge_lora(part)


def remove(model: Any) -> None:
    """The opposite, once LoRA is merged: nothing of a gate is left."""
    model.gate = None
    for name in ("woven", "weave", "logits"):
        vars(model).pop(name, None)
    for hooks in (model.language_model._forward_pre_hooks, model.language_model._forward_hooks):
        for key, hook in list(hooks.items()):
            if getattr(hook, "func", None) in (_at_head, _after):
                del hooks[key]


def scaled(layer: Any, x: torch.Tensor, narrow: torch.Tensor) -> torch.Tensor:
    """LoRA's product at its rank's width, [B, L, r], times the layer's scale, and zero where it does not apply."""
    (name,) = layer.active_adapters
    narrow = narrow * layer.scaling[name]
    where = layer.gate.where if hasattr(layer, "gate") else True
    if isinstance(where, bool):  # who finds it False has no need of this
        return narrow
    if where.shape[:2] != narrow.shape[:2] or narrow.ndim != 3:
        raise WeftError(
            f"lora_for_media: LoRA of a layer that is given {list(x.shape)} for {list(where.shape[:2])} tokens (of an "
            "expert) cannot be kept to some of them; leave it out of lora.targets"
        )
    return narrow * where.to(narrow.dtype)


def _adapted(layer: Any, gate: Gate, usual: Callable[..., Any], x: torch.Tensor, *args: Any, **more: Any) -> Any:
    if layer.merged or layer.disable_adapters or args or more:
        return usual(x, *args, **more)
    out = layer.base_layer(x)
    if gate.where is False:
        return out
    (name,) = layer.active_adapters
    x = layer._cast_input_dtype(x, layer.lora_A[name].weight.dtype)
    narrow = layer.lora_A[name](layer.lora_dropout[name](x))
    return (out + layer.lora_B[name](scaled(layer, x, narrow))).to(out.dtype)


def _looked_up(layer: Any, gate: Gate, usual: Callable[..., Any], given: torch.Tensor) -> torch.Tensor:
    """Rows of a table, or logits of a head, which is tied to one or has its own."""
    table = isinstance(layer.base_layer, nn.Embedding)
    where = gate.words if table else gate.head
    if where is True or layer.merged or layer.disable_adapters:
        return usual(given)  # type: ignore[no-any-return]
    base = layer.base_layer(given)
    if where is False:
        return base  # type: ignore[no-any-return]
    if table or getattr(layer.base_layer, "bias", None) is not None:
        return torch.where(where, usual(given), base)
    (name,) = layer.active_adapters
    ids_R = torch.tensor(layer.token_indices[name], device=given.device)
    own_R = F.linear(given, layer.trainable_tokens_delta[name].to(layer.base_layer.weight.dtype))
    return base.index_copy_(-1, ids_R, torch.where(where, own_R.to(base.dtype), base[..., ids_R]))  # type: ignore[no-any-return]


def _woven(model: Any, gate: Gate, usual: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``adapted`` [B, K]: whether LoRA applies from the beginning of the row on, the last of it for all that follow;
    left out, it is what the ids say, and what the cache says of those before."""
    adapted = kwargs.pop("adapted", None)
    bound = inspect.signature(usual).bind(*args, **kwargs).arguments
    ids, embeds = bound.get("input_ids"), bound.get("inputs_embeds")
    media = bound.get("pixel_values") is not None or bound.get("input_features") is not None
    more = bound.get("kwargs", {})
    past = more.get("cache") if more.get("cache") is not None else more.get("past_key_values")
    begun = int(past.get_seq_length()) if past is not None else 0
    given = embeds if embeds is not None else ids
    if given is None:
        return usual(*args, **kwargs)  # which says that it needs something
    if adapted is not None:
        at_L = torch.arange(begun, begun + given.shape[1], device=adapted.device).clamp(max=adapted.shape[1] - 1)
        on_BL = adapted[:, at_L]
    elif ids is None:  # embeddings do not say what they are of
        on_BL = torch.ones(given.shape[:2], dtype=torch.bool, device=given.device)
    else:
        on_BL = gate.after_media(ids, bound.get("segment_lengths"))
        if begun:
            on_BL = on_BL & media  # else a placeholder is a mere token
            if (before_B1 := getattr(past, "adapted_B1", None)) is not None:
                on_BL = on_BL | before_B1.to(on_BL.device)
    gate.begin(on_BL)
    gate.coming, gate.words = gate.where, gate.where if begun and not media else True
    try:
        return usual(*args, **kwargs)
    finally:
        gate.coming, gate.words = None, True


def _weave(gate: Gate, usual: Callable[..., Any], ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """Words are embedded here; media, and the places in them that are named by words, elsewhere, and with LoRA."""
    lengths = args[2] if len(args) > 2 else kwargs.get("segment_lengths")
    gate.words = gate.mask(gate.after_media(ids, lengths)) if gate.coming is None else gate.coming
    try:
        return usual(ids, *args, **kwargs)
    finally:
        gate.words = True


def _logits(gate: Gate, usual: Callable[..., Any], hidden: torch.Tensor, on_n: torch.Tensor | None = None) -> Any:
    if on_n is not None:  # a GPU is not waited for
        gate.head = gate.mask(on_n) if on_n.device.type == "cpu" else on_n[..., None]
    try:
        return usual(hidden)
    finally:
        gate.head = True


def _at_head(gate: Gate, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
    kept = kwargs.get("logits_to_keep", 0)
    which = slice(-kept, None) if isinstance(kept, int) else kept
    gate.head = gate.where if isinstance(gate.where, bool) else gate.where[:, which]


def _after(gate: Gate, module: nn.Module, args: Any, out: Any) -> None:
    gate.head = True
    cache = out.get(CACHE) if hasattr(out, "get") else None
    if cache is not None:
        rows = 1 if gate.on_BL is None else len(gate.on_BL)
        last = torch.full((rows, 1), gate.where is True) if gate.on_BL is None else gate.on_BL[:, -1:]
        cache.adapted_B1 = last
