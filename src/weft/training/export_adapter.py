"""The adapter that a run leaves in place of a model: what was trained, beside the name of its base."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils.other import TrainableTokensWrapper
from torch import nn

from weft.conversation import WeftError
from weft.files import whole_folder
from weft.models.adapter_folder import write_adapter
from weft.models.adapters import PREFIX
from weft.models.modeling import WeftForConditionalGeneration
from weft.models.processing import WeftProcessor
from weft.training.build import build_model
from weft.training.export import kept_dtype, save_pretrained
from weft.training.marks import NOTED
from weft.training.parallel import entire
from weft.training.recipe import ModelSpec, Stage


def adapter_saver(
    model: Any, processor: WeftProcessor, path: Path, start: ModelSpec, stage: Stage, inside: bool = False
) -> Callable[[], None]:
    """Gathers, on all ranks at once, what one of them writes where it calls what this gives.

    Write only what the stage trained: LoRA as peft's files, parts trained in full as its ``modules_to_save``.

    The base is named where it is a checkpoint (``start.base``; a folder by its whole path, for the adapter may be used
    from anywhere), and else, or where ``inside`` says so, written beside the adapter as ``base/``, so that the folder
    is whole in itself.
    """
    whole = [n for n in stage.parts if _trains_whole(model.part(n))]
    modules = ["language_model" if n == "language" else n for n in whole]
    tensors, config = adapter_of(model, modules)
    inside = inside or start.base is None or start.lora_for_media is False  # which may have merged what the base had
    named = str(Path(start.base).absolute()) if start.base and Path(start.base).is_dir() else start.base
    config["base_model_name_or_path"] = "base" if inside else named
    return partial(_write_adapter, model, processor, path, start, inside, tensors, config)


def adapter_of(model: Any, modules: list[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of an adapter and its configuration, but for the name of its base: the model's LoRA, rows that train
    beside it, and whole ``modules``. All ranks call this together."""
    layers = {name: m for name, m in model.named_modules() if isinstance(m, LoraLayer)}
    if not layers:
        raise WeftError("--adapter-only: no part of this run trains through LoRA; train with --lora, or save it whole")
    ranks = {name: m.r["default"] for name, m in layers.items()}
    alphas = {name: m.lora_alpha["default"] for name, m in layers.items()}
    usual = max(set(ranks.values()), key=list(ranks.values()).count)
    alpha = max(set(alphas.values()), key=list(alphas.values()).count)
    rows = {
        name: m
        for name, m in model.named_modules()
        if isinstance(m, TrainableTokensWrapper) and m.token_adapter.tied_adapter is None
    }
    config: dict[str, Any] = {
        "r": usual,
        "lora_alpha": alpha,
        "rank_pattern": {n: r for n, r in ranks.items() if r != usual},
        "alpha_pattern": {n: a for n, a in alphas.items() if a != alpha},
        "target_modules": sorted(layers),
        "trainable_token_indices": {n: list(m.token_adapter.token_indices["default"]) for n, m in rows.items()} or None,
        "modules_to_save": modules or None,
    }
    tensors = {
        PREFIX + name.replace(".default", ""): entire(value.detach()).contiguous().clone()
        for name, value in model.state_dict().items()
        if "lora_" in name
        or ("trainable_tokens_delta" in name and name.split(".token_adapter.")[0] in rows)
        or any(name.startswith(f"{m}.") for m in modules)
        or (name.endswith(NOTED) and bool(value))
    }
    return tensors, config


def _write_adapter(
    model: WeftForConditionalGeneration,
    processor: WeftProcessor,
    path: Path,
    start: ModelSpec,
    inside: bool,
    tensors: dict[str, torch.Tensor],
    config: dict[str, Any],
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(path) as folder:
        write_adapter(folder, tensors, config)
        own = copy.deepcopy(model.config)  # by which transformers leaves the folder to weft
        own.dtype = kept_dtype(model)
        own.save_pretrained(folder)
        processor.save_pretrained(folder)
        if inside:
            base, _ = build_model(start)
            save_pretrained(base.to(kept_dtype(base)), folder / "base")
            processor.save_pretrained(folder / "base")


def _trains_whole(modules: list[nn.Module]) -> bool:
    """Whether a part has been trained without LoRA: as the stage says, or because it has nothing to adapt."""
    inside = [m for module in modules for m in module.modules()]
    trained = any(p.requires_grad for module in modules for p in module.parameters())
    return trained and not any(isinstance(m, LoraLayer) for m in inside)
