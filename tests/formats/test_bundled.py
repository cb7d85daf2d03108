"""What weft's own model ships is all that it has beyond its parts, and both together are the model again."""

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, WhisperConfig, WhisperForConditionalGeneration

import tiny_model
import weft
from weft.cli import run
from weft.conversation import WeftError
from weft.formats import bundled
from weft.generation.configuration import load_config
from weft.models import own
from weft.models.adapters import PREFIX, WEIGHTS
from weft.models.bytes_tokenizer import bytes_tokenizer
from weft.models.compose import compose
from weft.models.encoders.efficientnet import EfficientNetLiteConfig, EfficientNetLiteForImageClassification
from weft.recipes import load_recipe
from weft.recipes.finetune import finetune_recipe
from weft.training.recipe import Source

TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SOUND = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
SOUND |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_source_positions": 1500}
SOUND |= {"vocab_size": len(bytes_tokenizer()) + 1, "eos_token_id": len(bytes_tokenizer())}
SOUND |= {"pad_token_id": 0, "bos_token_id": 1, "decoder_start_token_id": 3, "begin_suppress_tokens": None}
WRITTEN = {"kind": "transcript", "merge": 5, "vocab_size": SOUND["vocab_size"], "heads": 4}
SEEN = {"kind": "detector", "merge": 4, "grid": True, "hidden": 32, "heads": 4, "written": 24, "places": 0.1}
SEEN |= {"tally": True, "classes": 3}
SIGHT = {
    "channels": [8, 8, 8, 8, 12, 12, 12, 16],
    "depths": [1] * 7,
    "head": 16,
    "id2label": dict(enumerate(("cow, ox", "horse", "cat"))),
}


@pytest.fixture(scope="module")
def shipping():
    """The script that takes out of a model what is shipped."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(Path(__file__).parents[2]))
        yield importlib.import_module("benchmarks.ship_bundled")


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, Path]:
    """Folders as `weft parts` makes them, of tiny models."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    tokenizer = bytes_tokenizer()
    text = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, tie_word_embeddings=True, **TEXT)
    AutoModelForCausalLM.from_config(text).half().save_pretrained(folder / "language")
    tokenizer.save_pretrained(folder / "language")
    WhisperForConditionalGeneration(WhisperConfig(**SOUND)).half().save_pretrained(folder / "audio")
    theirs = bytes_tokenizer()
    theirs.add_special_tokens({"eos_token": "<|endoftranscript|>"})
    theirs.save_pretrained(folder / "audio")
    EfficientNetLiteForImageClassification(EfficientNetLiteConfig(**SIGHT)).save_pretrained(folder / "vision")
    return {role: folder / role for role in ("language", "audio", "vision")}


@pytest.fixture(scope="module")
def trained(parts, tmp_path_factory) -> Path:
    """A finished model: connectors, rows of tokens, LoRA of two stages, merged one after the other, and an ear that
    was taught through a smaller one."""
    sees = {"source": str(parts["vision"]), "options": {"stages": (3, 7), "size": (64, 64)}, "connector": SEEN}
    hears = {"source": str(parts["audio"]), "kind": "transcript", "connector": WRITTEN}
    model, processor = compose(sees, hears, str(parts["language"]))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "_connector" in name:
                weight.add_(0.1 * torch.randn_like(weight))
            elif name.startswith(("language_model", "audio.tower")) and "_proj" in name and weight.ndim == 2:
                for rank in (3, 2) if name.startswith("language_model") else (2,):
                    weight.add_(0.02 * torch.randn(len(weight), rank) @ torch.randn(rank, weight.shape[1]))
        rows = model.get_input_embeddings().weight
        rows[[5, 9]] += 0.3
        rows[len(bytes_tokenizer()) :] += 0.1
    folder = tmp_path_factory.mktemp("trained")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def shipped(shipping, parts, trained, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shipped") / "bundled"
    folder.mkdir()
    (folder / "LICENSE").write_text("as it was")
    assert shipping.ship(trained, parts, "owner/language", folder, rank=5)["lora"] == 26
    return folder


def test_the_shipped_and_the_parts_are_the_model_again(parts, trained, shipped, tmp_path):
    out = tmp_path / "bundled"
    bundled.put_together(shipped, parts, out)
    wanted, found = load_file(trained / "model.safetensors"), load_file(out / "model.safetensors")
    assert wanted.keys() == found.keys()
    assert found["audio_connector.spelling"].equal(wanted["audio_connector.spelling"])
    for name, value in wanted.items():
        own = "vision.tower" not in name
        torch.testing.assert_close(found[name], value, rtol=2e-3 if own else 0, atol=1e-3 if own else 0)
        assert found[name].dtype == value.dtype
    held = load_file(shipped / "adapter_model.safetensors")
    assert "vision_connector.photographs.spelling" in {name.removeprefix(PREFIX) for name in held}
    assert not any(name.removeprefix(PREFIX).startswith("vision.") for name in held)
    assert not any("vision.tower" in name or "norm.weight" in name for name in held if "_connector" not in name)
    ear = next(value for name, value in held.items() if "audio.tower" in name and name.endswith("lora_A.weight"))
    assert len(ear) == 2  # no more than its change takes
    assert (shipped / "LICENSE").read_text() == "as it was"
    indices = json.loads((shipped / "adapter_config.json").read_text())["trainable_token_indices"]
    rows = wanted["language_model.model.embed_tokens.weight"]
    new = list(range(len(bytes_tokenizer()), len(rows)))
    assert indices == {"language_model.model.embed_tokens": [5, 9, *new]}


@pytest.mark.slow
def test_bundled_is_a_model_by_its_name(parts, shipped, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(own, "SHIPPED", tmp_path / "nothing")
    with pytest.raises(WeftError, match="holds no weights of it; take 'scratch'"):
        weft.load("bundled")
    monkeypatch.setattr(own, "SHIPPED", shipped)
    cache = tmp_path / "cache"
    monkeypatch.setattr(own, "user_cache_path", lambda name: cache / name)
    assert weft.resolve("bundled") == "folder"
    assert run(["chat", "bundled", "hello"]) == 2
    assert "fetch them once with `weft parts`" in capsys.readouterr().err
    bundled.put_together(shipped, parts, own.bundled_folder())
    model = weft.load("bundled")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype="uint8"))
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "what is it?"}]
    asked = [{"role": "user", "content": content}]
    assert model.name == "bundled" and model.chat(asked, max_new_tokens=2).text is not None
    samples = tmp_path / "train.jsonl"
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes"}]
    samples.write_text(json.dumps({"messages": turns}))
    recipe = finetune_recipe("bundled", [Source(path=str(samples))])
    assert recipe.model.base == "bundled" and recipe.stages[0].lessons
    with monkeypatch.context() as patched:  # of a size to learn through LoRA
        patched.setattr("weft.recipes.finetune.SMALL", 1000)
        recipe = finetune_recipe("bundled", [Source(path=str(samples))])
    assert recipe.stages[0].lessons["listen"]["detect"] == 1.0
    assert load_config("bundled").vision["stages"] == [3, 7]
    out = tmp_path / "tuned"
    given = ["--steps", "1", "--lora", "--adapter-only", "--set", "precision=float32"]
    assert run(["finetune", "bundled", "--data", str(samples), "-o", str(out), *given]) == 0
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "bundled"
    assert weft.load(out).chat("hello", max_new_tokens=2).text is not None
    shutil.rmtree(own.bundled_folder())
    with pytest.raises(WeftError, match="weft parts"):
        weft.load(out)


def test_what_cannot_be_shipped_is_refused(shipping, parts, trained, shipped, tmp_path, monkeypatch):
    with pytest.raises(WeftError, match="rank 2 leaves .*take a higher --rank"):
        shipping.ship(trained, parts, "owner/language", tmp_path / "out", rank=2)
    monkeypatch.setattr(shipping, "MOST_BYTES", 10_000)
    with pytest.raises(WeftError, match="MB beyond its parts, and 25 may be shipped"):
        shipping.ship(trained, parts, "owner/language", tmp_path / "out", rank=5)
    other = tiny_model.tiny()
    other.model.save_pretrained(tmp_path / "other")
    shutil.copyfile(tmp_path / "other" / "config.json", tmp_path / "config.json")
    for file in shipped.iterdir():
        if file.name != "config.json":
            shutil.copyfile(file, tmp_path / file.name)
    with pytest.raises(WeftError, match="it belongs to another model, so install weft again"):
        bundled.put_together(tmp_path, parts, tmp_path / "never")
    assert not (tmp_path / "never").exists() and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_lora_for_media_stays_apart_and_is_shipped_again(shipping, parts, shipped, tmp_path):
    source = tmp_path / "shipped"
    shutil.copytree(shipped, source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"lora_for_media": True}))
    out = tmp_path / "bundled"
    bundled.put_together(source, parts, out)
    base = AutoModelForCausalLM.from_pretrained(parts["language"]).float().eval()
    held = load_file(out / "base" / "model.safetensors")
    rows, own = held["language_model.model.embed_tokens.weight"], base.get_input_embeddings().weight
    placeholders = [
        config["image_token_id"],
        config["audio_token_id"],
    ]  # a detector tells by them that there is nothing
    new = [n for n in range(len(own), len(rows)) if n not in placeholders]
    assert rows[: len(own)].equal(own) and rows[new].allclose(own.mean(0).expand(len(new), -1))
    shipped_rows = next(v for n, v in load_file(source / "adapter_model.safetensors").items() if ".token_adapter." in n)
    ids = next(iter(json.loads((source / "adapter_config.json").read_text())["trainable_token_indices"].values()))
    assert rows[placeholders].equal(shipped_rows[[ids.index(n) for n in placeholders]].float())
    trained = next(iter(json.loads((out / "adapter_config.json").read_text())["trainable_token_indices"].values()))
    assert set(trained) == set(ids) - set(placeholders)  # whoever trains on does not move them
    model, merged = weft.load(out), tmp_path / "merged"
    ids = torch.tensor([[5, 9, 40, 41, 42]])
    with torch.inference_mode():
        assert model.model(input_ids=ids).logits[..., : len(own)].equal(base(ids).logits)
    assert run(["merge", str(out), "-o", str(merged)]) == 0
    bundled.put_together(shipped, parts, tmp_path / "whole")
    wanted, found = (load_file(folder / "model.safetensors") for folder in (tmp_path / "whole", merged))
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)
    again = tmp_path / "again"
    again.mkdir()
    shipping.ship(out, parts, "owner/language", again, rank=5)
    wanted, found = (load_file(folder / "adapter_model.safetensors") for folder in (source, again))
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        if ".token_adapter." in name or (name.startswith(f"{PREFIX}language_model") and "lora_" in name):
            assert found[name].equal(value)
        assert found[name].shape == value.shape and found[name].dtype == value.dtype
    assert json.loads((again / "config.json").read_text())["lora_for_media"] is True


def test_the_mean_of_two_shipped_folders_has_half_of_each(shipping, shipped, tmp_path):
    means = importlib.import_module("benchmarks.bundled_mean")
    other = tmp_path / "other"
    shutil.copytree(shipped, other)
    config, before = json.loads((other / "adapter_config.json").read_text()), load_file(shipped / WEIGHTS)
    ((table, ids),) = config["trainable_token_indices"].items()
    (other / "adapter_config.json").write_text(json.dumps(config | {"trainable_token_indices": {table: ids[::-1]}}))
    rows = next(name for name in before if ".token_adapter." in name)
    after = {n: (3 * v if v.is_floating_point() else v) for n, v in before.items()}
    save_file({n: v.flip(0).contiguous() if n == rows else v for n, v in after.items()}, other / WEIGHTS)
    found = means.mean(shipped, other)
    for name, value in before.items():
        wanted = 2 * value if value.is_floating_point() else value
        torch.testing.assert_close(found[name], wanted.flip(0) if name == rows else wanted)
    assert all(value.equal(load_file(other / WEIGHTS)[name]) for name, value in means.mean(shipped, other, 1).items())
    save_file({name: value for name, value in after.items() if name != rows}, other / WEIGHTS)
    with pytest.raises(ValueError, match="the same tensors"):
        means.mean(shipped, other)


def test_what_is_shipped_speaks_as_its_recipe_says():
    for name in ("config.json", "processor_config.json"):
        shipped = json.loads((own.SHIPPED / name).read_text())
        told = load_recipe("bundled").model.dialect
        assert shipped.get("config", shipped)["dialect"] == {"name": told.name, "switches": told.switches}
