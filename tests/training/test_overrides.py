"""Dotted overrides reach any value and say what could stand where they fail."""

import pytest

from training_world import tiny_recipe
from weft.conversation import WeftError
from weft.training.overrides import override
from weft.training.recipe import Recipe


@pytest.fixture
def recipe(tmp_path):
    return tiny_recipe(tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    ("assignment", "read", "value"),
    [
        ("stages.0.optim.lr=5e-3", lambda r: r.stages[0].optim.lr, 5e-3),
        ("stages.0.optim.clip=null", lambda r: r.stages[0].optim.clip, None),
        ("precision=bfloat16", lambda r: r.precision, "bfloat16"),
        ("stages.0.parts.vision.train=frozen", lambda r: r.stages[0].parts["vision"].train, "frozen"),
        ("stages.0.parts.vision.lora.r=4", lambda r: r.stages[0].parts["vision"].lora.r, 4),
        ("stages.0.mixture.0.augment.speed=0.1", lambda r: getattr(r.stages[0].mixture[0].augment, "speed", None), 0.1),
        ("stages.0.augment.noise_db=[5, 30]", lambda r: r.stages[0].augment.noise_db, (5, 30)),
        ("model.language.config.num_hidden_layers=3", lambda r: r.model.language.config["num_hidden_layers"], 3),
        ('loggers=["tensorboard"]', lambda r: r.loggers, ("tensorboard",)),
        ("stages.0.name=warm=up", lambda r: r.stages[0].name, "warm=up"),
    ],
)
def test_a_value_is_set_and_nothing_else(recipe, assignment, read, value):
    changed = override(recipe, [assignment])
    assert isinstance(changed, Recipe) and read(changed) == value
    assert read(recipe) != value
    old, new = recipe.model_dump_json(), changed.model_dump_json()
    assert old != new and override(changed, []) == changed


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("stages.0.optim.lrr=1", r"did you mean lr\? .*betas"),
        ("stages.1.optim.lr=1", '"1" must be a place in a list of 1'),
        ("stages.x.optim.lr=1", '"x" must be a place'),
        ("stages.0.optim.lr=fast", r"stages\.0\.optim\.lr: input should be a valid number"),
        ("stages.0.optim.lr.x=1", "goes too deep"),
        ("stages.0.steps=0", "greater than or equal to 1"),
        ("stages=[]", "at least 1 item"),
        ("checkpoint_every=0", "greater than or equal to 1"),
        ("stages.0.evaluation.every=0", "greater than or equal to 1"),
        ("stages.0.evaluation.patience=0", "greater than or equal to 1"),
        ("stages.0.label_smoothing=1", "less than 1"),
        ("stages.0.augment=null", r"instance of Augment.*; \{\} is all of its defaults"),
        ("precision=float16", "float32"),
        ("lr", "write a path, =, and a value"),
    ],
)
def test_a_mistake_names_the_path_and_the_choices(recipe, assignment, said):
    with pytest.raises(WeftError, match=said):
        override(recipe, [assignment])
