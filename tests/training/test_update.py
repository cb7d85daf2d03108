"""The gradient of an update: what is learned is handed, and nothing waits for the device before it is read."""

from contextlib import nullcontext
from itertools import islice
from traceback import extract_stack

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from training_world import picture, speech, text, tiny_spec, write
from weft.data.loader import SourceSpec, TrainingData
from weft.teaching.losses import Answers
from weft.training.build import build_model
from weft.training.parallel import clip_gradients
from weft.training.recipe import ModelSpec
from weft.training.update import COUNTED, NextTokens, backward, batch_loss, read


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model, and batches of text, pictures and sound."""
    model, processor = build_model(tiny_spec())
    path = write(tmp_path_factory.mktemp("samples"), 9, (text, picture, speech))
    return model, list(
        TrainingData([SourceSpec(path)], processor, row_tokens=200, packing=False, in_order=True).batches()
    )


class Longing:
    """Hidden states are to be short; half of the batches have no wish."""

    name, weight = "length", 0.5

    def counts(self, batch):
        return (len(batch.samples) if "pixel_values" in batch.inputs else 0,)

    def watching(self, model):
        return nullcontext("seen")

    def loss(self, step, watched, among):
        assert watched == "seen"
        return step.hidden_BLD.square().mean() * (self.counts(step.batch)[0] / among[0])


def test_objectives_add_up_by_their_weights(world):
    model, batches = world
    gradients = []
    for objectives in ((NextTokens(),), (NextTokens(), Longing()), (Longing(),)):
        model.zero_grad()
        told = read(backward(model, batches, objectives, precision="float32"))
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        assert list(told) == [objective.name for objective in objectives] and all(v > 0 for v in told.values())
    plain, both, alone = gradients
    for name, value in both.items():
        torch.testing.assert_close(value, plain[name] + alone.get(name, 0.0), atol=1e-6, rtol=1e-4)


def test_an_objective_without_anything_to_learn_is_left_out(world):
    model, batches = world
    texts = [batch for batch in batches if "pixel_values" not in batch.inputs]
    assert list(backward(model, texts, (NextTokens(), Longing()), precision="float32")) == ["loss"]
    assert read(backward(model, texts, (Longing(),), precision="float32")) == {"length": 0.0}


def test_the_loss_of_a_batch_is_that_of_the_model(world):
    model, batches = world
    for batch in batches:
        with torch.no_grad():
            wanted = model(**batch.inputs).loss
            torch.testing.assert_close(batch_loss(model, batch, "float32"), wanted)


class OnDevice(TorchDispatchMode):
    """Plays that parameters, what a batch sends to them and all that is made of these lie on another device, and notes
    each place in weft where the host would wait for it."""

    aten = torch.ops.aten
    WAITS = (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default)

    def __init__(self, model, batches):
        super().__init__()
        self.waits = []
        there = [v for b in batches for k, v in b.inputs.items() if k not in ("labels", *COUNTED)]
        self.there = WeakTensorKeyDictionary(dict.fromkeys((*model.parameters(), *there), True))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if any(t in self.there for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)):
            chosen = args[1] if func is self.aten.index.Tensor else ()
            if func in self.WAITS or any(i is not None and i.dtype == torch.bool for i in chosen):
                self.waits.append([f"{f.filename}:{f.lineno}" for f in extract_stack() if "/weft/" in f.filename][-1])
            for t in tree_leaves(out):
                if isinstance(t, torch.Tensor):
                    self.there[t] = True
        return out


@pytest.mark.parametrize("plain", [True, False])
def test_the_host_waits_for_nothing_before_it_reads(tmp_path, plain):
    spec = tiny_spec()
    model, processor = build_model(ModelSpec(language=spec.language, dialect=spec.dialect))
    file = write(tmp_path, 9, (text,))
    data = TrainingData([SourceSpec(file)], processor, row_tokens=200)
    batches = list(islice(data.batches(), 2))
    objectives = (NextTokens(0.1) if plain else Answers(0.1, near=1.5, balance=0.5),)
    with OnDevice(model, batches) as device:
        told = backward(model, batches, objectives, precision="float32")
        norm = clip_gradients(model.parameters(), 1.0)
        assert not device.waits
        read({**told, "grad_norm": norm})
