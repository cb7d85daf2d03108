"""Samples that are measured when their turn comes train as those that were measured before."""

import json
import pickle
from itertools import islice

import pytest
import torch

from training_world import speech, text, tiny_spec, write
from weft.conversation import WeftError
from weft.data import lengths, lengths_along, packing
from weft.data.augment import Augment
from weft.data.kept_lengths import KeptLengths
from weft.data.loader import SourceSpec, TrainingData
from weft.data.packing import PackingPlan
from weft.models.plan import plan

AUGMENT = Augment(speed=0.1, pad_seconds=0.2, cut=0.3, untimed=0.3, gain_db=6)


@pytest.fixture(scope="module")
def processor():
    spec = tiny_spec()
    return plan(audio=spec.audio, language=spec.language, dialect=spec.dialect)[1]


@pytest.fixture
def file(tmp_path):
    return write(tmp_path, 30, (speech, text))


@pytest.fixture
def along(monkeypatch):
    return lambda: monkeypatch.setattr(lengths, "MANY", 1)


def data(file, processor, augment=AUGMENT, **options):
    return TrainingData([SourceSpec(file, augment=augment)], processor, **{"row_tokens": 200, "seed": 3, **options})


def equal(one, other):
    return all(
        a.samples == b.samples and all(torch.equal(a.inputs[k], b.inputs[k]) for k in a.inputs)
        for a, b in zip(one, other, strict=True)
    )


def spoiled(file):
    """A wrong line, and one that fits no row."""
    lines = file.read_text().splitlines()
    lines[3] = "{}"
    long = json.loads(lines[5])
    long["messages"][0]["content"] = "count " * 300
    lines[5] = json.dumps(long)
    file.write_text("\n".join(lines))


def test_batches_are_those_of_samples_that_were_measured_before(file, processor, along):
    before = list(islice(data(file, processor).batches(), 8))
    along()
    late = data(file, processor)
    assert late.along == ["train"] and equal(before, islice(late.batches(), 8))


def test_worker_processes_measure_for_themselves(file, processor, along):
    along()
    source = pickle.loads(pickle.dumps(data(file, processor, keep_lengths=KeptLengths)))
    assert source.batch(2)["samples"] == data(file, processor).batch(2)["samples"]


@pytest.mark.parametrize("world", [1, 2])
def test_what_is_left_out_is_told_once_and_by_one_rank(file, processor, along, world):
    spoiled(file)
    before = data(file, processor, on_bad_sample="skip")
    along()
    ranks = [data(file, processor, on_bad_sample="skip", rank=r, world=world) for r in range(world)]
    assert ranks[0].problems == []
    first = ranks[0].plan.anchor(10**9 if world > 2 else 0)[1]
    told = [p for rank in ranks for step in range(2) for p in rank.batch(step)["skipped"]]
    planned = packing.WINDOW // 30 + 1  # epochs of the first window
    assert first == 0 and set(told) == set(before.problems)
    assert len(told) == sum(not before.length(p) for p in range(packing.WINDOW)) > planned
    rest = data(file, processor, on_bad_sample="skip", first_row=2, anchor=ranks[0].plan.anchor(2))
    assert rest.batch(0)["skipped"] == [] and equal([next(rest.batches())], islice(before.batches(2), 1))


def test_a_mistake_ends_training_when_its_turn_comes(file, processor, along):
    spoiled(file)
    along()
    late = data(file, processor)
    with pytest.raises(WeftError, match=r"train\.jsonl:\d+: .*--on-bad-sample skip"):
        next(late.batches())
    assert late.plan.anchor(5) == (0, 0)  # where a checkpoint goes on


def test_a_later_run_takes_what_is_written_down(file, processor, along, monkeypatch):
    along()
    list(islice(data(file, processor, keep_lengths=KeptLengths).batches(), 8))
    measured = []
    real = lengths_along.measure_some
    monkeypatch.setattr(lengths_along, "measure_some", lambda *a, **k: measured.extend(k["which"]) or real(*a, **k))
    assert data(file, processor, Augment(), keep_lengths=KeptLengths).length(5) > 0
    assert len(measured) == lengths_along.LOOKED_AT  # a few, to see that what is measured is still the same
    with file.open("a") as handle:
        handle.write(file.read_text().splitlines()[0] + "\n")
    measured.clear()
    assert data(file, processor, Augment(), keep_lengths=KeptLengths).length(5) > 0
    assert len(measured) == 1


def test_what_asks_for_all_samples_at_once_has_them_measured_before(file, processor, along):
    along()
    assert data(file, processor, Augment(join=0.5)).along == []


def test_a_plan_of_samples_that_are_all_left_out_ends():
    with pytest.raises(WeftError, match="nothing is left to train on"):
        PackingPlan(lambda _: 0, 100, window=8)[0]
