"""The gradient of an update: what is learned is handed. That nothing waits for a GPU is among the checks of `gpu`."""

from contextlib import nullcontext

import pytest
import torch

from training_world import picture, speech, text, tiny_spec, write
from weft.data.loader import SourceSpec, TrainingData
from weft.training.build import build_model
from weft.training.update import NextTokens, backward, batch_loss, read


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
