"""A model that learns through LoRA keeps what it said of text alone."""

from types import SimpleNamespace

import pytest
import torch

from training_world import tiny_spec
from weft.conversation import WeftError
from weft.models.table_rows import look_up
from weft.teaching.keeping import AsBefore, without_lora
from weft.training.build import build_model
from weft.training.parts import apply_parts
from weft.training.recipe import PartTraining, Stage
from weft.training.update import MicroStep

MEDIA = 9


@pytest.fixture
def model():
    made, _ = build_model(tiny_spec())
    stage = Stage(parts={"language": PartTraining(train="lora")}, mixture=({"path": "none"},), steps=1)
    apply_parts(made, stage, tokens=[5, 6])
    look_up(made)
    return made


def packed() -> SimpleNamespace:
    """Three samples in a row: text with 3 labels, one with a medium, text that is not learned."""
    ids, labels = torch.arange(20, 40)[None], torch.full((1, 20), -100)
    ids[0, 10], ids[0, 3] = MEDIA, 5
    labels[0, 4:7], labels[0, 13:15] = ids[0, 4:7], ids[0, 13:15]
    return SimpleNamespace(inputs={"input_ids": ids, "labels": labels, "segment_lengths": torch.tensor([8, 7, 5])})


def bend(model) -> None:
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name or "delta" in name:
            weight.data += 0.1 * torch.randn_like(weight)


def loss(model, lesson, batch) -> torch.Tensor:
    return lesson.loss(MicroStep(model, batch), None, lesson.counts(batch))


def test_it_is_how_far_answers_of_text_alone_moved(model):
    lesson, batch = AsBefore(1.0, frozenset({MEDIA})), packed()
    assert lesson.counts(batch) == (3,)
    assert loss(model, lesson, batch).abs() < 1e-6
    bend(model)
    found = loss(model, lesson, batch)
    ids = batch.inputs["input_ids"][:, :8]
    with torch.no_grad():
        now = model.logits(model.last_hidden(input_ids=ids)[0, 3:6]).log_softmax(-1)
        with without_lora(model):
            before = model.logits(model.last_hidden(input_ids=ids)[0, 3:6]).log_softmax(-1)
    torch.testing.assert_close(found, (before.exp() * (before - now)).sum(-1).mean())
    assert found > 1e-4
    found.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained and any(p.grad is not None and p.grad.any() for p in trained)


def test_learning_it_brings_the_model_back(model):
    lesson, batch = AsBefore(1.0, frozenset({MEDIA})), packed()
    bend(model)
    first = float(loss(model, lesson, batch).detach())
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss(model, lesson, batch).backward()
        optimizer.step()
    assert float(loss(model, lesson, batch).detach()) < 0.3 * first


def test_batches_without_packing_or_labels():
    lesson, batch = AsBefore(1.0, frozenset({MEDIA})), packed()
    rows = {name: value.reshape(2, 10) for name, value in batch.inputs.items() if name != "segment_lengths"}
    assert lesson.counts(SimpleNamespace(inputs=rows)) == (3,)  # the second row begins with a medium
    assert lesson.counts(SimpleNamespace(inputs={})) == (0,)


def test_it_needs_lora():
    made, _ = build_model(tiny_spec())
    with pytest.raises(WeftError, match="lesson keep needs a language model that trains through LoRA"):
        loss(made, AsBefore(1.0, frozenset({MEDIA})), packed())
