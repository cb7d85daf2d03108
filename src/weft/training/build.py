"""A recipe's model: composed from parts, or loaded from a checkpoint. Weights are float32 while they train."""

from __future__ import annotations

from typing import Any

import torch

from weft.conversation import WeftError
from weft.generation.loading import load_parts
from weft.models.adapters import FOLDER, is_adapter
from weft.models.compose import compose
from weft.models.modeling import WeftForConditionalGeneration
from weft.models.processing import WeftProcessor
from weft.training.asked import ASKED
from weft.training.recipe import ModelSpec


def build_model(spec: ModelSpec, device: str = "cpu") -> tuple[WeftForConditionalGeneration, WeftProcessor]:
    """``(model, processor)`` on ``device``; ``model.config.dtype`` says in what type its weights came."""
    parts = {"vision": spec.vision, "audio": spec.audio, "language": spec.language}
    if spec.base is not None:
        if any(parts.values()):
            raise WeftError("model: give either base or parts (vision, audio, language), not both")
        if is_adapter(spec.base):
            FOLDER["check_trainable"](spec.base)
        model, processor = ASKED["bits"].load(spec, device) if spec.bits else load_parts(spec.base, device="cpu")
        if spec.dialect.switches:
            processor = ASKED["switched"](model.config, processor, spec)
        if spec.bits:
            return model, processor
    else:
        if spec.bits:
            raise WeftError(
                f"a model is read in {spec.bits} bits from a checkpoint, and this one is composed anew; leave bits out"
            )
        if spec.language is None:
            raise WeftError("model: give a language model (model.language), or a weft checkpoint (model.base)")
        sources: dict[str, Any] = {k: v for k, v in parts.items() if v is not None}
        model, processor = compose(**sources, dialect=spec.dialect, seed=spec.seed)
    if spec.lora_for_media is not None:
        ASKED["gated"].switch(model, spec.lora_for_media)
    return model.to(device, torch.float32), processor
