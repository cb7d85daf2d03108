"""Switches of a base's dialect that a recipe has otherwise than the base."""

from __future__ import annotations

from typing import Any

from weft.conversation import WeftError
from weft.models.sections import DialectSection
from weft.training.recipe import ModelSpec


def switched(config: Any, processor: Any, spec: ModelSpec) -> Any:
    """The processor with them; they are noted in ``config``, the model's. Raises `WeftError` where the base learned
    with another dialect, or lacks a token that they write."""
    if spec.dialect.name not in (processor.section.name, DialectSection().name):  # a run's recipe holds the usual one
        raise WeftError(
            f"model.dialect.name is {spec.dialect.name!r}, and the base learned with {processor.section.name!r}; "
            "leave it out"
        )
    changed = processor.with_switches(**spec.dialect.switches)
    before, after = (each.dialect.all_tokens("image", "audio") for each in (processor, changed))
    places = [[each.dialect.place_tokens(m) for m in ("image", "audio")] for each in (processor, changed)]
    known = processor.tokenizer.get_vocab()
    if places[0] != places[1] or any(token not in known for token in after if token not in before):
        raise WeftError(
            f"model.dialect.switches {spec.dialect.switches}: the base has no tokens for them; leave them out, or "
            "compose a model with them"
        )
    config.dialect = changed.section.model_dump()
    return changed
