"""Recipes are values: built in, from a user's file, or made for fine-tuning."""

import json

import pytest
import torch

import weft
from training_world import text, tiny_recipe, tiny_spec, write
from weft.conversation import WeftError
from weft.data.augment import Augment
from weft.models.doors import BUILT_IN
from weft.recipes import RECIPES, load_recipe, model_spec, sizes
from weft.recipes.finetune import default_steps, finetune_recipe
from weft.teaching import teach
from weft.training.build import build_model
from weft.training.export import save_model
from weft.training.recipe import PART_NAMES, ModelSpec, Recipe, Source


@pytest.mark.parametrize("name", RECIPES)
def test_a_built_in_recipe_is_one_value_that_survives_json(name):
    recipe = load_recipe(name)
    assert isinstance(recipe, Recipe) and recipe.name.startswith(name)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_built_in_recipe_names_only_lessons_that_there_are(name):
    for size in sizes(name) or (None,):
        for number, stage in enumerate(load_recipe(name, size).stages):
            assert list(teach(stage, f"stages.{number}").objectives(0))


def test_the_model_from_scratch_is_the_same_every_time_and_small():
    (one, processor), (other, _) = (
        (found.model, found.processor) for found in (weft.load("scratch") for _ in range(2))
    )
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert one.num_parameters() < 10_000_000 and not one.training
    assert all(one.part(name) for name in PART_NAMES)
    assert processor.audio is not None and processor.vision is not None


def test_every_name_of_a_built_in_model_has_its_parts(tmp_path):
    for name in BUILT_IN:
        assert model_spec(name).language is not None
    assert model_spec(str(tmp_path)) == ModelSpec(base=str(tmp_path))


def test_a_users_file_gives_its_recipe(tmp_path):
    recipe = tiny_recipe(tmp_path / "data.jsonl")
    (tmp_path / "mine.json").write_text(recipe.model_dump_json())
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\nfrom weft.training.recipe import Recipe\n"
        "def recipe():\n"
        "    return Recipe.model_validate_json((Path(__file__).parent / 'mine.json').read_text())\n"
    )
    assert load_recipe(str(tmp_path / "mine.py")) == recipe


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def recipe():\n    return 3\n", "returns a weft.training.recipe.Recipe"),
        ("x = 1\n", r"needs a function recipe\(\)"),
        ("def recipe():\n    y = 1\n    return 1 / 0\n", r"mine\.py:3: ZeroDivisionError"),
        ("def recipe(:\n", r"mine\.py:1: SyntaxError"),
        (
            "from weft.training.recipe import Stage\ndef recipe():\n    return Stage(stepz=1)\n",
            r"mine\.py:3: .*stepz.* did you mean steps",
        ),
        (
            "from weft.training.recipe import Stage\ndef recipe():\n    return Stage(steps=0, name=3)\n",
            r"mine\.py:3: name: input should be a valid string \(and 1 more\); correct",
        ),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path, monkeypatch, code, said):
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    for path in (str(tmp_path / "mine.py"), "mine.py"):
        with pytest.raises(WeftError, match=said):
            load_recipe(path)


def test_base_and_parts_of_a_users_file_both_stay_to_be_refused(tmp_path):
    recipe = tiny_recipe(tmp_path / "data.jsonl")
    both = recipe.model_copy(update={"model": recipe.model.model_copy(update={"base": "scratch"})})
    (tmp_path / "mine.json").write_text(both.model_dump_json())
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\nfrom weft.training.recipe import Recipe\n"
        "def recipe():\n"
        "    return Recipe.model_validate_json((Path(__file__).parent / 'mine.json').read_text())\n"
    )
    with pytest.raises(WeftError, match="either base or parts"):
        build_model(load_recipe(str(tmp_path / "mine.py")).model)


def test_an_unknown_recipe_lists_the_known_ones(tmp_path):
    with pytest.raises(WeftError, match="built-in are digits, cells"):
        load_recipe("digit")
    with pytest.raises(WeftError, match="no such file"):
        load_recipe(str(tmp_path / "none.py"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_model(*build_model(tiny_spec()), path)
    return path


def test_finetuning_takes_lora_for_a_trained_model_and_everything_for_a_small_one(checkpoint, tmp_path, monkeypatch):
    from weft.recipes import finetune

    data = [Source(path=str(write(tmp_path, 9, (text,))))]
    small = finetune_recipe(str(checkpoint), data).stages[0]
    assert {p.train for p in small.parts.values()} == {"full"} and set(small.parts) == set(PART_NAMES)
    monkeypatch.setattr(finetune, "SMALL", 10)
    large = finetune_recipe(str(checkpoint), data).stages[0]
    assert large.parts["language"].train == "lora" and large.parts["audio_connector"].train == "full"
    assert "audio" not in large.parts and large.optim.lr < small.optim.lr
    full = finetune_recipe(str(checkpoint), data, full=True, steps=7).stages[0]
    assert full.parts["audio"].train == "full" and full.steps == 7


def test_lines_that_cannot_be_read_are_left_to_the_measuring(tmp_path):
    """Which names or skips them, as the user says."""
    path = write(tmp_path, 6, (text,))
    path.write_text("{broken\n" + path.read_text())
    assert finetune_recipe("scratch", [Source(path=str(path))]).stages[0].steps > 0


def test_more_samples_take_more_steps():
    for small in (True, False):
        steps = [default_steps(n, small, False) for n in (1, 100, 1000, 10**6)]
        assert steps == sorted(steps) and steps[0] >= 50
    assert default_steps(500, small=True, pictures=True) > default_steps(500, small=True, pictures=False)


def test_a_model_from_nothing_listens_first_and_a_trained_one_does_not(checkpoint, tmp_path):
    data = [Source(path=str(write(tmp_path, 3, (text,))))]
    new, trained = (finetune_recipe(model, data).stages[0] for model in ("scratch", str(checkpoint)))
    listen = new.lessons["listen"]
    assert listen["weight"] > 0 and 0 < listen["first"] < new.steps
    assert "listen" not in trained.lessons


def test_a_trained_model_whose_media_name_their_places_goes_on_listening(checkpoint, tmp_path, monkeypatch):
    from weft.recipes import finetune

    data = [Source(path=str(write(tmp_path, 9, (text,))))]
    monkeypatch.setattr(finetune, "SMALL", 10)
    plain = finetune_recipe(str(checkpoint), data).stages[0]
    assert "listen" not in plain.lessons
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "audio_place_ids": [[10, 5]]}))
    own = finetune_recipe(str(checkpoint), data).stages[0]
    path.write_text(json.dumps(config))
    assert 0 < own.lessons["listen"]["first"] < own.steps and own.row_tokens < plain.row_tokens
    assert own.augment == Augment()  # so what frozen encoders give is kept


@pytest.mark.parametrize(("languages", "usual"), [(("en", "en"), "en"), (("en", "de"), None), ((None, None), None)])
def test_a_language_that_all_speech_shares_is_the_one_meant_where_none_is_named(tmp_path, languages, usual):
    (tmp_path / "a.wav").touch()
    for i, language in enumerate(languages):
        named = {"language": language} if language else {}
        sample = {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "audio", "audio": "a.wav"}, {"type": "task", "task": "transcribe", **named}],
                },
                {"role": "assistant", "content": "one"},
            ]
        }
        (tmp_path / f"{i}.jsonl").write_text(json.dumps(sample) + "\n")
    sources = [Source(path=str(tmp_path / f"{i}.jsonl")) for i in range(len(languages))]
    recipe = finetune_recipe("scratch", sources)
    assert recipe.model.dialect.switches.get("language") == usual


def test_an_adapter_is_to_be_merged_before_it_is_tuned_on(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(WeftError, match="weft merge"):
        finetune_recipe(str(tmp_path), [Source(path=str(write(tmp_path / "data", 2, (text,))))])


def test_what_is_no_checkpoint_is_refused(tmp_path):
    data = [Source(path=str(write(tmp_path, 3, (text,))))]
    with pytest.raises(WeftError, match="holds no model: there is no config.json"):
        finetune_recipe(str(tmp_path), data)
