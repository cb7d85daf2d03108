"""A run whose layers go through `torch.compile` learns what one without learns.

But for one test, layers are traced and differentiated as ever, and run without code being made of them.
"""

import json
from io import StringIO

import pytest
import torch
from rich.console import Console
from torch._dynamo.utils import counters
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from marks import nightly
from rank_processes import nearly, together
from training_world import picture, speech, text, tiny_recipe, tiny_spec, write
from weft.data.loader import SourceSpec, TrainingData
from weft.models import attention
from weft.runs import Scorer
from weft.teaching import teach
from weft.training import compiled
from weft.training.build import build_model
from weft.training.compiled import filled
from weft.training.recipe import Evaluation, Lora, Optim, Parallel, PartTraining
from weft.training.run import train
from weft.training.update import backward

CALM = Optim(lr=1e-3, warmup_steps=2, eps=1e-5)  # Adam makes no steps of the rounding of gradients that are none
LORA = {"language": PartTraining(train="lora", lora=Lora(r=4, alpha=8)), "vision_connector": PartTraining(train="full")}
FULL = {"language": PartTraining(train="full"), "audio": PartTraining(train="full")}


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    there = torch._dynamo.config.recompile_limit, torch._dynamo.config.suppress_errors
    yield
    assert (torch._dynamo.config.recompile_limit, torch._dynamo.config.suppress_errors) == there
    assert ALL_ATTENTION_FUNCTIONS[attention.NAME] is attention.weft_attention


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write(tmp_path_factory.mktemp("samples"), 16, (speech, picture, text))


def go(recipe, run, **handed):
    said = StringIO()
    out = train(recipe, run, teach=teach, console=Console(file=said, width=200), **handed)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    made = [row for row in rows if row["event"] == "compiled"]
    return out, [row for row in rows if row["event"] == "step"], made, said.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["words", *map(nightly, ("full", "media", "checkpointed"))])
def test_a_compiled_run_is_the_plain_one_and_compiles_in_its_first_updates(files, tmp_path, kind):
    spec = tiny_spec(dropout=0.0).model_copy(update={"lora_for_media": kind == "media"})
    steps = 5 if kind == "words" else 12
    stage = {
        "steps": steps,
        "row_tokens": 96,
        "optim": CALM,
        "parts": LORA if kind in ("media", "checkpointed") else FULL,
    }
    if kind == "words":
        files = write(tmp_path, 12, (text,))
    stage |= {"checkpoint_activations": kind == "checkpointed", "evaluation": Evaluation(data=str(files), every=steps)}
    one, plain, none, _ = go(tiny_recipe(files, spec, **stage), tmp_path / "one")
    two, rows, made, said = go(tiny_recipe(files, spec, **stage, recipe={"compile": True}), tmp_path / "two")
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in plain], abs=1e-4)
    assert [row["labels"] for row in rows] == [row["labels"] for row in plain]
    assert [row["padding"] for row in rows] == [row["padding"] for row in plain]
    if kind != "media":  # whose LoRA is left beside its base
        nearly(one, two, 2e-5)
    assert not none and made[0]["step"] == 1 and made[0]["graphs"] > 0
    assert made[-1]["step"] < steps - 1 and made[-1]["graphs"] < 60  # rows of all lengths, of any number of samples
    assert f"compiled {made[0]['graphs']} graphs" in said


def test_a_filled_row_has_the_gradient_of_the_row(files):
    spec = tiny_spec(dropout=0.0)
    gradients = []
    for row in (0, 300):
        model, processor = build_model(spec)
        data = TrainingData([SourceSpec(files)], processor, row_tokens=120)
        batch = filled(next(data.batches()), row, processor.pad_id)
        assert not row or batch.inputs["input_ids"].shape == (1, row)
        assert int(batch.inputs["position_ids"].max()) < 100  # that of a sample, not of what the row is filled with
        assert int(batch.inputs["segment_lengths"].sum()) == batch.inputs["input_ids"].shape[1]
        backward(model, [batch], precision="float32")
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
def test_answers_of_an_evaluation_are_made_without_graphs(tmp_path):
    files, graphs = write(tmp_path, 6, (text,)), []

    class Counting(Scorer):
        def __call__(self, *asked):
            before = counters["stats"]["unique_graphs"]
            found = super().__call__(*asked)
            graphs.append((before, counters["stats"]["unique_graphs"]))
            return found

    judged = Evaluation(data=str(files), every=2, metric="chat.exact", limit=2)
    stage = {"steps": 2, "row_tokens": 96, "optim": CALM, "evaluation": judged}
    go(tiny_recipe(files, recipe={"compile": True}, **stage), tmp_path / "run", evaluate=Counting())
    ((before, after),) = graphs
    assert before == after > 0


def test_without_a_compiler_the_run_goes_on_without(files, tmp_path, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    _, rows, made, said = go(tiny_recipe(files, steps=2, recipe={"compile": True}), tmp_path / "run")
    assert "compile: torch.compile does not work here" in said and "the run goes on without" in said
    assert "no C++ compiler found" in said
    assert len(rows) == 2 and not made


@pytest.mark.nightly
def test_code_that_is_made_gives_the_same(files, tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", "inductor")
    stage = {"steps": 3, "row_tokens": 96, "optim": CALM}
    one, *_ = go(tiny_recipe(files, tiny_spec(dropout=0.0), **stage), tmp_path / "one")
    two, _, made, _ = go(
        tiny_recipe(files, tiny_spec(dropout=0.0), **stage, recipe={"compile": True}), tmp_path / "two"
    )
    assert made
    nearly(one, two, 1e-4)


@pytest.mark.nightly
def test_ranks_that_share_a_compiled_model_learn_what_one_process_does(files, tmp_path):
    stage = {"steps": 3, "row_tokens": 96, "optim": CALM, "parts": LORA}
    one, *_ = go(tiny_recipe(files, tiny_spec(dropout=0.0), accumulate=2, **stage), tmp_path / "one")
    shared = {"compile": True, "parallel": Parallel(shard=True)}
    ended = together(
        2, tiny_recipe(files, tiny_spec(dropout=0.0), accumulate=1, recipe=shared, **stage), tmp_path / "two",
        BACKEND="aot_eager",
    )  # fmt: skip
    assert [status for status, _ in ended] == [0, 0], ended[0][1]
    nearly(one, tmp_path / "two" / "final", 2e-5)
