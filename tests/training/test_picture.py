"""The picture of a run: all of it, drawn of whatever a log can hold."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from weft.training.picture import draw

pytestmark = pytest.mark.drawn


def step(number, loss):
    numbers = {"loss": loss, "listen": 2.0, "tokens": 100, "labels": 10, "seconds": 0.1, "padding": 0.02}
    return {"event": "step", "stage": "train", "step": number, **numbers}


@pytest.mark.parametrize(
    ("records", "drawn"),
    [
        ([], False),
        ([step(1, 2.0)], False),
        ([step(1, 2.0), step(2, 1.0), {"event": "eval", "step": 2, "loss": 1.5}], True),
        ([step(1, 0.0), step(2, 0.0)], True),  # learned from media alone
        ([step(1, 0.0), step(2, 3.0), step(3, 3.0)], True),
        ([step(1, 2.0), step(2, 1e-7), {"event": "eval", "step": 2, "loss": None}, {"event": "end", "step": 2}], True),
    ],
)
def test_what_is_learned_is_drawn(tmp_path, records, drawn):
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    file = draw(tmp_path)
    assert (file is not None) == drawn == (tmp_path / "progress.png").exists()
    if file is not None:
        assert Image.open(file).size == (1350, 810)


FACTS = {"lr": 1e-3, "grad_norm": 1.0, "tokens": 100, "labels": 10, "padding": 0.0, "seconds": 1.0, "skipped": 0}


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """The lines (x, y) of the upper panel, drawn of steps (stage, losses)."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: figures.append(self))

    def drawn(steps, evaluations=()):
        records = [
            {"event": "step", "stage": stage, "step": i, "time": 0.0, "waited": 0.0, **FACTS, **losses}
            for i, (stage, losses) in enumerate(steps, 1)
        ]
        records += [{"event": "eval", "step": step, "loss": loss} for step, loss in evaluations]
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        assert draw(tmp_path) is not None
        return [tuple(map(np.asarray, line.get_data())) for line in figures[-1].axes[0].get_lines()]

    return drawn


LESSON, ANSWER = {"loss": 0.0, "listen": 2.0, "look": 1.0}, {"loss": 5.0, "listen": 2.0, "look": 1.0}


def test_updates_that_learn_no_answers_are_shown_too(lines):
    found = lines([("one", LESSON)] * 10 + [("one", ANSWER)] * 20)
    assert {step for x, _ in found for step in x} == set(range(1, 31))
    assert {float(y[0]) for _, y in found} == {3.0, 5.0}
    found = lines([("one", LESSON)] * 10)
    assert {step for x, _ in found for step in x} == set(range(1, 11))


def test_no_line_runs_on_from_one_stage_into_the_next(lines):
    steps = [("one", {"loss": 1.5})] * 100 + [("two", {"loss": 15.8})] * 100
    found = [(x, y) for x, y in lines(steps, [(50, 1.5), (100, 1.6), (150, 16.0)]) if len(set(x)) > 1]
    for x, y in found:
        assert x.max() <= 100 or x.min() > 100
        assert y.max() < 2 or y.min() > 15
