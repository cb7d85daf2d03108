"""``weft.train`` and ``weft.finetune`` do what the commands do."""

import json
import re
import shutil
from io import StringIO

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import weft
from training_world import picture, text, tiny_recipe, tiny_spec, write
from weft.cli import run as command
from weft.training.build import build_model
from weft.training.export import save_model


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("samples"), 12)


@pytest.fixture
def recipe(data, tmp_path):
    """A recipe file of two stages, and its value."""
    one = tiny_recipe(data, steps=2)
    value = one.model_copy(
        update={"stages": tuple(one.stages[0].model_copy(update={"name": name}) for name in ("a", "b"))}
    )
    (tmp_path / "mine.json").write_text(value.model_dump_json())
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\nfrom weft.training.recipe import Recipe\n"
        "def recipe():\n    return Recipe.model_validate_json((Path(__file__).parent / 'mine.json').read_text())\n"
    )
    return tmp_path / "mine.py", value


def alike(one, other):
    """Whether two runs were of one recipe and left one model."""
    said = [(run / "recipe.json").read_text() for run in (one, other)]
    first, second = (load_file(run / "final" / "model.safetensors") for run in (one, other))
    return said[0] == said[1] and all(torch.equal(first[name], second[name]) for name in first)


def test_python_trains_what_the_command_trains(recipe, data, tmp_path):
    file, value = recipe
    other = write(tmp_path / "other", 6, (text,))
    options = ["--stage", "b", "--data", str(other), "--set", "stages.0.optim.lr=0.002", "--on-bad-sample", "skip"]
    assert command(["train", str(file), "-o", str(tmp_path / "told"), "--threads", "1", *options]) == 0
    asked = {"stages": ["b"], "changes": {"stages.0.optim.lr": 0.002}, "on_bad_sample": "skip", "threads": 1}
    quiet = Console(file=StringIO())
    for place, (named, files) in enumerate(
        ((file, str(other)), (value, {"train": other}), (value, [f"train={other}"]))
    ):
        out = weft.train(named, tmp_path / str(place), data=files, console=quiet, **asked)
        assert out == tmp_path / str(place) / "final" and alike(tmp_path / "told", tmp_path / str(place))


@pytest.mark.slow
def test_a_run_is_resumed_with_changes(recipe, tmp_path):
    quiet = Console(file=StringIO())
    weft.train(recipe[1], tmp_path / "run", console=quiet)
    shutil.rmtree(tmp_path / "run" / "final")
    weft.train(run=tmp_path / "run", resume=True, changes={"stages.1.steps": 3}, console=quiet)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in log if r["event"] == "step"] == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_a_metric_is_measured_as_the_report_measures_it(recipe, data, tmp_path):
    changes = {"stages.0.evaluation": {"data": str(data), "every": 2, "metric": "refer.box_accuracy_50", "limit": 3}}
    weft.train(recipe[1], tmp_path / "run", stages="a", changes=changes, console=Console(file=StringIO()))
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    (told,) = [r for r in log if r["event"] == "eval"]
    assert {"loss", "refer.box_accuracy_50", "transcribe.wer"} <= told.keys()


@pytest.mark.slow
def test_python_finetunes_what_the_command_finetunes(data, tmp_path):
    save_model(*build_model(tiny_spec()), tmp_path / "base")
    dev = write(tmp_path / "dev", 1, (picture,))
    options = ["--eval-data", str(dev), "--steps", "1", "--lora", "--lr", "0.01", "--metric", "refer.box_accuracy_50"]
    command(["finetune", str(tmp_path / "base"), "--data", str(data), "-o", str(tmp_path / "told"), *options])
    said = Console(file=StringIO(), width=1000)
    asked = {"eval_data": dev, "steps": 1, "full": False, "lr": 0.01, "metric": "refer.box_accuracy_50"}
    out = weft.finetune(tmp_path / "base", str(data), tmp_path / "made", console=said, **asked)
    assert out == tmp_path / "made" and "trains in full" not in said.file.getvalue()
    runs = [(tmp_path / f"{name}.run" / "recipe.json").read_text() for name in ("told", "made")]
    assert runs[0] == runs[1]
    weft.finetune(tmp_path / "base", str(data), tmp_path / "full", steps=1, console=said)
    assert "trains in full" in said.file.getvalue()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "name a recipe"),
        ({"recipe": "no_such"}, "no recipe no_such"),
        ({"run": "x", "resume": True, "data": "a.jsonl"}, "takes the recipe and the data from the run"),
        ({"resume": True}, "takes the recipe and the data from the run"),
        ({"run": "no/such/run", "resume": True}, "is not the folder of a run"),
        ({"recipe": "digits", "stages": ["later"]}, re.escape("--stage later: the recipe digits has the stages")),
        ({"recipe": "digits", "changes": {"stages.0.step": 1}}, "did you mean steps"),
    ],
)
def test_a_mistake_is_a_weft_error(asked, said, data):
    if "changes" in asked:
        asked = {**asked, "data": str(data)}
    with pytest.raises(weft.WeftError, match=said):
        weft.train(**asked)
