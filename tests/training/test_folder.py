"""A run folder: moved, copied, shared, damaged."""

import errno
import json
import os
import re
import shutil
import sys
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from marks import slow
from training_world import tiny_recipe, tiny_spec, write
from weft.cli import run as weft
from weft.conversation import WeftError
from weft.training import log
from weft.training.checkpoint import newer, newest
from weft.training.folder import RunFolder, alone_in
from weft.training.picture import draw
from weft.training.recipe import Evaluation, PartTraining
from weft.training.run import train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("samples"), 12)


def go(recipe, run, **options):
    """A run, and what it says."""
    console = Console(file=StringIO(), width=10_000)
    out = train(recipe, run, console=console, **options)
    return out, console.file.getvalue()


def named(folder):
    """All that the JSON files of a run say."""
    return "".join(p.read_text() for p in folder.rglob("*.json"))


@pytest.fixture(scope="module")
def ended(data, tmp_path_factory):
    """A run whose model lies in it, and one whose model lies beside it."""
    place = tmp_path_factory.mktemp("runs")
    go(tiny_recipe(data, steps=2), place / "run")
    go(tiny_recipe(data, steps=2), place / "tuned.run", out=place / "tuned")
    return place


def test_a_moved_run_goes_on_in_its_new_place(ended, tmp_path):
    shutil.copytree(ended / "run", tmp_path / "first")
    RunFolder.reopen(tmp_path / "first")  # it lives here now
    (tmp_path / "first").rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "final")
    out, said = go(None, tmp_path / "moved", resume=True)
    assert out == tmp_path / "moved" / "final" and out.is_dir() and "begun" not in said
    assert not (tmp_path / "first").exists() and str(tmp_path / "first") not in named(tmp_path / "moved")


def test_a_copy_of_a_run_leaves_the_model_of_the_original_alone(ended, tmp_path):
    """Finished or not, it is another run: its model is its own."""
    shutil.copytree(ended, tmp_path / "place")
    place = tmp_path / "place"
    RunFolder.reopen(place / "tuned.run", out=place / "tuned")
    shutil.copytree(place / "tuned.run", tmp_path / "copy")
    (place / "tuned" / "model.safetensors").write_bytes(b"the original's")
    out, said = go(None, tmp_path / "copy", resume=True)
    assert out == tmp_path / "copy" / "final" and (out / "model.safetensors").stat().st_size > 100
    assert f"was begun as {place / 'tuned.run'}" in said and f"leaves its model in {out}" in said
    assert (place / "tuned" / "model.safetensors").read_bytes() == b"the original's"
    assert go(None, tmp_path / "copy", resume=True) == (out, f"{tmp_path / 'copy'} is finished; its model is there\n")

    shutil.rmtree(place / "tuned")
    assert go(None, place / "tuned.run", resume=True)[0] == place / "tuned"  # the original goes on as before


def test_a_copy_of_a_finished_run_is_not_taken_for_it(ended, tmp_path):
    shutil.copytree(ended / "run", tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "final")
    assert go(None, tmp_path / "copy", resume=True)[0] == tmp_path / "copy" / "final"


def test_who_goes_on_may_say_where_the_model_goes(ended, tmp_path):
    shutil.copytree(ended / "tuned.run", tmp_path / "run")
    out, said = go(None, tmp_path / "run", resume=True, out=tmp_path / "model")
    assert out == tmp_path / "model" and out.is_dir() and "begun" not in said
    assert RunFolder.read(tmp_path / "run").out == out


@pytest.mark.parametrize(("run", "out"), [("run", "run/final"), ("tuned.run", "tuned")])
def test_a_moved_run_of_0_1_0_goes_on_in_its_new_place(ended, tmp_path, run, out):
    """It wrote whole paths, and not where it was begun."""
    shutil.copytree(ended / run, tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "final", ignore_errors=True)
    facts = json.loads((tmp_path / "moved" / "run.json").read_text())
    del facts["folder"]
    (tmp_path / "moved" / "run.json").write_text(json.dumps(facts | {"out": f"/elsewhere/{out}"}))
    assert go(None, tmp_path / "moved", resume=True)[0] == tmp_path / "moved" / "final"


@pytest.mark.parametrize(
    ("model_type", "options", "padded"),
    [("whisper", {}, True), ("whisper", {"pad_to_window": False}, False), ("wav2vec2", {}, None)],
)
def test_a_run_of_0_1_0_pads_the_clips_of_a_published_whisper(ended, tmp_path, model_type, options, padded):
    shutil.copytree(ended / "run", tmp_path / "old")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    recipe = json.loads((tmp_path / "old" / "recipe.json").read_text())
    recipe["model"]["audio"] |= {"source": str(tmp_path), "kind": None, "config": None, "options": options}
    for lessons in (True, False):
        if not lessons:
            del recipe["stages"][0]["lessons"]
        (tmp_path / "old" / "recipe.json").write_text(json.dumps(recipe))
        now = RunFolder.read(tmp_path / "old").recipe.model.audio
        assert now.options.get("pad_to_window") == (options.get("pad_to_window") if lessons else padded)


@pytest.mark.slow
def test_data_in_the_run_folder_move_along(data, ended, tmp_path):
    shutil.copytree(ended / "run", tmp_path / "first")
    shutil.rmtree(tmp_path / "first" / "final")
    shutil.copytree(data.parent, tmp_path / "first" / "data")
    inside = tmp_path / "first" / "data" / data.name
    recipe = tiny_recipe(inside, steps=3, evaluation=Evaluation(data=str(inside), every=2))
    go(recipe, tmp_path / "first", resume=True)
    assert f'"./data/{data.name}"' in named(tmp_path / "first") and str(inside) not in named(tmp_path / "first")
    (tmp_path / "first").rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "final")
    shutil.rmtree(tmp_path / "moved" / "checkpoints" / "step-00000003")
    go(None, tmp_path / "moved", resume=True)
    assert RunFolder.read(tmp_path / "moved").recipe.stages[0].mixture[0].path == str(
        tmp_path / "moved" / "data" / data.name
    )


@pytest.mark.slow
def test_an_adapter_of_a_later_stage_holds_its_base(data, tmp_path):
    from weft.generation.loading import load_parts

    whole = tiny_recipe(data, tiny_spec(), steps=1)
    lora = whole.stages[0].model_copy(update={"parts": {"language": PartTraining(train="lora")}})
    out, _ = go(whole.model_copy(update={"stages": (whole.stages[0], lora)}), tmp_path / "run", adapter_only=True)
    shutil.move(out, tmp_path / "adapter")
    shutil.rmtree(tmp_path / "run")
    load_parts(tmp_path / "adapter")


def test_a_copy_is_another_run_for_wandb(ended, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **options: begun.append(options["id"])))
    for place in ("a", "b"):
        shutil.copytree(ended / "run", tmp_path / place / "run")
        RunFolder.reopen(tmp_path / place / "run")
        facts = json.loads((tmp_path / place / "run" / "run.json").read_text())
        (tmp_path / place / "run" / "run.json").write_text(json.dumps(facts | {"moved": facts["moved"] + len(begun)}))
        log.Log(tmp_path / place / "run", loggers=["wandb"])
    log.Log(tmp_path / "b" / "run", loggers=["wandb"])
    assert begun[0] != begun[1] == begun[2]


def test_one_process_at_a_time_is_at_work_on_a_run(ended, data, tmp_path):
    shutil.copytree(ended / "run", tmp_path / "run")
    said = r": process \d+ on .* is at work on it; wait for it"
    with alone_in(tmp_path / "run"), pytest.raises(WeftError, match=said):
        go(None, tmp_path / "run", resume=True)
    with alone_in(tmp_path / "new"), pytest.raises(WeftError, match=said):
        go(tiny_recipe(data, steps=1), tmp_path / "new")
    go(tiny_recipe(data, steps=1), tmp_path / "new")


@pytest.fixture(scope="module")
def cut(data, tmp_path_factory):
    """A run that stopped in its second stage."""
    run = tmp_path_factory.mktemp("cut") / "run"
    recipe = tiny_recipe(data, steps=2, recipe={"checkpoint_every": 1, "keep_last": 3})
    go(recipe.model_copy(update={"stages": recipe.stages * 2}), run, draw=draw)
    shutil.rmtree(run / "final")
    (run / "steps.json").write_text('{"1": {"minutes": null, "steps": 2}}')
    return run


def emptied(file):
    file.write_bytes(b"")


def halved(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def overwritten(file):
    file.write_bytes(bytes((i * 7919 + 13) % 256 for i in range(max(50, file.stat().st_size))))


def other_json(file):
    file.write_bytes(b'[1, null, "x"]\n')


def endless(file):
    file.write_text('{"1": {"minutes": null, "steps": 1e999}, "out": 1e999}')


def nested(file):
    file.write_text("[" * 100_000)


def taken_away(file):
    file.unlink()


def made_a_folder(file):
    file.unlink()
    file.mkdir()


@pytest.mark.slow
@pytest.mark.drawn
@pytest.mark.parametrize(
    ("name", "damages"),
    [
        ("log.jsonl", (emptied, halved, overwritten, other_json, taken_away)),
        ("steps.json", (emptied, halved, overwritten, other_json, taken_away, made_a_folder, endless, nested)),
        ("progress.png", (emptied, made_a_folder)),
        ("checkpoints/step-00000002/state.json", (other_json,)),
    ],
)
def test_what_can_be_made_again_is(cut, tmp_path, name, damages):
    for damage in damages:
        run = tmp_path / damage.__name__
        shutil.copytree(cut, run)
        for file in run.glob(name):
            damage(file)
        drawn = {} if name == "steps.json" else {"draw": draw}  # of the log alone
        assert go(None, run, resume=True, **drawn)[0].is_dir()


@pytest.mark.parametrize("damage", [emptied, halved, overwritten, taken_away, made_a_folder, other_json])
@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_passed_over_and_named(cut, tmp_path, name, damage):
    shutil.copytree(cut / "checkpoints", tmp_path / "checkpoints")
    damage(tmp_path / "checkpoints" / "step-00000004" / name)
    found = newest(tmp_path / "checkpoints")
    assert found.step == 3
    assert [path.name for path in newer(tmp_path / "checkpoints", found)] == ["step-00000004"]


def test_that_a_checkpoint_was_passed_over_is_said(cut, tmp_path):
    shutil.copytree(cut, tmp_path / "run")
    halved(tmp_path / "run" / "checkpoints" / "step-00000004" / "weights.safetensors")
    assert "step-00000004 is damaged and passed over" in go(None, tmp_path / "run", resume=True)[1]


@pytest.mark.parametrize(
    "damage", [emptied, halved, overwritten, taken_away, made_a_folder, other_json, endless, nested]
)
@pytest.mark.parametrize("name", ["run.json", "recipe.json"])
def test_what_cannot_be_made_again_is_named_in_a_sentence(cut, tmp_path, name, damage):
    shutil.copytree(cut, tmp_path / "run")
    damage(tmp_path / "run" / name)
    said = ".*it is empty" if damage is emptied else ""
    with pytest.raises(WeftError, match=rf"{name}{said}.*(start a new run|start one without --resume)"):
        go(None, tmp_path / "run", resume=True)
    with pytest.raises(WeftError):
        RunFolder.read(tmp_path / "run")


def test_a_file_is_not_taken_for_the_finished_model(cut, tmp_path):
    shutil.copytree(cut, tmp_path / "run")
    (tmp_path / "run" / "final").write_text("")
    with pytest.raises(WeftError, match="final: is a file, where the folder of the model is to be; move it away"):
        go(None, tmp_path / "run", resume=True)


def test_samples_that_changed_since_the_checkpoint_are_said(cut, data, tmp_path):
    shutil.copytree(cut, tmp_path / "run")
    assert "not those of the checkpoint" not in go(None, tmp_path / "run", resume=True)[1]
    shutil.copytree(cut, tmp_path / "other")
    text = (data.parent / "train.jsonl").read_text()
    more = data.parent / "more.jsonl"
    more.write_text(text + text)
    recipe = RunFolder.read(tmp_path / "other").recipe
    stages = [
        s.model_copy(update={"mixture": (s.mixture[0].model_copy(update={"path": str(more)}),)}) for s in recipe.stages
    ]
    said = go(recipe.model_copy(update={"stages": tuple(stages)}), tmp_path / "other", resume=True)[1]
    assert "the samples are not those of the checkpoint" in said


@pytest.mark.parametrize("written", [0, *(slow(n) for n in (1, 2)), 3])
def test_what_a_full_disk_advises_works_whenever_it_came(data, tmp_path, monkeypatch, capsys, written):
    """The first files of a run: run.json, recipe.json, the log, the lengths of samples, the first checkpoint."""
    (tmp_path / "mine.json").write_text(tiny_recipe(data, steps=1).model_dump_json())
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\nfrom weft.training.recipe import Recipe\n"
        "def recipe():\n    return Recipe.model_validate_json((Path(__file__).parent / 'mine.json').read_text())\n"
    )
    command = ["train", str(tmp_path / "mine.py"), "-o", str(tmp_path / "run")]
    left, fsync = [written], os.fsync

    def full(handle):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert weft(command) == 2
    said = capsys.readouterr().err
    assert "the disk is full" in said
    resume = re.search(r"weft (train --resume \S+)", said)
    assert resume or "run it again" in said
    assert weft(resume[1].split() if resume else command) == 0
