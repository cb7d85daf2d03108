"""LoRA on a language model whose layers are read in 4 or 8 bits."""

import importlib.util
import json
import shutil

import pytest
import torch

from training_world import text, tiny_recipe, tiny_spec, write
from weft.conversation import WeftError
from weft.generation.loading import load_parts
from weft.recipes.finetune import finetune_recipe
from weft.training import checkpoint as ckpt
from weft.training.build import build_model
from weft.training.parts import apply_parts, dialect_tokens
from weft.training.recipe import ModelSpec, PartTraining, Source
from weft.training.run import train

LORA = {"language": PartTraining(train="lora"), "audio_connector": PartTraining(train="full")}
missing = importlib.util.find_spec("bitsandbytes") is None
able = {4: not missing, 8: not missing or importlib.util.find_spec("torchao") is not None}


def save(spec, folder):
    model, processor = build_model(spec)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Layers 128 wide: those narrower than bitsandbytes' block of 64 cannot be used in 4 bits."""
    spec = tiny_spec()
    config = {**spec.language.config, "hidden_size": 128, "intermediate_size": 256}
    wide = spec.model_copy(update={"language": spec.language.model_copy(update={"config": config})})
    return save(wide, tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data"), 8, (text,))


@pytest.mark.parametrize(
    ("spec", "changes", "said"),
    [
        (
            {},
            {"parts": {"language": PartTraining(train="full")}},
            "a language model in 4 bits trains through LoRA alone",
        ),
        ({}, {"parts": {"audio_connector": PartTraining(train="full")}}, "trains through LoRA alone"),
        ({"base": None, **tiny_spec().model_dump(exclude={"base", "bits"})}, {}, "composed anew; leave bits out"),
    ],
)
def test_what_cannot_be_trained_in_few_bits_is_refused_in_a_sentence(base, data, tmp_path, spec, changes, said):
    model = ModelSpec.model_validate({"base": base, "bits": 4, **spec})
    with pytest.raises(WeftError, match=said):
        train(tiny_recipe(data, model, steps=1, **{"parts": LORA, **changes}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_in_few_bits_is_not_handed_on_to_a_next_stage(base, data, tmp_path):
    recipe = tiny_recipe(data, ModelSpec(base=base, bits=8), steps=1, parts=LORA)
    with pytest.raises(WeftError, match="8 bits cannot be handed on to a next stage"):
        train(recipe.model_copy(update={"stages": recipe.stages * 2}), tmp_path / "run")


@pytest.mark.skipif(not missing, reason="bitsandbytes is installed")
def test_training_in_few_bits_without_the_library_leaves_no_run(base, data, tmp_path):
    with pytest.raises(WeftError, match="4 bits needs bitsandbytes; install it"):
        train(tiny_recipe(data, ModelSpec(base=base, bits=4), steps=1, parts=LORA), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fine_tuning_in_few_bits_is_through_lora_however_small_the_model(base, data):
    source = [Source(path=str(data))]
    recipe = finetune_recipe(base, source, bits=8)
    assert recipe.model.bits == 8 and recipe.stages[0].parts["language"].train == "lora"
    with pytest.raises(WeftError, match="composed anew; leave bits out"):
        finetune_recipe("scratch", source, bits=8)


@pytest.mark.parametrize(
    "bits", [pytest.param(b, marks=pytest.mark.skipif(not able[b], reason="what reads it is missing")) for b in able]
)
def test_an_adapter_learned_in_few_bits_goes_on_the_whole_weights(base, data, tmp_path, bits):
    recipe = tiny_recipe(data, ModelSpec(base=base, bits=bits), steps=20, parts=LORA)
    adapter = train(recipe, tmp_path / "run")
    steps = [e for e in map(json.loads, (tmp_path / "run/log.jsonl").read_text().splitlines()) if e["event"] == "step"]
    assert steps[-1]["loss"] < steps[0]["loss"]
    found = ckpt.newest(tmp_path / "run/checkpoints")
    kept = found.weights()
    assert all("lora_" in n or "trainable_tokens" in n or n.startswith("audio_connector") for n in kept)

    for folder in (adapter, found.path):
        shutil.rmtree(folder)
    assert train(None, tmp_path / "run", resume=True) == adapter
    again = ckpt.newest(tmp_path / "run/checkpoints").weights()
    assert again.keys() == kept.keys() and all(torch.equal(value, kept[name]) for name, value in again.items())

    few, processor = build_model(recipe.model)
    apply_parts(few, recipe.stages[0], tokens=dialect_tokens(processor))
    few.load_state_dict(kept, strict=False)
    whole, _ = load_parts(adapter)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        own, other = few.eval()(input_ids=ids).logits, whole(input_ids=ids).logits
        plain = load_parts(base)[0](input_ids=ids).logits
    off, moved = ((x - other).norm() / other.norm() for x in (own, plain))
    assert off < moved / 2 and {p.dtype for p in whole.parameters()} == {torch.float32}
