"""Features of frozen encoders are computed once, and are those that the encoder would give."""

import json
from functools import partial
from io import StringIO

import pytest
import torch
from rich.console import Console

from marks import slow
from training_world import picture, speech, tiny_recipe, tiny_spec, write
from weft.data.augment import Augment
from weft.data.loader import SourceSpec, TrainingData
from weft.training.build import build_model
from weft.training.features import FeatureStore, Recalled, fingerprint, recalled_towers
from weft.training.parts import apply_parts
from weft.training.recipe import Evaluation, PartTraining, Stage
from weft.training.run import train
from weft.training.update import backward

CONNECTORS = {name: PartTraining(train="full") for name in ("vision_connector", "audio_connector")}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("samples"), 12, (speech, picture))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def made():
    return build_model(tiny_spec())


def gradients(model, batches, precision):
    model.zero_grad()
    losses = backward(model, batches, precision=precision)
    return losses["loss"], {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("precision", ["float32", slow("bfloat16")])
@pytest.mark.parametrize("packing", [True, False])
def test_losses_and_gradients_are_those_without(data, made, precision, packing):
    """To the rounding of a batch of another make-up; the epochs that follow the first are as it was, bit for bit."""
    model, processor = made
    stage = Stage(parts=CONNECTORS)
    apply_parts(model, stage)
    loader = TrainingData([SourceSpec(data)], processor, row_tokens=200, rows=3, packing=packing)
    batches = [next(loader.batches(start)) for start in (0, 1)]
    loss, without = gradients(model, batches, precision)
    said = []
    given = {"half": precision == "bfloat16", "gigabytes": 1, "say": said.append}
    model.recall = recalled_towers(model, stage, loader.specs, **given)
    first_loss, first = gradients(model, batches, precision)
    computed = {part: tower.computed for part, tower in model.recall.items()}
    assert computed["audio"] and computed["vision"] and len(said) == 2
    again_loss, again = gradients(model, batches, precision)
    assert computed == {part: tower.computed for part, tower in model.recall.items()}
    assert first_loss == again_loss and all(torch.equal(first[name], again[name]) for name in first)
    close = {"rtol": 1e-5, "atol": 1e-6} if precision == "float32" else {"rtol": 0.02, "atol": 2e-3}
    torch.testing.assert_close(loss, first_loss, **close)
    torch.testing.assert_close(without, first, **close)


def test_another_weight_setting_precision_or_input_is_another_feature(made, tmp_path):
    model, _ = made
    section = model.config.audio_section
    names = {fingerprint(model.audio, section, half) for half in (True, False)}
    names.add(fingerprint(model.audio, section.model_copy(update={"normalize": True}), False))
    with torch.no_grad():
        next(model.audio.parameters()).flatten()[0] += 1e-4
    names.add(fingerprint(model.audio, section, False))
    assert len(names) == 4
    tower = Recalled(model.audio.eval(), FeatureStore(tmp_path, "a", 1 << 20, print), torch.float32)
    mel = torch.randn(1, 40, 20)
    for given in (mel, mel * 1.001, mel[:, :30]):
        tower(given, torch.tensor([given.shape[1]]))
    tower(mel, torch.tensor([30]))  # what lies behind its end is none of the clip
    assert (tower.computed, tower.recalled) == (3, 1)


@pytest.mark.parametrize("harm", ["cut", "flipped", "gone"])
def test_what_is_damaged_is_computed_again_and_said(tmp_path, harm):
    said = []
    FeatureStore(tmp_path, "a", 1 << 20, said.append).write({"one": torch.arange(400.0), "two": torch.ones(3)})
    store = FeatureStore(tmp_path, "a", 1 << 20, said.append)
    (file,) = store.folder.iterdir()
    whole = file.read_bytes()
    if harm == "cut":
        file.write_bytes(whole[:-100])
    elif harm == "flipped":
        file.write_bytes(whole[:-900] + bytes([whole[-900] ^ 1]) + whole[-899:])
    else:
        file.unlink()  # another process needed the room
    assert [store.read(key) for key in ("one", "none")] == [None, None]
    assert [f"{file} is damaged" in line for line in said] == ([] if harm == "gone" else [True])
    store.write({"one": torch.arange(400.0)})
    assert torch.equal(FeatureStore(tmp_path, "a", 1 << 20, said.append).read("one"), torch.arange(400.0))


def test_the_oldest_go_where_there_is_no_room_but_never_one_s_own(tmp_path):
    def fill(name, said):
        store = FeatureStore(tmp_path, name, 20_000, said.append)
        for i in range(8):
            store.write({f"{name}{i}": torch.full((1000,), float(i))})
        return store

    first, second, said = fill("a", []), fill("b", said := []), said
    assert len(said) == 1 and "no more are kept" in said[0]
    assert len(list(tmp_path.glob("*/*"))) == 4
    assert [first.read(f"a{i}") is None for i in range(4)] == [True] * 4  # taken away by the second
    assert torch.equal(second.read("b3"), torch.full((1000,), 3.0)) and second.read("b7") is None


def run(recipe, folder):
    console = Console(file=StringIO(), width=10_000)
    train(recipe, folder, recall=recalled_towers, console=console)
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    kept = {row["part"]: (row["computed"], row["recalled"]) for row in rows if row["event"] == "features"}
    return [row["loss"] for row in rows if row["event"] == "step"], kept, console.file.getvalue()


def connecting(data, **more):
    dev = Evaluation(data=str(data), every=3)
    return tiny_recipe(data, parts=CONNECTORS, evaluation=dev, **{"recipe": {"features_gb": 1}, **more})


@pytest.mark.slow
def test_a_run_computes_what_no_other_has(data, tmp_path):
    recipe = connecting(data)
    losses, kept, said = run(recipe, tmp_path / "first")
    assert kept["audio"][0] == kept["vision"][0] == 6 and kept["audio"][1] > 6  # twelve samples, several epochs
    assert "audio is frozen: its features are kept in" in said
    again, kept, _ = run(recipe, tmp_path / "second")
    assert again == losses and kept["audio"][0] == kept["vision"][0] == 0


@pytest.mark.slow
def test_a_run_keeps_features_of_what_stays_the_same_and_learns_as_without(data, tmp_path):
    recipe = partial(connecting, data)
    losses, _, _ = run(recipe(), tmp_path / "first")
    plain, kept, _ = run(recipe(recipe={"features_gb": 0}), tmp_path / "without")
    assert kept == {} and plain == pytest.approx(losses, rel=1e-4)
    _, kept, said = run(recipe(augment=Augment(gain_db=3, untimed=0.5)), tmp_path / "changed")
    assert set(kept) == {"vision"} and "audio is frozen, but what it is given changes (gain_db)" in said
    trained = {**CONNECTORS, "vision": PartTraining(train="lora")}
    assert set(
        run(
            recipe(augment=Augment(color=0.1)).model_copy(
                update={"stages": (recipe().stages[0].model_copy(update={"parts": trained}),)}
            ),
            tmp_path / "trained",
        )[1]
    ) == {"audio"}
