"""What is kept of the built-in recipes' models is what they are."""

import json
import subprocess
import sys

import pytest

from marks import slow
from weft.recipes import RECIPES, load_recipe, sizes
from weft.training.outline import KEPT, Outline, kept, key
from weft.training.overrides import override
from weft.training.sizes import outlined, planned

FULL = [(name, size) for name in RECIPES for size in sizes(name) or (None,) if size not in ("tiny", "real")]
PARTS = [(name, size) for name, size in FULL if load_recipe(name, size).model.base is None]


@pytest.mark.parametrize(("name", "size"), [each if each[0] == "qwen_audio" else slow(*each) for each in PARTS])
def test_a_kept_outline_is_that_of_the_model(name, size):
    """Where it is not: python benchmarks/outlines.py."""
    model = load_recipe(name, size).model
    made = outlined(*planned(model, outline=True))
    assert kept(model) == made
    assert Outline.from_dict(json.loads(json.dumps(made.as_dict()))) == made  # with every layer, in whatever order


def test_none_is_kept_that_no_recipe_has():
    assert json.loads(KEPT.read_text("utf-8")).keys() == {key(load_recipe(name, size).model) for name, size in PARTS}


@pytest.mark.parametrize("change", ["vision.connector.merge=1", "language.source=meta/other", "seed=1"])
def test_a_model_that_is_changed_is_not_kept(change):
    recipe = load_recipe("minigpt_v2")
    assert kept(recipe.model) is not None
    assert kept(override(recipe, [f"model.{change}"]).model) is None


def test_sizes_of_a_built_in_recipe_take_neither_torch_nor_transformers():
    code = (
        "import sys; from weft.cli import run; run(['show', 'minigpt_v2', '--json']);"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    told, heavy = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.splitlines()
    assert heavy == "set()"
    trained = [stage["trained"] for stage in json.loads(told)["stages"]]
    assert trained == 3 * [{"vision_connector": 23_072_768, "language": 33_554_432}]  # as the published checkpoint
