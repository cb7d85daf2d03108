"""Folders and runs that version 0.1.0 wrote load, and go on where they stopped: `tests/old/0.1.0` keeps one of each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import weft
from weft.cli import run

OLD = Path(__file__).parent / "old" / "0.1.0"


def ask(model: Path) -> float:
    found = weft.load(model)
    question = [{"type": "image", "image": str(OLD / "data" / "1.png")}, {"type": "task", "task": "refer"}]
    boxes = [{"type": "box", "boxes": [[0.1, 0.2, 0.5, 0.6]], "label": "the red box"}]
    return found.score(
        [
            {"role": "user", "content": [*question, {"type": "text", "text": "the red box"}]},
            {"role": "assistant", "content": boxes},
        ]
    )


def test_a_model_of_0_1_0_answers_as_it_did() -> None:
    assert ask(OLD / "model") == pytest.approx(-34.7558, rel=1e-4)


@pytest.mark.usefixtures("whole_plans")
def test_a_run_of_0_1_0_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """With lessons, augmentation and places, from an optimizer's state; moved since, as its owner would mend it."""
    shutil.copytree(OLD / "run", tmp_path / "run")
    shutil.copytree(OLD / "data", tmp_path / "data")
    for name in ("recipe.json", "run.json"):
        file = tmp_path / "run" / name
        file.write_text(file.read_text().replace("@HERE@", str(tmp_path)))
    assert run(["train", "--resume", str(tmp_path / "run")]) == 0
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    steps = {row["step"]: row for row in log if row["event"] == "step"}
    assert list(steps) == [1, 2, 3, 4, 5, 6]
    for step, loss, look, guide in ((5, 6.788, 1.474, 1.379), (6, 6.540, 1.473, 1.373)):
        assert steps[step]["loss"] == pytest.approx(loss, rel=0.03)
        assert steps[step]["look"] == pytest.approx(look, rel=0.01)
        assert steps[step]["guide"] == pytest.approx(guide, rel=0.02)
    assert ask(tmp_path / "run" / "final") == pytest.approx(ask(OLD / "model"), rel=0.05)
