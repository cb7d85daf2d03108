"""Whole configurations as functions: a recipe is a name here, or a Python file with a function ``recipe()``."""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weft.conversation import WeftError
from weft.recipes.bundled import bundled, bundled_model
from weft.recipes.finetune import finetune_recipe
from weft.recipes.small import cells, digits, digits_cells
from weft.training.recipe import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {"digits": digits, "cells": cells, "digits_cells": digits_cells}


def load_recipe(name: str) -> Recipe:
    """A built-in recipe by its name, or the one that ``recipe()`` in a .py file returns."""
    if name in RECIPES:
        return RECIPES[name]()
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
        inside = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
        line = inside[-1].lineno if inside else getattr(error, "lineno", None)
        where = f"{path}:{line}" if line else str(path)
        raise WeftError(
            f"{where}: {type(error).__name__}: {' '.join(str(error).split())}; correct the recipe"
        ) from error
    if not isinstance(value, Recipe):
        raise WeftError(f"{path}: needs a function recipe() that returns a weft.training.recipe.Recipe")
    return value


__all__ = ["RECIPES", "bundled", "bundled_model", "cells", "digits", "digits_cells", "finetune_recipe", "load_recipe"]
