"""The picture of a run: drawn of whatever a log can hold."""

import json

import pytest
from PIL import Image

from weft.training.picture import draw

pytestmark = pytest.mark.drawn


def step(number, loss):
    numbers = {"loss": loss, "tokens": 100, "labels": 10, "seconds": 0.1, "padding": 0.02}
    return {"event": "step", "stage": "train", "step": number, **numbers}


@pytest.mark.parametrize(
    ("records", "drawn"),
    [
        ([], False),
        ([step(1, 2.0)], False),
        ([step(1, 2.0), step(2, 1.0), {"event": "eval", "step": 2, "loss": 1.5}], True),
        ([step(1, 0.0), step(2, 0.0)], False),  # learned from media alone
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
