"""A recipe's model: composed from parts, or loaded from a checkpoint. Weights are float32 while they train."""

from __future__ import annotations

from typing import Any

import torch

from weft.conversation import WeftError
from weft.generation.loading import check_name, in_one_sentence, load_processor
from weft.models import doors
from weft.models.adapters import is_adapter
from weft.models.compose import compose
from weft.models.modeling import WeftForConditionalGeneration
from weft.models.processing import WeftProcessor
from weft.training.recipe import ModelSpec


def build_model(spec: ModelSpec) -> tuple[WeftForConditionalGeneration, WeftProcessor]:
    """``(model, processor)``; ``model.config.dtype`` says in what type its weights came."""
    composed = {"vision": spec.vision, "audio": spec.audio, "language": spec.language}
    if spec.base is not None:
        if any(composed.values()):
            raise WeftError("model: give either base or parts (vision, audio, language), not both")
        if is_adapter(spec.base):
            raise WeftError(
                f"{spec.base} is an adapter; fold it in first (weft merge {spec.base} -o DIR) and train that"
            )
        base = doors.place(spec.base)
        check_name(base)
        with in_one_sentence(base):
            model = doors.load(WeftForConditionalGeneration, base, dtype="auto")
        processor = load_processor(spec.base)
    else:
        if spec.language is None:
            raise WeftError("model: give a language model (model.language), or a weft checkpoint (model.base)")
        sources: dict[str, Any] = {k: v for k, v in composed.items() if v is not None}
        model, processor = compose(**sources, dialect=spec.dialect, seed=spec.seed)
    return model.to(torch.float32), processor
