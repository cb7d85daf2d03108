"""Writes what `weft show` keeps of the built-in recipes' models: names and numbers of their layers.

    python benchmarks/outlines.py           then commit src/weft/training/outlines.json

Each is made of the model on the meta device, as `weft show` makes it of any other; `tests/training/test_outline.py`
makes them anew and compares.
"""

from __future__ import annotations

import json

from weft.recipes import RECIPES, load_recipe, sizes
from weft.training.outline import KEPT, key
from weft.training.recipe import ModelSpec
from weft.training.sizes import outlined, planned

LEFT_OUT = ("tiny", "real")  # the first is made in no time, the second of parts that may not be there


def models() -> list[ModelSpec]:
    """Those of all built-in recipes that are made of parts, at their full sizes."""
    named = [(name, size) for name in RECIPES for size in sizes(name) or (None,) if size not in LEFT_OUT]
    found = [load_recipe(name, size).model for name, size in named]
    return [model for model in found if model.base is None]


def main() -> None:
    found = {key(model): outlined(*planned(model, outline=True)).as_dict() for model in models()}
    lines = [f"{json.dumps(name)}: {json.dumps(outline, ensure_ascii=False)}" for name, outline in found.items()]
    KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
    print(f"{len(found)} models in {KEPT}")


if __name__ == "__main__":
    main()
