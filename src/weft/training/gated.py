"""Training LoRA for media alone (`models.gate`): it goes on from stage to stage, and is left beside its base."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

from peft.tuners.lora import LoraLayer
from torch import nn

from weft.conversation import WeftError
from weft.models import gate
from weft.models.adapter_folder import write_adapter
from weft.models.adapters import merge_lora
from weft.training.export import kept_dtype, save_pretrained, saving
from weft.training.export_adapter import adapter_of
from weft.training.recipe import Lora, Stage

BASE = re.compile(r"\.(token_adapter\.)?base_layer(?=\.)")


def switch(model: Any, on: bool) -> None:
    """Turns it on for LoRA that is to come; or off, where LoRA that is there is merged and applies to all."""
    if not on and model.gate is not None:
        merge_lora(model)
        gate.remove(model)
        model._hf_peft_config_loaded = False  # by which transformers would save an adapter
    model.config.lora_for_media = on


def begin(model: Any, stage: Stage) -> None:
    """A stage of a model that is to have it so. Raises `WeftError` where its language model trains in full."""
    language = stage.parts.get("language")
    if language is not None and language.train == "full":
        raise WeftError(
            f'stage "{stage.name}": lora_for_media keeps the language model as it is for text alone, and this stage '
            "trains it in full; train it through LoRA, or set model.lora_for_media to false"
        )
    gate.install(model)


def go_on(module: nn.Module, lora: Lora, tokens: Any) -> None:
    """LoRA that the language model has trains on: its own rank, scale and layers count, and the ``dropout`` of a stage;
    its rows of tables where ``tokens`` are to train."""
    for name, p in module.named_parameters():
        p.requires_grad_("lora_" in name or (bool(tokens) and "trainable_tokens_delta" in name))
    for layer in module.modules():
        if isinstance(layer, LoraLayer):
            (active,) = layer.active_adapters
            layer.lora_dropout[active] = nn.Dropout(lora.dropout) if lora.dropout else nn.Identity()


def save_gated(model: Any, processor: Any, path: Path) -> None:
    """Writes ``path`` whole or not at all: the language model's LoRA as an adapter, and all else as its ``base/``;
    weights in the type they came in."""
    with saving(model, path) as folder:
        tensors, fields = adapter_of(model, [])
        write_adapter(folder, tensors, {**fields, "base_model_name_or_path": "base"})
        own = copy.deepcopy(model.config)
        own.dtype = kept_dtype(model)
        own.save_pretrained(folder)
        weights = {BASE.sub("", n): v for n, v in model.state_dict().items() if "lora_" not in n and "_delta" not in n}
        if model.config.text_config.tie_word_embeddings:
            weights.pop("language_model.lm_head.weight", None)
        adapted, model._hf_peft_config_loaded = getattr(model, "_hf_peft_config_loaded", False), False
        save_pretrained(model, folder / "base", state_dict=weights)
        model._hf_peft_config_loaded = adapted
        for place in (folder, folder / "base"):
            processor.save_pretrained(place)


ENDS = gate.merge_others, save_gated  # what is merged where a stage ends, and what writes its model
