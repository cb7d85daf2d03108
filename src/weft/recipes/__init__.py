"""Whole configurations as functions: a recipe is a name here, or a Python file with a function ``recipe()``."""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import ValidationError

from weft.conversation import WeftError
from weft.frozen import first_mistake
from weft.recipes.bundled import bundled
from weft.recipes.internvl import internvl
from weft.recipes.llasm import llasm
from weft.recipes.llava import llava
from weft.recipes.minigpt_v2 import minigpt_v2
from weft.recipes.omni import omni
from weft.recipes.qwen2_audio import qwen2_audio
from weft.recipes.qwen_audio import qwen_audio
from weft.recipes.real import REAL, on_parts
from weft.recipes.scratch import BUILT_IN, model_spec, scratch
from weft.recipes.small import cells, digits, digits_cells
from weft.recipes.tiny import TINY, rehearsal
from weft.training.recipe import ModelSpec, Recipe

# A recipe that comes in several full sizes is a function of ``size``: its annotation lists them, the usual one is the
# default. Those in `TINY` have a tiny one too, those in `REAL` one on pretrained parts.
RECIPES: dict[str, Callable[..., Recipe]] = {
    "digits": digits,
    "cells": cells,
    "digits_cells": digits_cells,
    "minigpt_v2": minigpt_v2,
    "llasm": llasm,
    "llava": llava,
    "internvl": internvl,
    "qwen_audio": qwen_audio,
    "qwen2_audio": qwen2_audio,
    "omni": omni,
    "bundled": bundled,
}


def sizes(name: str) -> tuple[str, ...]:
    """The sizes that a built-in recipe comes in, the usual one first; none where it has but one."""
    own = get_args(get_type_hints(RECIPES[name]).get("size")) or ("full",)
    return (*own, "tiny", *(("real",) if name in REAL else ())) if name in TINY else ()


def is_recipe(name: str) -> bool:
    """Whether ``name`` is meant as a recipe: built in, with or without a size, or a .py file."""
    return name.partition(":")[0] in RECIPES or name.endswith(".py")


def only_stages(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """The recipe with the stages of these names alone, in its own order; all where none is named."""
    there = [stage.name for stage in recipe.stages]
    for name in names:
        if name not in there:
            raise WeftError(f"--stage {name}: the recipe {recipe.name} has the stages {', '.join(there)}")
    stages = tuple(stage for stage in recipe.stages if not names or stage.name in names)
    return recipe.model_copy(update={"stages": stages})


def load_recipe(name: str, size: str | None = None) -> Recipe:
    """A built-in recipe by its name, or the one that ``recipe()`` in a .py file returns.

    ``size``: one of `sizes`; ``NAME:SIZE`` says the same in one word.
    """
    known, colon, given = name.partition(":")
    if known in RECIPES:
        if colon and size is not None and size != given:
            raise WeftError(f"{name} and --size {size}: two sizes; give one")
        return _sized(known, given if colon else size)
    if size is not None:
        raise WeftError(f"--size {size}: only built-in recipes come in sizes; leave it out for {name}")
    path = Path(name)
    if path.suffix != ".py":
        raise WeftError(f"no recipe {name}: built-in are {', '.join(RECIPES)}; or give a .py file with recipe()")
    if not path.is_file():
        raise WeftError(f"{path}: no such file; give a Python file with a function recipe()")
    spec = importlib.util.spec_from_file_location(f"weft_recipe_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    value: Any = None
    try:
        spec.loader.exec_module(module)
        if hasattr(module, "recipe"):
            value = module.recipe()
    except WeftError:
        raise
    except Exception as error:  # whatever a user's file raises is theirs to mend, and they need the line
        inside = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path.absolute()]
        line = inside[-1].lineno if inside else getattr(error, "lineno", None)
        where = f"{path}:{line}" if line else str(path)
        named = f"{type(error).__name__}: {' '.join(str(error).split())}"
        said = first_mistake(error) if isinstance(error, ValidationError) else named
        raise WeftError(f"{where}: {said}; correct the recipe") from error
    if not isinstance(value, Recipe):
        raise WeftError(f"{path}: needs a function recipe() that returns a weft.training.recipe.Recipe")
    if value.model.base in BUILT_IN and value.model == ModelSpec(base=value.model.base):
        value = value.model_copy(update={"model": model_spec(value.model.base)})
    return value


def _sized(name: str, size: str | None) -> Recipe:
    there = sizes(name)
    if size is not None and size not in there:
        said = f"its sizes are {', '.join(there)}" if there else "it has but one"
        raise WeftError(f"the recipe {name} has no size {size!r}; {said}")
    if size == "tiny":
        return rehearsal(name, RECIPES[name]())
    if size == "real":
        return on_parts(name, RECIPES[name]())
    return RECIPES[name]() if size in (None, "full") else RECIPES[name](size)
