"""Tiny sizes: the stages of a published recipe, on a model and samples that minutes suffice for (`tiny.toml`)."""

from __future__ import annotations

from typing import Any

from weft.named import beside
from weft.recipes.datasets import drawn
from weft.training.recipe import LanguageSource, ModelSpec, Recipe

STEPS = 100  # of each stage
TINY: dict[str, dict[str, Any]] = beside(__file__)
SHAPES = TINY.pop("shapes")


def rehearsal(name: str, recipe: Recipe) -> Recipe:
    """The built-in ``recipe`` of that name in its tiny size.

    What trains in a stage, and the order of stages, stay; sizes of a step and rates are those of small models.
    """
    rates = {"lr": 3e-3, "min_lr": 1e-4, "warmup_steps": 5, "clip": 1.0, "weight_decay": 0.0}
    stages = tuple(
        stage.model_copy(
            update={
                "steps": STEPS,
                "optim": stage.optim.model_copy(update=rates),
                "mixture": drawn("playground", tasks),
                "lessons": {},
                "row_tokens": 768,
                "accumulate": 1,
                "checkpoint_activations": False,
            }
        )
        for stage, tasks in zip(recipe.stages, TINY[name]["stages"], strict=True)
    )
    return recipe.model_copy(
        update={
            "name": f"{name}-tiny",
            "model": small(recipe.model, TINY[name]),
            "stages": stages,
            "precision": "float32",
            "threads": 1,  # such small matrices take longer on more
            "checkpoint_every": 500,
        }
    )


def small(model: ModelSpec, parts: dict[str, Any]) -> ModelSpec:
    """``model`` with the small ``parts`` in the place of its own; connectors, options and dialect stay."""
    language = LanguageSource(config={"model_type": parts["language"], **SHAPES[parts["language"]]})
    switches = {**model.dialect.switches, **parts.get("switches", {})}
    changed: dict[str, Any] = {"language": language, "dialect": model.dialect.model_copy(update={"switches": switches})}
    for name in ("vision", "audio"):
        if name in parts:
            own, tower = dict(parts[name]), getattr(model, name)
            config = SHAPES[own.pop("shape", own["kind"])]
            options = {**tower.options, **own.pop("options", {})}
            changed[name] = tower.model_copy(update={"source": None, "config": config, "options": options, **own})
    return model.model_copy(update=changed)
