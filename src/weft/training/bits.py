"""A model whose language model's layers are in few bits and stay so: it trains through LoRA alone."""

from __future__ import annotations

from typing import Any

from weft.conversation import WeftError
from weft.generation.configuration import load_config
from weft.generation.loading import load_parts
from weft.training.recipe import ModelSpec, Recipe


def load(spec: ModelSpec, device: str) -> tuple[Any, Any]:
    """What `build.build_model` gives of such a checkpoint; all but those layers is float32."""
    assert spec.base is not None
    model, processor = load_parts(spec.base, "float32", device, spec.bits)
    model.config.dtype = load_config(spec.base).dtype
    del model.config.quantization_config  # the adapter that is saved goes on the weights as they are
    setattr(model.language_model, f"is_loaded_in_{spec.bits}bit", True)  # where peft looks for it
    return model, processor


def check(recipe: Recipe) -> None:
    """Raises `WeftError` where a run with such a model could not end as it is meant."""
    bits = recipe.model.bits
    if len(recipe.stages) > 1:
        raise WeftError(f"a model in {bits} bits cannot be handed on to a next stage; train one stage (--stage NAME)")
    if recipe.model.lora_for_media:
        raise WeftError(f"a model in {bits} bits has LoRA for all that is said; leave out lora_for_media, or bits")
    how = recipe.stages[0].parts.get("language")
    if how is None or how.train != "lora":
        raise WeftError(f"a language model in {bits} bits trains through LoRA alone: parts.language.train is lora")
