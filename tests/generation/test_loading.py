"""A folder that cannot be loaded is named, with what is wrong with it and what to do."""

import importlib.util
import os
import shutil

import pytest

from weft.conversation import WeftError
from weft.generation.configuration import load_config
from weft.generation.loading import load_parts, load_processor


@pytest.fixture
def folder(model, tmp_path):
    model.model.save_pretrained(tmp_path / "model")
    model.processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_whole_folder_loads(model, folder):
    assert load_config(folder).text_config.vocab_size == model.model.config.text_config.vocab_size
    loaded, processor = load_parts(folder, device="cpu")
    assert loaded.num_parameters() == model.model.num_parameters()
    assert processor.dialect.name == model.processor.dialect.name


def test_a_cut_file_of_weights_is_no_defect(folder):
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    with pytest.raises(WeftError, match="a file of weights is cut or damaged .*copy the checkpoint again"):
        load_parts(folder, device="cpu")


def test_what_is_not_in_the_folder_is_named(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(WeftError, match="has no tokenizer.json; copy the checkpoint again"):
        load_processor(folder)
    (folder / "processor_config.json").unlink()
    with pytest.raises(WeftError, match="takes token ids only"):
        load_processor(folder)
    (folder / "config.json").unlink()
    with pytest.raises(WeftError, match="holds no model: there is no config.json"):
        load_config(folder)


def test_the_folder_of_a_run_says_where_its_model_is(tmp_path):
    run = tmp_path / "tuned.run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    for model, said in ((None, f"weft train --resume {run}"), (run.with_suffix(""), None), (run / "final", None)):
        if model is not None:
            model.mkdir()
        with pytest.raises(WeftError) as mistake:
            load_config(run)
        assert str(mistake.value).endswith(said + " ends the run" if said else f"its model is {model}")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{}", "its config.json names no model_type"),
        ('{"model_type": "llama"}', "is a llama checkpoint, not a weft one"),
        ("{", "not JSON"),
    ],
)
def test_a_folder_of_something_else(folder, config, said):
    (folder / "config.json").write_text(config)
    for load in (load_config, load_processor, load_parts):
        with pytest.raises(WeftError, match=said):
            load(folder)


def test_names_that_cannot_be_on_the_hub_are_not_asked_for_there(folder):
    shutil.rmtree(folder)
    for name in (folder, "nowhere", f"{folder.parent}/other"):
        with pytest.raises(WeftError, match="there is no model folder"):
            load_config(name)
    with pytest.raises(WeftError, match="a recipe of weft's own"):
        load_config("scratch")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_fewer_bits_without_the_library_are_refused_in_a_sentence(folder):
    for bits, said in ((8, "8 bits needs bitsandbytes"), (3, "8 or 4, not 3")):
        with pytest.raises(WeftError, match=said):
            load_parts(folder, device="cpu", bits=bits)
