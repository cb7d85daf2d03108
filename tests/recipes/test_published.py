"""The published systems as recipes: what is known of them, to the number; and sizes without weights or network."""

import json
import socket
from functools import cache

import pytest

from marks import nightly
from weft.cli import run
from weft.conversation import WeftError
from weft.recipes import RECIPES, load_recipe, sizes
from weft.recipes.files import READERS, how_to_make
from weft.training.sizes import model_size, planned, stage_size

pytestmark = pytest.mark.slow
SIZED = [name for name in RECIPES if sizes(name)]
SYSTEMS = ("minigpt_v2", "llasm", "qwen_audio", "llava", "internvl", "qwen2_audio")


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_):
        raise OSError("this test has no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@cache
def measured(name, size=None):
    recipe = load_recipe(name, size)
    config, processor = planned(recipe.model, outline=True)
    stages = [stage_size(config, stage, recipe, processor) for stage in recipe.stages]
    return model_size(config, processor), stages


def parts(size):
    return {part.name: part.parameters for part in size.parts}


def test_minigpt_v2_is_of_its_published_size(offline):
    size, stages = measured("minigpt_v2")
    assert size.image["tokens"] == 256 and size.image["size"] == [448, 448]
    found = parts(size)
    assert found["vision_connector"] == 23_072_768
    # Llama-2-7B, and rows for the picture's placeholder (64 at a time, in two tables)
    assert found["language"] == 6_738_415_616 + 2 * 64 * 4096
    # The published checkpoint holds exactly these, in each of three stages; the ViT is frozen in all of them.
    assert [stage.trained for stage in stages] == 3 * [{"vision_connector": 23_072_768, "language": 33_554_432}]


def test_minigpt_v2_samples_its_third_stage_as_released():
    """Of train_configs/minigptv2_finetune.yaml: shares of the samples are ratio x batch."""
    mixture = {s.name: s.weight for s in load_recipe("minigpt_v2").stages[2].mixture}
    total = sum(mixture.values())
    assert total == 2850
    flickr = sum(w for name, w in mixture.items() if name.startswith("flickr"))
    assert round(100 * flickr / total) == 17
    assert round(100 * mixture["unnatural_instructions"] / total, 1) == 0.4
    assert mixture["gqa"] == 50 * 6 and mixture["llava_reason"] == 80 * 4


def test_llasm_hears_any_clip_in_64_tokens_and_never_trains_whisper(offline):
    size, stages = measured("llasm")
    assert size.sound["tokens_second"] == size.sound["tokens_window"] == 64 + 2
    assert parts(size)["audio_connector"] == 1280 * 4096 + 4096
    assert [set(stage.trained) for stage in stages] == [{"audio_connector"}, {"audio_connector", "language"}]


def test_llava_is_of_its_published_size(offline):
    size, stages = measured("llava")
    assert size.image["tokens"] == 576 and size.image["size"] == [336, 336]
    projector = 1024 * 4096 + 4096 + 4096 * 4096 + 4096
    # Vicuna-7B, and rows for the picture's placeholder (64 at a time, in two tables), as the conversions have them
    language = 6_738_415_616 + 2 * 64 * 4096
    assert parts(size)["vision_connector"] == projector and parts(size)["language"] == language
    trained = [{"vision_connector": projector}, {"vision_connector": projector, "language": language}]
    assert [stage.trained for stage in stages] == trained


def test_internvl_is_of_its_published_size(offline):
    size, stages = measured("internvl")
    assert size.image == {"size": [448, 448], "tokens": 13 * 256 + 2}  # twelve tiles and the whole
    projector = 2 * 4096 + 4096 * 896 + 896 + 896 * 896 + 896
    assert parts(size)["vision_connector"] == projector
    assert [set(stage.trained) for stage in stages] == [
        {"vision_connector"},
        {"vision", "vision_connector", "language"},
    ]
    assert stages[0].trained == {"vision_connector": projector}


def test_qwen_audio_is_of_its_published_size(offline):
    size, stages = measured("qwen_audio")
    assert 2 * size.parameters == 16_792_444_928  # bytes of the published files, in bfloat16
    assert (size.sound["tokens_second"], size.sound["tokens_window"]) == (25 + 2, 750 + 2)
    assert [set(stage.trained) for stage in stages] == [{"audio", "audio_connector"}, {"language"}]
    # The boundary embeddings train with the encoder; its sinusoids are constants.
    assert stages[0].trained["audio"] == parts(size)["audio"] - 1500 * 1280
    assert load_recipe("qwen_audio").stages[1].steps == 8000


def test_qwen2_audio_learns_with_its_language_model(offline):
    size, stages = measured("qwen2_audio")
    assert (size.sound["tokens_second"], size.sound["tokens_window"]) == (25 + 2, 750 + 2)
    assert [set(stage.trained) for stage in stages] == 2 * [{"audio", "audio_connector", "language"}]


# Qwen3 technical report, table 1: parameters without embeddings, in billions
@pytest.mark.parametrize(("size", "billions"), [("0.6b", 0.44), nightly("1.7b", 1.4), nightly("4b", 3.6), ("8b", 6.95)])
def test_omni_comes_from_small_to_8b(offline, size, billions):
    found, stages = measured("omni", size)
    config, _ = planned(load_recipe("omni", size).model, outline=True)
    text = config.text_config
    tables = (1 if text.tie_word_embeddings else 2) * text.vocab_size * text.hidden_size
    assert (parts(found)["language"] - tables) / 1e9 == pytest.approx(billions, abs=0.05)
    assert set(stages[0].trained) == {"vision_connector", "audio_connector"}
    assert set(stages[1].trained) == {"vision", "vision_connector", "audio", "audio_connector", "language"}
    assert found.sound["tokens_second"] == 13 + 2 and found.sound["tokens_window"] == 375 + 2


@pytest.mark.parametrize("name", SIZED)
def test_sizes_are_shown_without_a_network(offline, capsys, name):
    assert run(["show", name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for stage in found["stages"]:
        memory = stage["memory"]
        assert memory["weights"] >= 4 * found["parameters"] and memory["optimizer"] == 2 * memory["gradients"]
        assert memory["each_of_8"] < 0.6 * memory["total"]
    assert run(["show", f"{name}:tiny"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_sharding_divides_what_the_model_holds_and_nothing_else(offline):
    memory = measured("minigpt_v2")[1][0].memory
    assert memory.each(1) == memory.total
    held = memory.weights + memory.gradients + memory.optimizer
    for devices in (2, 8, 64):
        rest = memory.each(devices) - held / devices
        assert memory.activations + memory.gathered <= rest <= memory.activations + memory.gathered + 1


@pytest.mark.parametrize("name", SIZED)
def test_every_size_has_the_same_stages_and_trains_the_same_parts(name):
    usual = load_recipe(name)
    for size in sizes(name):
        stages = load_recipe(f"{name}:{size}").stages
        assert [s.name for s in stages] == [s.name for s in usual.stages]
        for stage, other in zip(stages, usual.stages, strict=True):
            rows = {"language"} if size == "real" and "language" not in other.parts else set()  # of new tokens
            assert set(other.parts) <= set(stage.parts) <= set(other.parts) | rows
    assert len(usual.stages) == (3 if name == "minigpt_v2" else 2)


def test_a_size_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(WeftError, match="minigpt_v2 has no size 'huge'; its sizes are full, tiny, real"):
        load_recipe("minigpt_v2", "huge")
    with pytest.raises(WeftError, match="digits has no size 'tiny'; it has but one"):
        load_recipe("digits:tiny")
    with pytest.raises(WeftError, match="two sizes"):
        load_recipe("omni:tiny", "8b")
    with pytest.raises(WeftError, match="only built-in recipes"):
        load_recipe("mine.py", "tiny")


@pytest.mark.parametrize("name", SIZED)
def test_data_that_is_not_there_is_answered_with_the_command_that_makes_it(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["train", name, "-o", "run"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    first = load_recipe(name).stages[0].mixture[0]
    assert f"weft data convert {READERS[first.name]} -o {first.path}" in error and f"--data {first.name}=" in error
    assert not (tmp_path / "run").exists()


def test_readers_that_recipes_name_are_there():
    from weft.data.converters import CONVERTERS

    assert {command.split()[0] for command in READERS.values() if command} <= set(CONVERTERS)
    for name in SYSTEMS:
        for source in (s for stage in load_recipe(name).stages for s in stage.mixture):
            assert how_to_make(source.path)
    assert how_to_make("mine/train.jsonl") == ""


def test_a_stage_can_be_run_alone_from_a_published_model(capsys, tmp_path, monkeypatch):
    """`weft train qwen_audio --model FOLDER --stage chat`, in the tiny size, on samples made for it."""
    from weft.playground import tasks
    from weft.training.build import build_model
    from weft.training.export import save_model

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tasks, "PLAYED", 8)
    save_model(*build_model(load_recipe("qwen_audio", "tiny").model), tmp_path / "start")
    call = ["train", "qwen_audio", "--size", "tiny", "--model", "start", "-o", "run"]
    assert run([*call, "--stage", "talk"]) == 2
    assert "has the stages multitask, chat" in capsys.readouterr().err
    assert run([*call, "--stage", "chat", "--set", "stages.0.steps=2", "--threads", "1"]) == 0
    saved = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert [s["name"] for s in saved["stages"]] == ["chat"] and saved["model"]["base"] == str(tmp_path / "start")
    assert (tmp_path / "playground" / "sound_conversation" / "train.jsonl").is_file()
    assert not (tmp_path / "playground" / "transcribe").exists()
    assert (tmp_path / "run" / "final" / "config.json").is_file()
