"""A recipe's model: composed from parts, or loaded from a checkpoint. Weights are float32 while they train; layers in
few bits, which do not train, stay so."""

from __future__ import annotations

from typing import Any

import torch

from weft.conversation import WeftError
from weft.generation.loading import check_name, in_bits, in_one_sentence, load_config, load_processor
from weft.models import doors
from weft.models.adapters import is_adapter
from weft.models.compose import compose
from weft.models.modeling import WeftForConditionalGeneration
from weft.models.processing import WeftProcessor
from weft.training.recipe import ModelSpec


def build_model(spec: ModelSpec, device: str = "cpu") -> tuple[WeftForConditionalGeneration, WeftProcessor]:
    """``(model, processor)`` on ``device``; ``model.config.dtype`` says in what type its weights came."""
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
        options = in_bits(spec.bits, torch.device(device)) if spec.bits else {}
        with in_one_sentence(base):
            model = doors.load(
                WeftForConditionalGeneration, base, dtype=torch.float32 if spec.bits else "auto", **options
            )
        processor = load_processor(spec.base)
        if spec.bits:
            model.config.dtype = load_config(base).dtype
            del model.config.quantization_config  # the adapter that is saved goes on the weights as they are
            setattr(model.language_model, f"is_loaded_in_{spec.bits}bit", True)  # where peft looks for it
            return model, processor
    else:
        if spec.bits:
            raise WeftError(
                f"a model is read in {spec.bits} bits from a checkpoint, and this one is composed anew; leave bits out"
            )
        if spec.language is None:
            raise WeftError("model: give a language model (model.language), or a weft checkpoint (model.base)")
        sources: dict[str, Any] = {k: v for k, v in composed.items() if v is not None}
        model, processor = compose(**sources, dialect=spec.dialect, seed=spec.seed)
    return model.to(device, torch.float32), processor
