"""A run: what it leaves, how it ends, and that grouping and interruption change nothing."""

import json
import os
import shutil
import signal
from contextlib import contextmanager
from io import StringIO
from itertools import islice

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from marks import slow
from training_world import ALL, picture, speech, text, tiny_recipe, tiny_spec, write
from weft.conversation import WeftError
from weft.data.augment import Augment
from weft.data.loader import SourceSpec, TrainingData
from weft.training import checkpoint as ckpt
from weft.training import stage
from weft.training.build import build_model
from weft.training.endings import Interrupted, NotFinite
from weft.training.export import save_model
from weft.training.log import Log
from weft.training.parts import constants
from weft.training.picture import draw
from weft.training.ranks import Ranks
from weft.training.recipe import Evaluation, ModelSpec, Optim, PartTraining, Source, Stage
from weft.training.run import train
from weft.training.update import backward

QUIET = Console(file=StringIO())
AUGMENT = Augment(
    gain_db=6, speed=0.1, noise_db=(5, 30), join=0.3, cut=0.3, time_masks=1, time_mask_frames=8, color=0.2
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("samples"), 24)


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    return write(tmp_path_factory.mktemp("dev"), 6, seed=9)


@pytest.fixture(scope="module")
def uncut(data, tmp_path_factory):
    """The weights that six steps without a break lead to."""
    return weights(go(tiny_recipe(data, steps=6), tmp_path_factory.mktemp("uncut") / "run"))


class Scores:
    """An evaluation of answers: what ``score`` gives, and which way is up."""

    def __init__(self, score, lower=False):
        self.score, self.lower = score, lower

    def __call__(self, *asked):
        return self.score(*asked)

    def lower_is_better(self, metric):
        return self.lower


def go(recipe, run, **options):
    return train(recipe, run, **{"console": QUIET, **options})


@contextmanager
def after_step(number, act):
    """``act`` happens as soon as the log has that step."""
    with pytest.MonkeyPatch.context() as patch:
        step = Log.step

        def then(self, **values):
            step(self, **values)
            if values["step"] == number:
                act()

        patch.setattr(Log, "step", then)
        yield


def stop_dead():
    raise KeyboardInterrupt  # at once: nothing more is saved


def weights(path):
    return load_file(path / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def records(run, event="step"):
    return [r for r in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if r["event"] == event]


@pytest.mark.drawn
def test_a_run_leaves_model_log_recipe_and_picture(data, dev, tmp_path):
    from weft.models.modeling import WeftForConditionalGeneration
    from weft.models.processing import WeftProcessor

    recipe = tiny_recipe(data, augment=AUGMENT, evaluation=Evaluation(data=str(dev), every=3), steps=6)
    out = go(recipe, tmp_path / "run", draw=draw)
    model = WeftForConditionalGeneration.from_pretrained(out)
    WeftProcessor.from_pretrained(out)
    assert sum(p.numel() for p in model.parameters()) > 0
    run = tmp_path / "run"
    assert json.loads((run / "recipe.json").read_text()) == recipe.model_dump(mode="json")
    assert {"revision", "torch", "transformers", "command"} <= json.loads((run / "run.json").read_text()).keys()
    assert [r["step"] for r in records(run)] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "lr", "grad_norm", "tokens", "labels", "padding", "seconds", "skipped"} <= records(run)[0].keys()
    assert [r["step"] for r in records(run, "eval")] == [3, 6]
    assert (run / "progress.png").read_bytes()[:4] == b"\x89PNG"


def test_training_lowers_the_loss(tmp_path):
    path = write(tmp_path / "texts", 12, (text,))
    recipe = tiny_recipe(path, steps=40, optim=Optim(lr=1e-2, warmup_steps=5), recipe={"checkpoint_every": 100})
    go(recipe, tmp_path / "run")
    losses = [r["loss"] for r in records(tmp_path / "run")]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


@pytest.mark.slow
def test_interrupted_and_resumed_is_bit_for_bit_the_same(data, tmp_path):
    spec = tiny_spec(dropout=0.1)
    recipe = tiny_recipe(data, spec, augment=AUGMENT, steps=7, accumulate=2)
    whole = go(recipe, tmp_path / "whole")

    run = tmp_path / "cut"
    with after_step(5, stop_dead), pytest.raises(KeyboardInterrupt):
        go(recipe, run)
    assert ckpt.newest(run / "checkpoints").step == 4
    resumed = go(None, run, resume=True)
    assert same(weights(whole), weights(resumed))
    clocks = {"seconds", "waited", "time", "tokens_per_second", "share", "memory_gb"}
    timeless = [
        [{k: v for k, v in r.items() if k not in clocks} for r in records(tmp_path / name)] for name in ("whole", "cut")
    ]
    assert timeless[0] == timeless[1]


def test_a_finished_run_resumes_to_its_model(data, tmp_path):
    recipe = tiny_recipe(data, steps=2)
    out = go(recipe, tmp_path / "run")
    console = Console(file=StringIO(), width=200)
    assert go(None, tmp_path / "run", resume=True, console=console) == out
    assert "is finished" in console.file.getvalue()
    saved = (tmp_path / "run" / "recipe.json").read_bytes()
    with pytest.raises(WeftError, match="is finished, so no value of its recipe can change"):
        go(tiny_recipe(data, steps=4), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "recipe.json").read_bytes() == saved
    out.rename(tmp_path / "earlier")
    go(tiny_recipe(data, steps=4), tmp_path / "run", resume=True)
    assert [r["step"] for r in records(tmp_path / "run")] == [1, 2, 3, 4]


def test_sigterm_saves_and_says_how_to_go_on(data, uncut, tmp_path):
    recipe = tiny_recipe(data, steps=6, recipe={"checkpoint_every": 100})
    before = signal.getsignal(signal.SIGTERM)
    said = pytest.raises(Interrupted, match=r"SIGTERM and saved at step 3; go on with: weft train --resume")
    with after_step(3, lambda: os.kill(os.getpid(), signal.SIGTERM)), said as stop:
        go(recipe, tmp_path / "run")
    assert stop.value.status == 143 and signal.getsignal(signal.SIGTERM) == before
    assert same(uncut, weights(go(None, tmp_path / "run", resume=True)))


def test_one_batch_its_parts_and_the_same_packed_give_one_gradient(data):
    model, processor = build_model(tiny_spec())
    options = {"row_tokens": 256, "packing": False}
    padded = TrainingData([SourceSpec(data)], processor, rows=6, **options)
    parts = TrainingData([SourceSpec(data)], processor, rows=2, **options)
    packed = next(padded.batches())
    packed.inputs = processor.pack([padded.encode(padded.plan[row][0])[0] for row in range(6)])
    gradients = []
    for micro in ([next(padded.batches())], list(islice(parts.batches(), 3)), [packed]):
        model.zero_grad()
        loss = backward(model, micro, precision="float32")["loss"]
        gradients.append((loss, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    for loss, gradient in gradients[1:]:
        assert abs(loss - gradients[0][0]) < 1e-5 and gradient.keys() == gradients[0][1].keys()
        for name, value in gradients[0][1].items():
            assert (gradient[name] - value).abs().max() <= 1e-5 + 1e-4 * value.abs().max(), name


def test_a_micro_step_that_reaches_nothing_trained_adds_nothing(tmp_path):
    path = write(tmp_path / "samples", 12, (text, speech))
    parts = {"audio_connector": PartTraining(train="full")}
    go(tiny_recipe(path, steps=12, row_tokens=64, packing=False, parts=parts), tmp_path / "run")
    norms = [r["grad_norm"] for r in records(tmp_path / "run")]
    assert 0.0 in norms and max(norms) > 0


def test_a_loss_that_is_not_finite_stops_names_the_samples_and_loses_nothing(data, uncut, tmp_path, monkeypatch):
    recipe = tiny_recipe(data, steps=6, recipe={"checkpoint_every": 100})
    calls = []

    def broken(*args, **kwargs):
        calls.append(backward(*args, **kwargs))
        return {"loss": torch.tensor(torch.nan)} if len(calls) == 4 else calls[-1]

    with monkeypatch.context() as patch:
        patch.setattr(stage, "backward", broken)
        said = r"step 4: the loss is not finite on .*jsonl:\d+.*lower the learning rate.*at step 3: weft train"
        with pytest.raises(NotFinite, match=said):
            go(recipe, tmp_path / "run")
    assert records(tmp_path / "run", "not_finite")[0]["samples"]
    assert same(uncut, weights(go(None, tmp_path / "run", resume=True)))


@pytest.mark.slow
def test_a_full_disk_stops_with_a_sentence_and_the_run_goes_on_later(data, uncut, tmp_path, monkeypatch):
    recipe = tiny_recipe(data, steps=6)
    save_file = ckpt.save_file

    def full(tensors, path):
        if "00000004" in str(path):
            raise OSError(28, "No space left on device")
        save_file(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(ckpt, "save_file", full)
        with pytest.raises(ckpt.DiskFull, match="the disk is full.*weft train --resume"):
            go(recipe, tmp_path / "run")
    assert ckpt.newest(tmp_path / "run" / "checkpoints").step == 2
    assert same(uncut, weights(go(None, tmp_path / "run", resume=True)))


def test_a_bad_sample_met_late_is_saved_before_and_named(tmp_path):
    path = write(tmp_path / "clips", 12, (speech,))
    (path.parent / "7.wav").write_bytes((path.parent / "7.wav").read_bytes()[:60])
    recipe = tiny_recipe(path, steps=8, row_tokens=100, recipe={"checkpoint_every": 100})
    with pytest.raises(WeftError, match=r"jsonl:8"):
        go(recipe, tmp_path / "fail")
    skipping = recipe.model_copy(update={"on_bad_sample": "skip"})
    go(skipping, tmp_path / "skip")
    assert records(tmp_path / "skip")[-1]["skipped"] >= 1
    assert any("jsonl:8" in r["problem"] for r in records(tmp_path / "skip", "bad_sample"))


@pytest.mark.slow
@pytest.mark.parametrize("language", ["lora", "full"])
def test_stages_follow_each_other_and_resume_in_the_second(data, tmp_path, language):
    recipe = tiny_recipe(data, steps=3, recipe={"checkpoint_every": 2})
    first = recipe.stages[0].model_copy(
        update={"name": "align", "parts": {"audio_connector": PartTraining(train="full")}}
    )
    second = recipe.stages[0].model_copy(
        update={
            "name": "tune",
            "parts": {**ALL, "language": PartTraining(train=language)},
        }
    )
    recipe = recipe.model_copy(update={"stages": (first, second)})
    whole = go(recipe, tmp_path / "whole")

    run = tmp_path / "run"
    with after_step(5, stop_dead), pytest.raises(KeyboardInterrupt):
        go(recipe, run)
    resumed = go(None, run, resume=True)
    assert same(weights(whole), weights(resumed))
    assert not any("lora" in k for k in weights(resumed))
    assert [r["stage"] for r in records(run)] == ["align"] * 3 + ["tune"] * 3


def test_evaluation_keeps_the_best_and_ends_early(data, dev, tmp_path):
    scores = iter([0.5, 0.9, 0.7, 0.8, 0.6])
    recipe = tiny_recipe(
        data,
        steps=20,
        evaluation=Evaluation(data=str(dev), every=1, metric="transcribe.exact", patience=2),
        recipe={"checkpoint_every": 100, "keep_last": 1},
    )
    out = go(recipe, tmp_path / "run", evaluate=Scores(lambda *_: {"transcribe.exact": next(scores)}))
    assert [r["transcribe.exact"] for r in records(tmp_path / "run", "eval")] == [0.5, 0.9, 0.7, 0.8]
    best = ckpt.best(tmp_path / "run" / "checkpoints", False, [0, "transcribe.exact", str(dev), None])
    assert best.step == 2
    final = weights(out)
    assert all(torch.equal(value, final[name]) for name, value in best.weights().items() if name in final)


@pytest.mark.slow
def test_each_stage_keeps_its_own_best(data, dev, tmp_path):
    """The second stage's figures are lower throughout, as those of another task may be."""
    scores = iter([0.9, 0.8, 0.7, 0.5, 0.4, 0.3])
    one = tiny_recipe(data, steps=3, evaluation=Evaluation(data=str(dev), every=1, metric="transcribe.exact"))
    recipe = one.model_copy(update={"stages": one.stages * 2, "keep_best": 1, "keep_last": 1})
    go(recipe, tmp_path / "run", evaluate=Scores(lambda *_: {"transcribe.exact": next(scores)}))
    assert ckpt.best(tmp_path / "run" / "checkpoints", False, [1, "transcribe.exact", str(dev), None]).step == 4


@pytest.mark.slow
def test_a_metric_that_has_no_value_yet_ends_nothing_and_is_never_the_best(data, dev, tmp_path):
    scores = iter([None, 80.0, None, 90.0])
    evaluation = Evaluation(data=str(dev), every=1, metric="transcribe.word_time_ms", patience=3)
    recipe = tiny_recipe(data, steps=4, evaluation=evaluation)
    go(recipe, tmp_path / "run", evaluate=Scores(lambda *_: {"transcribe.word_time_ms": next(scores)}, lower=True))
    assert [r["transcribe.word_time_ms"] for r in records(tmp_path / "run", "eval")] == [None, 80.0, None, 90.0]
    assert ckpt.best(tmp_path / "run" / "checkpoints", True, [0, "transcribe.word_time_ms", str(dev), None]).step == 2


def test_a_metric_needs_a_scorer_before_the_first_update(data, dev, tmp_path):
    recipe = tiny_recipe(data, evaluation=Evaluation(data=str(dev), every=1, metric="transcribe.exact"))
    with pytest.raises(WeftError, match=r"evaluation\.metric transcribe\.exact needs a scorer"):
        go(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "log.jsonl").exists()


@pytest.mark.slow
def test_samples_left_out_are_counted_once_and_the_scorer_leaves_them_out_too(data, tmp_path):
    broken = tmp_path / "broken.jsonl"
    lines = data.read_text().splitlines()
    lines = [line.replace('"image": "', f'"image": "{data.parent}/').replace('"audio": "', f'"audio": "{data.parent}/')
             for line in lines]  # fmt: skip
    broken.write_text("\n".join([*lines, lines[1].replace(".png", ".gone.png")]) + "\n")
    told = []

    def scorer(model, processor, file, limit, on_bad_sample):
        told.append(on_bad_sample)
        return {"refer.exact": 0.0}

    recipe = tiny_recipe(broken, steps=4, recipe={"on_bad_sample": "skip", "checkpoint_every": 2},
                         evaluation=Evaluation(data=str(broken), every=4, metric="refer.exact"))  # fmt: skip
    go(recipe, tmp_path / "run", evaluate=Scores(scorer))
    whole = records(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "final")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000004")
    go(None, tmp_path / "run", resume=True, evaluate=Scores(scorer))
    assert [r["skipped"] for r in records(tmp_path / "run")] == [r["skipped"] for r in whole]
    assert whole[-1]["skipped"] >= 1 and set(told) == {"skip"}


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3])
def test_samples_left_out_are_listed_once_whenever_a_run_was_killed(data, tmp_path, step):
    """Before the first checkpoint of all, and before the first of the second stage."""
    broken = data.with_name("twice.jsonl")
    broken.write_text(data.read_text() + "{broken\n")
    one = tiny_recipe(broken, steps=2, recipe={"on_bad_sample": "skip", "checkpoint_every": 100})
    recipe = one.model_copy(update={"stages": one.stages * 2})
    go(recipe, tmp_path / "whole")
    with after_step(step, stop_dead), pytest.raises(KeyboardInterrupt):
        go(recipe, tmp_path / "cut")
    go(None, tmp_path / "cut", resume=True)
    told = [
        [(r["step"], r.get("problem"), r.get("skipped")) for kind in ("bad_sample", "step") for r in records(run, kind)]
        for run in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert told[0] == told[1] and len(records(tmp_path / "whole", "bad_sample")) == 2


def test_a_16_bit_base_keeps_what_is_computed_and_not_saved(tmp_path):
    """Rotary frequencies: a folder's reader computes them exactly, so the next stage must train with exact ones."""
    model, processor = build_model(tiny_spec())
    model.config.dtype = torch.bfloat16
    before = {n: b.clone() for n, b in model.named_buffers() if n not in model.state_dict()}
    save_model(model, processor, tmp_path / "saved")
    assert any("inv_freq" in n for n in before)
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers() if n in before)
    saved = weights(tmp_path / "saved")
    assert all(v.dtype == torch.bfloat16 for v in saved.values())
    assert all(torch.equal(p, saved[n].float()) for n, p in model.named_parameters() if n in saved)


def test_an_unknown_metric_is_named(data, dev, tmp_path):
    recipe = tiny_recipe(data, evaluation=Evaluation(data=str(dev), every=1, metric="refer.wer"))
    with pytest.raises(WeftError, match=r'no metric "refer\.wer".*transcribe\.wer'):
        go(recipe, tmp_path / "run", evaluate=Scores(lambda *_: {"transcribe.wer": 1.0}))


@pytest.mark.slow
def test_scores_of_another_kind_are_not_compared(data, dev, tmp_path):
    """The losses of the first evaluations are higher than any share of right answers."""
    evaluation = Evaluation(data=str(dev), every=1)
    out = go(tiny_recipe(data, steps=3, evaluation=evaluation), tmp_path / "run")
    shutil.rmtree(out)
    scores = iter([0.3, 0.6, 0.5])
    changed = Evaluation(data=str(dev), every=1, metric="transcribe.exact", patience=3)
    recipe = tiny_recipe(data, steps=6, evaluation=changed)
    go(recipe, tmp_path / "run", resume=True, evaluate=Scores(lambda *_: {"transcribe.exact": next(scores)}))
    assert ckpt.best(tmp_path / "run" / "checkpoints", False, [0, "transcribe.exact", str(dev), None]).step == 5


@pytest.mark.parametrize("change", [{"metric": "transcribe.exact"}, {"patience": 2}])
def test_what_is_to_be_measured_needs_data(data, tmp_path, change):
    with pytest.raises(WeftError, match=f"evaluation.{next(iter(change))} needs evaluation.data"):
        go(tiny_recipe(data, steps=1, evaluation=Evaluation(**change)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_is_gone_on_with_from_another_folder(data, tmp_path, monkeypatch):
    save_model(*build_model(tiny_spec()), tmp_path / "start")
    shutil.copytree(data.parent, tmp_path / "samples")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    recipe = tiny_recipe(f"samples/{data.name}", steps=2, evaluation=Evaluation(data=f"samples/{data.name}"))
    recipe = recipe.model_copy(update={"model": ModelSpec(base="start")})
    out = go(recipe, "run")
    shutil.rmtree(out)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert go(None, tmp_path / "run", resume=True).is_dir()


def test_a_mistake_found_at_the_start_leaves_the_place_free(data, tmp_path):
    broken = data.with_name("broken.jsonl")
    broken.write_text("{broken\n" + data.read_text())
    with pytest.raises(WeftError, match=r"broken\.jsonl:1") as said:
        go(tiny_recipe(broken, steps=1), tmp_path / "run")
    assert "--resume" not in str(said.value) and not (tmp_path / "run").exists()
    go(tiny_recipe(data, steps=1), tmp_path / "run")


@pytest.mark.parametrize(
    "error",
    [NotFinite("the loss is not finite"), slow(ckpt.DiskFull("the disk is full"))],
)
def test_a_run_that_its_message_speaks_of_stays(data, tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(stage, "backward", fail)
    with pytest.raises(type(error), match="weft train --resume"):
        go(tiny_recipe(data, steps=1), tmp_path / "run")
    assert (tmp_path / "run" / "log.jsonl").exists()
    monkeypatch.undo()
    go(None, tmp_path / "run", resume=True)


def test_nothing_is_overwritten(data, tmp_path):
    recipe = tiny_recipe(data, steps=1)
    go(recipe, tmp_path / "run")
    with pytest.raises(WeftError, match="holds a run already"):
        go(recipe, tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(WeftError, match="holds other things"):
        go(recipe, tmp_path / "other")
    with pytest.raises(WeftError, match="nothing is overwritten"):
        go(recipe, tmp_path / "new", out=tmp_path / "other")
    with pytest.raises(WeftError, match="is not the folder of a run"):
        go(None, tmp_path / "other", resume=True)


@pytest.mark.parametrize(
    ("kinds", "reached"),
    [((picture, text), {"vision", "language"}), ((text,), {"language"}), ((speech,), {"audio", "language"})],
)
def test_data_without_a_modality_trains_what_it_reaches_and_nothing_else(tmp_path, kinds, reached):
    recipe = tiny_recipe(write(tmp_path / "samples", 8, kinds), steps=2)
    start = build_model(recipe.model)[0].state_dict()
    end = weights(go(recipe, tmp_path / "run"))
    moved = {name.split(".")[0].split("_")[0] for name, value in end.items() if not torch.equal(value, start[name])}
    assert moved == reached


@pytest.mark.slow
def test_bfloat16_and_activation_checkpointing_run_and_keep_float32_weights(data, tmp_path):
    plain = go(tiny_recipe(data, steps=2), tmp_path / "plain")
    spared = go(tiny_recipe(data, steps=2, checkpoint_activations=True), tmp_path / "spared")
    assert all(torch.allclose(v, weights(spared)[k], atol=1e-6) for k, v in weights(plain).items())
    out = go(tiny_recipe(data, steps=2, recipe={"precision": "bfloat16"}), tmp_path / "half")
    assert {v.dtype for v in weights(out).values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 0])
def test_an_adapter_folder_is_whole_and_equals_the_merged_model(data, tmp_path, layers):
    """An encoder of convolutions alone has nothing for LoRA to adapt, and trains in full."""
    from weft.generation.loading import load_parts

    lora, full = PartTraining(train="lora"), PartTraining(train="full")
    parts = {"language": lora, "vision": lora, "audio_connector": full}
    spec = tiny_spec()
    tower = spec.vision.model_copy(update={"config": {**spec.vision.config, "layers": layers}})
    recipe = tiny_recipe(data, spec.model_copy(update={"vision": tower}), steps=3, parts=parts)
    merged = go(recipe, tmp_path / "merged")
    adapter = go(recipe, tmp_path / "adapter", adapter_only=True)
    assert (adapter / "adapter_config.json").exists() and not (adapter / "model.safetensors").exists()
    one, _ = load_parts(merged)
    other, _ = load_parts(adapter)
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


def test_an_adapter_without_lora_is_refused(data, tmp_path):
    with pytest.raises(WeftError, match="--adapter-only"):
        go(tiny_recipe(data, steps=1), tmp_path / "run", adapter_only=True)
    assert not (tmp_path / "run").exists()  # it was said before anything was trained


def test_sources_are_drawn_by_their_weights_and_changed_as_they_say(tmp_path, monkeypatch):
    changed, plain = (write(tmp_path / name, 4, (picture,), name=f"{name}.jsonl") for name in ("changed", "plain"))
    micro = []

    def seen(model, batches, *more, **said):
        micro.extend(batches)
        return backward(model, batches, *more, **said)

    monkeypatch.setattr(stage, "backward", seen)
    mixture = (Source(path=str(changed), weight=3.0, augment=Augment(color=0.5)), Source(path=str(plain)))
    recipe = tiny_recipe(plain, steps=3, mixture=mixture, packing=False, rows=32)
    go(recipe, tmp_path / "run")
    drawn = [name.rsplit("/", 1)[-1].split(":")[0] for batch in micro for name in batch.samples]
    assert len(drawn) == 96 and abs(drawn.count("changed.jsonl") / 96 - 0.75) < 0.06
    shown = [view for batch in micro for view in batch.inputs["pixel_values"]]
    untouched = TrainingData([SourceSpec(plain)], build_model(recipe.model)[1], row_tokens=256, in_order=True)
    pictures = next(untouched.batches()).inputs["pixel_values"]
    as_is = [any(torch.equal(view, known) for known in pictures) for view in shown]
    assert as_is == [name == "plain.jsonl" for name in drawn]


def test_a_stage_without_data_is_refused(data, tmp_path):
    with pytest.raises(WeftError, match="no training data"):
        go(tiny_recipe(data, mixture=()), tmp_path / "run")
    assert isinstance(Stage().mixture, tuple)


@pytest.mark.slow
def test_a_signal_that_comes_after_the_ranks_agreed_waits_for_the_next_update(data, tmp_path, monkeypatch):
    """Else one rank would stop alone; and one that comes while they agree must not be lost."""
    asked = []

    def largest(self, value):
        asked.append(value)
        if len(asked) == 4:
            os.kill(os.getpid(), signal.SIGTERM)  # too late for this answer
        return value

    monkeypatch.setattr(Ranks, "largest", largest)
    with pytest.raises(Interrupted):
        go(tiny_recipe(data, steps=6, recipe={"checkpoint_every": 1000}), tmp_path / "run")
    told = [i for i, value in enumerate(asked) if value]
    assert told and told[0] > 3 and len(records(tmp_path / "run")) < 6


@pytest.mark.slow
def test_what_never_trains_stays_so_where_a_model_is_loaded(data, tmp_path):
    """Whisper's positions are computed; 0.1.0 trained them in a model that it had loaded, and such a run goes on."""
    model, processor = build_model(tiny_spec())
    save_model(model, processor, tmp_path / "base")
    loaded, _ = build_model(ModelSpec(base=str(tmp_path / "base")))
    (name,) = constants(loaded)
    assert constants(model) == {name} and "embed_positions" in name

    recipe = tiny_recipe(data, ModelSpec(base=str(tmp_path / "base")), steps=2)
    go(recipe, tmp_path / "run")
    found = ckpt.newest(tmp_path / "run" / "checkpoints")
    assert name not in found.weights()
    moved = loaded.get_parameter(name).detach() + 1
    extra = {f"exp_avg/{name}": torch.ones_like(moved)}
    ckpt.save(found.path.parent, found.state, found.weights() | {name: moved}, found.optimizer() | extra)
    shutil.rmtree(tmp_path / "run" / "final")
    assert torch.equal(
        weights(go(tiny_recipe(data, recipe.model, steps=3), tmp_path / "run", resume=True))[name], moved
    )
