"""``weft train`` and ``weft finetune`` as a user types them."""

import json

import pytest

from training_world import text, tiny_recipe, tiny_spec, write
from weft.cli import run
from weft.conversation import WeftError
from weft.evaluation.metrics import chosen
from weft.recipes import scratch
from weft.runs import Scorer
from weft.training.build import build_model
from weft.training.export import save_model


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("samples"), 12)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_model(*build_model(tiny_spec()), path)
    return path


@pytest.fixture
def recipe(data, tmp_path):
    (tmp_path / "mine.json").write_text(tiny_recipe(data, steps=3).model_dump_json())
    path = tmp_path / "mine.py"
    path.write_text(
        "from pathlib import Path\nfrom weft.training.recipe import Recipe\n"
        "def recipe():\n    return Recipe.model_validate_json((Path(__file__).parent / 'mine.json').read_text())\n"
    )
    return path


def test_a_recipe_file_trains_with_its_values_changed(recipe, tmp_path, capsys):
    out = tmp_path / "run"
    assert (
        run(["train", str(recipe), "-o", str(out), "--set", "stages.0.optim.lr=0.002", "--set", "stages.0.steps=2"])
        == 0
    )
    saved = json.loads((out / "recipe.json").read_text())
    assert saved["stages"][0]["optim"]["lr"] == 0.002 and saved["stages"][0]["steps"] == 2
    assert capsys.readouterr().out.strip() == str(out / "final")
    assert run(["train", "--resume", str(out)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("by", ["option", "recipe"])
def test_a_built_in_is_a_model_to_start_from(recipe, data, tmp_path, by):
    if by == "recipe":
        recipe.write_text(
            recipe.read_text().replace("return ", "from weft.training.recipe import ModelSpec\n    value = ")
            + "    return value.model_copy(update={'model': ModelSpec(base='scratch')})\n"
        )
    options = ["--model", "scratch"] if by == "option" else []
    assert run(["train", str(recipe), "-o", str(tmp_path / "run"), "--set", "stages.0.steps=1", *options]) == 0
    saved = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert saved["model"] == scratch().model_dump(mode="json")


def test_data_replaces_the_paths_of_sources(recipe, tmp_path, capsys):
    other = write(tmp_path / "other", 6, (text,))
    assert run(["train", str(recipe), "-o", str(tmp_path / "run"), "--data", f"train={other}"]) == 0
    saved = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert saved["stages"][0]["mixture"][0]["path"] == str(other)
    assert run(["train", str(recipe), "-o", str(tmp_path / "no"), "--data", f"digits={other}"]) == 2
    assert "with a name of: train" in capsys.readouterr().err


def test_which_way_is_up_is_what_the_metrics_say():
    assert Scorer().lower_is_better("transcribe.wer_normalized") and not Scorer().lower_is_better("refer.exact")
    for metric in chosen(None):
        assert Scorer().lower_is_better(f"task.{metric.name}") == (metric.better == "lower"), metric.name
    with pytest.raises(WeftError, match="there is no metric 'luck'; choose among"):
        Scorer().lower_is_better("refer.luck")


def test_finetune_writes_a_model_folder_and_its_run_beside_it(checkpoint, data, tmp_path, capsys):
    out = tmp_path / "tuned"
    command = ["finetune", str(checkpoint), "--data", str(data), "-o", str(out), "--steps", "2"]
    assert run([*command, "--eval-data", str(data)]) == 0
    said = capsys.readouterr()
    assert "trains in full" in said.err and said.out.strip() == str(out)
    assert (out / "model.safetensors").exists() and (tmp_path / "tuned.run" / "log.jsonl").exists()
    assert run(command) == 2
    assert "nothing is overwritten" in capsys.readouterr().err


@pytest.mark.slow
def test_finetune_with_lora_writes_an_adapter_that_names_its_base(checkpoint, data, tmp_path):
    out = tmp_path / "adapter"
    command = ["finetune", str(checkpoint), "--data", str(data), "-o", str(out), "--steps", "2", "--lora"]
    assert run([*command, "--adapter-only"]) == 0
    named = json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(checkpoint)
    assert not (out / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--lora", "--full"], "not both"),
        (["--adapter-only"], "add --lora"),
        (["--bits", "3"], "--bits is 4 or 8, not 3"),
        (["--bits", "4", "--full"], "a language model in 4 bits trains through LoRA alone"),
        (["--metric", "refer.box_accuracy_50"], "needs --eval-data"),
        (["--on-bad-sample", "ignore"], "'fail', 'skip'"),
        (["--set", "stages.0.optim.rate=1"], "there are lr"),
        (["--steps", "1" + "0" * 20], "100000000: see weft finetune --help"),
        (["--minutes", "1e400"], "527040: see weft finetune --help"),
        (["--threads", "100000"], "1024: see weft finetune --help"),
        (["--lr", "inf"], "nothing is learned at a rate of inf (--lr): give one above 0"),
        (["--lr", "nan"], "nothing is learned at a rate of nan (--lr): give one above 0"),
        (["--set", "stages.0.rows=1000000"], "stages.0.rows: input should be less than or equal to 65536"),
        (["--set", "stages.0.accumulate=100000"], "less than or equal to 4096"),
        (["--set", "stages.0.row_tokens=1e30"], "stages.0.row_tokens"),
        (["--set", "stages.0.optim.betas=[2,0.9]"], "less than 1"),
        (["--set", "seed=-1"], "greater than or equal to 0"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(checkpoint, data, tmp_path, capsys, options, said):
    command = ["finetune", str(checkpoint), "--data", str(data), "-o", str(tmp_path / "x"), *options]
    assert run(command) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert said in err[-1] and err[-1].startswith("error:")
    assert not (tmp_path / "x").exists()


def test_missing_data_is_named(checkpoint, tmp_path, capsys):
    assert run(["finetune", str(checkpoint), "--data", str(tmp_path / "no.jsonl"), "-o", str(tmp_path / "x")]) == 2
    assert "no.jsonl" in capsys.readouterr().err
    assert run(["train"]) == 2
    assert "name a recipe" in capsys.readouterr().err
