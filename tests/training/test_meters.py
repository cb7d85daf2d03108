"""What an update costs is counted by the products that it makes."""

import json
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from training_world import picture, speech, text, tiny_recipe, tiny_spec, write
from weft.data.loader import SourceSpec, TrainingData
from weft.training.build import build_model
from weft.training.meters import Flops, Meter, product_flops, product_rate, traced
from weft.training.run import train
from weft.training.sharding import units
from weft.training.update import backward


def test_a_product_counts_forward_for_its_input_and_for_its_own_weight():
    layer, given = nn.Linear(3, 5), torch.randn(2, 7, 3)
    once = 2 * 3 * 5 * 14
    for weight, before, times in ((True, True, 3), (True, False, 2), (False, True, 2), (False, False, 1)):
        layer.requires_grad_(weight)
        given.requires_grad_(before)
        assert product_flops(layer, given, layer(given)) == times * once
    with torch.no_grad():
        assert product_flops(layer, given, layer(given)) == once
    conv, frames = nn.Conv1d(4, 6, 3, stride=2, groups=2, padding=1), torch.randn(2, 4, 10)
    assert product_flops(conv, frames, conv(frames)) == 2 * 2 * (2 * 5) * (6 * 2 * 3)


@pytest.mark.parametrize("again", [False, True])
def test_an_update_counts_each_weight_once_a_position(tmp_path, again):
    """By part, and no more where activations are computed twice."""
    model, processor = build_model(tiny_spec())
    model.requires_grad_(True)
    model.train()
    if again:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    path = write(tmp_path, 6, (text, picture, speech))
    (*batches,) = TrainingData([SourceSpec(path)], processor, row_tokens=200, in_order=True).batches()
    flops = Flops(model)
    backward(model, batches, precision="float32", meter=flops)
    encoder, decoder = flops.taken()
    layers = sum(p.numel() for n, p in model.language_model.named_parameters() if "layers" in n and p.ndim == 2)
    head = model.get_output_embeddings().weight.numel()
    tokens, labels = sum(b.inputs["input_ids"].numel() for b in batches), sum(b.labels for b in batches)
    assert decoder == 6 * (layers * tokens + head * labels)
    assert encoder > 0 and flops.taken() == (0, 0)
    flops.close()
    backward(model, batches, precision="float32", meter=nullcontext())
    assert flops.taken() == (0, 0)


@pytest.mark.slow
def test_counting_makes_no_graphs_anew(tmp_path):
    """Of layers that are compiled as much is counted as of others."""
    found = []
    for compiled in (False, True):
        model, processor = build_model(tiny_spec())
        for layer in units(model) if compiled else ():
            layer.compile(backend="aot_eager")
        made = [layer._compiled_call_impl for layer in units(model)]
        flops = Flops(model)
        path = write(tmp_path / str(compiled), 2, (text,))
        batch = next(TrainingData([SourceSpec(path)], processor, row_tokens=96, in_order=True).batches())
        graphs = []
        for _ in range(3):
            backward(model, [batch], precision="float32", meter=flops)
            graphs.append(counters["stats"]["unique_graphs"])
        found.append(flops.taken())
        assert graphs[0] == graphs[2]
        assert not compiled or graphs[0] > 0
        flops.close()
        assert [layer._compiled_call_impl for layer in units(model)] == made
    assert found[0] == found[1]


def test_the_share_is_that_of_the_rate_of_products():
    model, _ = build_model(tiny_spec())
    said = []
    meter = Meter(model, "cpu", half=False, say=said.append)
    assert meter.rate == product_rate("cpu", torch.float32) > 0 and not said
    facts = meter.facts(tokens=100, flops=(int(1e9), int(3e9)), seconds=0.5, world=2)
    assert facts["tokens_per_second"] == 200 and facts["decoder_tflop"] == 0.003
    assert facts["share"] == pytest.approx(4e9 / 0.5 / 2 / meter.rate, abs=1e-4)
    assert facts["memory_gb"] > 0


@pytest.mark.slow
def test_a_run_tells_who_observes_it_and_leaves_a_trace(tmp_path):
    seen, run = [], tmp_path / "run"
    recipe = tiny_recipe(write(tmp_path, 6, (text,)), steps=6)
    train(recipe, run, observe=seen.append, profile=True, meter=Meter)
    written = [json.loads(line) for line in (run / "log.jsonl").open()]
    assert seen == written
    steps = [record for record in seen if record["event"] == "step"]
    assert all(record["decoder_tflop"] > 0 == record["encoder_tflop"] and record["samples"] for record in steps)
    names = {event.get("name") for event in json.loads((run / "trace.json").read_text())["traceEvents"]}
    assert {"aten::mm", "ProfilerStep#2", "ProfilerStep#4"} <= names and "ProfilerStep#5" not in names


def test_without_a_file_there_is_no_trace():
    with traced(None) as after:
        after()
