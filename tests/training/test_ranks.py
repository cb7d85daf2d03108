"""Several ranks do what one does: the same updates, the same checkpoints, the same endings."""

import shutil
import signal
import time

import pytest
import torch

from marks import nightly
from rank_processes import QUIET, alike, saved, stage_of, start, steps, together, told_alike
from training_world import picture, speech, text, tiny_recipe, tiny_spec, write
from weft.teaching import teach
from weft.training.build import build_model
from weft.training.export import save_model
from weft.training.recipe import ModelSpec, Optim, Recipe
from weft.training.run import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Rows of one sample each: a rank's row is a picture, a clip or text alone."""
    return write(tmp_path_factory.mktemp("samples"), 20, (speech, picture, speech, text))


@pytest.mark.parametrize("kind", [nightly("full"), "lora", "alone"])
def test_two_ranks_learn_what_one_does(files, tmp_path, kind):
    stage = stage_of(kind)
    spec = tiny_spec(dropout=0.1)
    one = train(tiny_recipe(files, spec, accumulate=2, **stage), tmp_path / "one", teach=teach, console=QUIET)
    ended = together(2, tiny_recipe(files, spec, accumulate=1, **stage), tmp_path / "two")
    assert [status for status, _ in ended] == [0, 0], ended
    alike(one, tmp_path / "two" / "final")
    told_alike(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(("before", "after"), [(2, 1), nightly(1, 2)])
def test_a_run_goes_on_with_another_number_of_ranks(files, tmp_path, before, after):
    """It ends as it would have ended without a change."""

    def recipe(world: int, steps: int) -> Recipe:
        schedule = Optim(lr=1e-3, warmup_steps=1, schedule="constant")
        return tiny_recipe(files, row_tokens=96, steps=steps, accumulate=2 // world, optim=schedule)

    whole = train(recipe(1, 3), tmp_path / "whole", console=QUIET)
    ended = together(before, recipe(before, 2), tmp_path / "run")
    assert [status for status, _ in ended] == [0] * before, ended
    shutil.rmtree(tmp_path / "run" / "final")
    (tmp_path / "run" / "recipe.json").write_text(recipe(after, 3).model_dump_json())
    ended = together(after, None, tmp_path / "run")
    assert [status for status, _ in ended] == [0] * after, ended
    assert [record["step"] for record in steps(tmp_path / "run")] == [1, 2, 3]
    alike(whole, tmp_path / "run" / "final")


def test_a_signal_to_one_rank_stops_and_saves_all(files, tmp_path):
    ranks = start(2, tiny_recipe(files, row_tokens=96, steps=5000), tmp_path / "run")
    while len(steps(tmp_path / "run") if (tmp_path / "run" / "log.jsonl").exists() else []) < 3:
        assert all(rank.returncode is None for rank in ranks)
        time.sleep(0.05)
    ranks[1].send_signal(signal.SIGTERM)
    said = [rank.communicate() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [143, 143], said
    assert "saved at step" in said[0] and "saved at step" not in said[1]
    assert saved(tmp_path / "run") == len(steps(tmp_path / "run"))


def test_what_is_not_finite_on_one_rank_ends_all_with_one_sentence(files, tmp_path):
    recipe = tiny_recipe(files, row_tokens=96, steps=30, recipe={"checkpoint_every": 1000})
    ended = together(2, recipe, tmp_path / "run", BREAKS_RANK=1)
    assert [status for status, _ in ended] == [2, 2], ended
    assert "is not finite" in ended[0][1] and "--resume" in ended[0][1]
    assert "error" not in ended[1][1]
    assert saved(tmp_path / "run") == len(steps(tmp_path / "run")) == 2


def test_a_sample_that_one_rank_cannot_read_ends_all_and_loses_nothing(files, tmp_path):
    data = write(tmp_path / "samples", 12, (picture,))
    recipe = tiny_recipe(data, row_tokens=96, steps=30, even_rows=False, recipe={"checkpoint_every": 1000})
    broken = tmp_path / "samples" / "7.png"
    broken.write_bytes(broken.read_bytes()[:100])  # its size is there to be measured, its pixels are not
    ended = together(2, recipe, tmp_path / "run")
    assert [status for status, _ in ended] == [2, 2], ended
    assert "7.png" in ended[0][1] and "--resume" in ended[0][1] and "error" not in ended[1][1]
    done = len(steps(tmp_path / "run"))
    assert done and saved(tmp_path / "run") == done


def test_a_mistake_that_one_rank_meets_ends_all(files, tmp_path):
    recipe = tiny_recipe(files, row_tokens=96, steps=3)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("here already")
    ended = together(2, recipe, tmp_path / "run")
    assert [status for status, _ in ended] == [2, 2], ended
    assert "holds other things" in ended[0][1] and "holds other things" not in ended[1][1]


def test_ranks_start_a_later_stage_from_the_same_weights(files, tmp_path):
    """Between stages a model goes to disk in the type it came in, and goes on rounded to it, on every rank."""
    model, processor = build_model(tiny_spec())
    model.config.dtype = torch.bfloat16
    save_model(model, processor, tmp_path / "base")
    recipe = tiny_recipe(files, ModelSpec(base=str(tmp_path / "base")), row_tokens=96, steps=2)
    recipe = recipe.model_copy(update={"stages": recipe.stages * 2})
    ended = together(2, recipe, tmp_path / "run")
    assert [status for status, _ in ended] == [0, 0], ended
    told = [[line for line in words.splitlines() if line.startswith("weights")] for _, words in ended]
    assert told[0] and told[0] == told[1]
