"""Published recipes on pretrained parts: they compose, learn what they say, and name what is missing."""

import json

import numpy as np
import pytest

from weft.cli import run
from weft.conversation import WeftError
from weft.data.loader import SourceSpec, TrainingData
from weft.models import doors
from weft.parts import PARTS, is_there
from weft.playground import world
from weft.recipes import load_recipe
from weft.recipes.files import with_files
from weft.recipes.real import REAL
from weft.training.build import build_model
from weft.training.optim import build_optimizer, embedding_ids, set_rate
from weft.training.parts import apply_parts, dialect_tokens
from weft.training.update import backward

parts = pytest.mark.skipif(
    not all(map(is_there, PARTS)), reason="its pretrained parts are not on this machine: weft parts"
)


def test_a_part_that_is_not_there_is_fetched_by_a_command(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(WeftError, match=r"pretrained part .* is not on this machine; fetch it once with `weft parts`"):
        build_model(load_recipe("llasm:real").model)
    assert doors.resolve("owner/name") == "hub"


def test_samples_of_the_world_are_made_when_a_recipe_names_them(monkeypatch, tmp_path):
    monkeypatch.setattr(world, "PLAYED", 2)
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("minigpt_v2:real")
    found = with_files(recipe.model_copy(update={"stages": recipe.stages[1:2]}), [])
    files = [source.path for source in found.stages[0].mixture]
    assert files == [str(tmp_path / "world" / name / "train.jsonl") for name in ("caption", "refer", "identify", "vqa")]
    assert [len((tmp_path / file).read_text().splitlines()) for file in files] == [2] * 4
    assert not world.make_if_named(tmp_path / "world" / "caption" / "test.jsonl")
    assert not world.make_if_named(tmp_path / "world" / "nothing" / "train.jsonl")


@parts
def test_an_encoder_that_trains_moves_slower_than_its_connector():
    """At one rate for both nothing was heard after 184 updates."""
    stage = load_recipe("qwen_audio", "real").stages[0]
    assert stage.optim.lr == 1e-3 and stage.parts["audio"].lr_scale == 0.03
    assert stage.parts["audio_connector"].lr_scale == 1
    assert load_recipe("minigpt_v2", "real").stages[0].optim.lr == 3e-4  # LoRA of all layers


@parts
@pytest.mark.nightly
@pytest.mark.usefixtures("whole_plans")
@pytest.mark.parametrize(("name", "tokens"), [("minigpt_v2", 49), ("llasm", 66), ("qwen_audio", 27)])
def test_two_updates_on_real_parts_bring_the_loss_down(name, tokens, capsys, tmp_path):
    assert run(["show", name, "--size", "real", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [s["name"] for s in told["stages"]] == [s.name for s in load_recipe(name).stages]
    assert tokens in (told["image"].get("tokens"), told["sound"].get("tokens_second"))
    pytest.importorskip("espeakng_loader")
    recipe = load_recipe(name, "real")
    stage = recipe.stages[0]
    samples = world.write(tmp_path, "train", 2, tasks=[stage.mixture[0].name])
    model, processor = build_model(recipe.model)
    trained = apply_parts(model, stage, tokens=dialect_tokens(processor))
    optimizer = build_optimizer(trained, stage.optim, embedding_ids(model))
    set_rate(optimizer, stage.optim.lr / 10)  # of its warm-up
    data = TrainingData([SourceSpec(str(samples), 1.0)], processor, row_tokens=512, packing=False)
    batches = data.batches()
    batch = next(batches)
    batches.close()
    losses = []
    for _ in range(2):
        losses.append(float(backward(model, [batch], precision="bfloat16")["loss"]))
        optimizer.step()
        optimizer.zero_grad()
    assert np.isfinite(losses).all() and losses[1] < losses[0]


@pytest.mark.slow
def test_each_stage_draws_on_tasks_that_its_dialect_writes():
    from weft.dialects import get_dialect

    for name in REAL:
        recipe = load_recipe(name, "real")
        dialect = get_dialect(recipe.model.dialect.name, recipe.model.dialect.switches)
        for source in (s for stage in recipe.stages for s in stage.mixture):
            for n in range(3):
                made = world.sample(n, tasks=[source.name])
                assert list(dialect.write(made, False)), source.name
