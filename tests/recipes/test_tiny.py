"""Fourteen steps of every stage of every recipe: the loss falls, frozen parts keep every bit, trained ones change."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from marks import nightly
from weft.playground import tasks
from weft.recipes import RECIPES, load_recipe, sizes
from weft.training.build import build_model
from weft.training.export import save_model
from weft.training.recipe import PART_NAMES
from weft.training.run import train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("whole_plans")]
PREFIXES = {name: f"{name}." for name in PART_NAMES} | {"language": "language_model."}
STEPS, SAMPLES = 14, 6
LIKE_OTHERS = ("llava", "internvl", "qwen2_audio")
CASES = [(name, stage.name) for name in RECIPES if "tiny" in sizes(name) for stage in load_recipe(name, "tiny").stages]


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "playground"
    made = {}

    def source(given):
        if given.name not in made:
            made[given.name] = tasks.write(folder, given.name, SAMPLES, seed=3)
        return given.model_copy(update={"path": str(made[given.name])})

    return source


@pytest.fixture(scope="module")
def runs(playground, tmp_path_factory):
    """Recipe name -> the weights before the first stage and after each, and the log; each recipe is trained once."""
    done = {}

    def trained(name):
        if name not in done:
            recipe = load_recipe(name, "tiny")
            stages = tuple(
                s.model_copy(update={"steps": STEPS, "row_tokens": 512, "mixture": tuple(map(playground, s.mixture))})
                for s in recipe.stages
            )
            run = tmp_path_factory.mktemp(name) / "run"
            recipe = recipe.model_copy(update={"stages": stages, "threads": 1})
            save_model(*build_model(recipe.model), run.parent / "start")
            final = train(recipe, run)
            folders = [run.parent / "start", *(run / "stages" / str(k) for k in range(len(stages) - 1)), final]
            log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
            done[name] = recipe, [load_file(folder / "model.safetensors") for folder in folders], log
        return done[name]

    return trained


@pytest.mark.parametrize(("name", "stage_name"), [nightly(*c) if c[0] in LIKE_OTHERS else c for c in CASES])
def test_a_stage_trains_what_it_says_and_nothing_else(runs, name, stage_name):
    recipe, weights, log = runs(name)
    number = [s.name for s in recipe.stages].index(stage_name)
    stage, before, after = recipe.stages[number], weights[number], weights[number + 1]
    assert before.keys() == after.keys()
    for part in PART_NAMES:
        mine = [key for key in before if key.startswith(PREFIXES[part])]
        changed = {key for key in mine if not torch.equal(before[key], after[key])}
        if part not in stage.parts:
            assert not changed, f"{part} is frozen"
        elif stage.parts[part].train == "full":
            # Biases of Whisper's keys and rows that no sample shows aside, every tensor moves.
            constant = {key for key in mine if key.endswith("embed_positions.weight")}
            assert len(changed) >= 0.95 * len(set(mine) - constant)
        else:
            targets = stage.parts[part].lora.targets
            assert changed and all(key.split(".")[-2] in targets for key in changed)

    losses = [r["loss"] for r in log if r["event"] == "step" and r["stage"] == stage_name]
    assert len(losses) == STEPS and np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


@pytest.mark.parametrize("name", [nightly(n) if n in LIKE_OTHERS else n for n in dict(CASES)])
def test_a_recipe_ends_in_a_model_that_answers(runs, name, tmp_path):
    from weft.generation import Model, Options

    recipe, weights, _ = runs(name)
    model, processor = build_model(recipe.model)
    model.load_state_dict(weights[-1], strict=False)
    last = recipe.stages[-1].mixture[0].name
    reply = Model(model.eval(), processor).chat(tasks.make(last, 999, 0).prompt(), Options(max_new_tokens=4))
    assert isinstance(reply.text, str)
