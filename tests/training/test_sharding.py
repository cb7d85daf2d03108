"""Ranks that share one model out learn what one process does."""

import json
import random
import shutil
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from marks import nightly
from rank_processes import QUIET, nearly, stage_of, start, steps, together, told_alike
from training_world import picture, speech, text, tiny_recipe, tiny_spec, write
from weft.teaching import teach
from weft.training.recipe import Evaluation, Lora, Optim, Parallel, PartTraining, Recipe
from weft.training.run import train

pytestmark = pytest.mark.slow
SHARED = {"parallel": Parallel(shard=True)}
# Adam makes no steps of the rounding of gradients that are none.
CALM = {"lr": 1e-3, "warmup_steps": 2, "eps": 1e-5}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write(tmp_path_factory.mktemp("samples"), 20, (speech, picture, speech, text))


@pytest.mark.parametrize("kind", ["listen", *map(nightly, ("full", "lora", "alone"))])
def test_two_ranks_that_share_a_model_learn_what_one_does(files, tmp_path, kind):
    stage = stage_of(kind) | {"optim": Optim(**CALM)}
    # Updates that only listen hear clips first on one process, and see pictures first where weights are shared out.
    spec = tiny_spec(dropout=0.0 if kind == "alone" else 0.1)
    one = train(tiny_recipe(files, spec, accumulate=2, **stage), tmp_path / "one", teach=teach, console=QUIET)
    ended = together(2, tiny_recipe(files, spec, accumulate=1, recipe=SHARED, **stage), tmp_path / "two")
    assert [status for status, _ in ended] == [0, 0], ended[0][1]
    nearly(one, tmp_path / "two" / "final", 2e-5)
    told_alike(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(("before", "after"), [(2, 1), nightly(1, 2)])
def test_a_shared_out_run_goes_on_with_another_number_of_ranks(files, tmp_path, before, after):
    """It ends as it would have ended without a change."""

    def recipe(world: int, steps: int) -> Recipe:
        schedule = Optim(**{**CALM, "warmup_steps": 1}, schedule="constant")
        return tiny_recipe(files, row_tokens=96, steps=steps, accumulate=2 // world, optim=schedule, recipe=SHARED)

    whole = train(recipe(1, 3), tmp_path / "whole", console=QUIET)
    ended = together(before, recipe(before, 2), tmp_path / "run")
    assert [status for status, _ in ended] == [0] * before, ended
    shutil.rmtree(tmp_path / "run" / "final")
    (tmp_path / "run" / "recipe.json").write_text(recipe(after, 3).model_dump_json())
    ended = together(after, None, tmp_path / "run")
    assert [status for status, _ in ended] == [0] * after, ended
    assert [record["step"] for record in steps(tmp_path / "run")] == [1, 2, 3]
    nearly(whole, tmp_path / "run" / "final", 2e-5)


@pytest.mark.nightly
def test_a_rank_killed_at_a_random_step_ends_all_and_loses_nothing(files, tmp_path):
    schedule = Optim(**CALM, schedule="constant")
    recipe = tiny_recipe(files, row_tokens=96, steps=8, optim=schedule, recipe=SHARED)
    last, victim, log = random.randint(1, 4), random.randint(0, 1), tmp_path / "run" / "log.jsonl"
    print(f"rank {victim} is killed after step {last}")
    ranks = start(2, recipe, tmp_path / "run")
    while len(steps(tmp_path / "run") if log.exists() else []) < last:
        assert all(rank.returncode is None for rank in ranks)
        time.sleep(0.01)
    ranks[victim].send_signal(signal.SIGKILL)
    said = [rank.communicate(timeout=60) for rank in ranks]
    other = ranks[1 - victim].returncode
    assert other == 2 and "another rank has stopped" in said[1 - victim], said
    if victim:
        assert "weft train --resume" in said[0]
    one = {"stages": (recipe.stages[0].model_copy(update={"accumulate": 2}),)}
    (tmp_path / "run" / "recipe.json").write_text(recipe.model_copy(update=one).model_dump_json())
    resumed = train(None, tmp_path / "run", resume=True, console=QUIET)
    whole = train(recipe.model_copy(update=one), tmp_path / "whole", console=QUIET)
    ours, theirs = steps(tmp_path / "run"), steps(tmp_path / "whole")
    assert [record["step"] for record in ours] == list(range(1, 9))
    assert [record["labels"] for record in ours] == [record["labels"] for record in theirs]
    nearly(whole, resumed, 2e-5)


def test_a_rank_that_says_nothing_is_taken_for_lost(files, tmp_path):
    ranks = start(2, tiny_recipe(files, row_tokens=96, steps=5000, recipe=SHARED), tmp_path / "run", SILENCE=4)
    while len(steps(tmp_path / "run") if (tmp_path / "run" / "log.jsonl").exists() else []) < 2:
        assert all(rank.returncode is None for rank in ranks)
        time.sleep(0.05)
    ranks[1].send_signal(signal.SIGSTOP)
    try:
        said = ranks[0].communicate(timeout=60)
    finally:
        ranks[1].send_signal(signal.SIGKILL)
    ranks[1].communicate()
    assert ranks[0].returncode == 2 and "has said nothing for 0:00:04" in said, said


def test_stages_evaluations_and_an_adapter_are_shared_out_too(files, tmp_path):
    judged = Evaluation(data=str(files), every=2, limit=7)
    recipe = tiny_recipe(files, row_tokens=96, steps=2, accumulate=2, evaluation=judged, optim=Optim(**CALM))
    lora = PartTraining(train="lora", lora=Lora(r=2, alpha=4))
    second = {"parts": {"language": lora, "audio_connector": PartTraining(train="full")}, "name": "second"}
    recipe = recipe.model_copy(update={"stages": (recipe.stages[0], recipe.stages[0].model_copy(update=second))})
    one = train(recipe, tmp_path / "one", console=QUIET, adapter_only=True)
    stages = tuple(stage.model_copy(update={"accumulate": 1}) for stage in recipe.stages)
    shared = recipe.model_copy(update={"stages": stages, **SHARED})
    ended = together(2, shared, tmp_path / "two", ADAPTER_ONLY=1)
    assert [status for status, _ in ended] == [0, 0], ended[0][1]
    told = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "log.jsonl").open() if '"event": "eval"' in line]
        for name in ("one", "two")
    ]
    assert len(told[0]) == 2 and told[0] == pytest.approx(told[1], rel=1e-4)
    names = "adapter_model.safetensors", "base/model.safetensors"
    for ours, theirs in (map(load_file, (one / name, tmp_path / "two" / "final" / name)) for name in names):
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], atol=2e-5, rtol=1e-4)
