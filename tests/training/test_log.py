"""What a run tells while it runs."""

from io import StringIO

import pytest
from rich.console import Console

from weft.training.log import Log, read_log

FACTS = {"lr": 1e-3, "grad_norm": 1.0, "tokens": 100, "labels": 10, "padding": 0.0, "seconds": 1.0, "waited": 0.0}


@pytest.fixture
def told(tmp_path):
    """The last line that is told of steps with these losses, the stage having so many."""
    console = Console(file=StringIO(), width=1000)
    log = Log(tmp_path, console=console)

    def line(losses, last=True):
        for number, loss in enumerate(losses, 1):
            end = len(losses) if last else None
            log.step(stage="one", step=number, last=end, losses={"loss": loss, "listen": 0.5}, skipped=0, **FACTS)
        return console.file.getvalue().splitlines()[-1]

    line.log = log
    return line


def test_each_stage_has_averages_of_its_own(told, tmp_path):
    assert "loss 1.5000" in told([1.5] * 30)
    told.log.new_stage()
    assert "loss 15.8000" in told([15.8])
    assert len(read_log(tmp_path / "log.jsonl")) == 31


def test_a_stage_whose_end_is_not_known_says_no_time_that_is_left(told):
    line = told([2.0], last=False)
    assert line.startswith("one 1  ") and "left" not in line


def test_updates_that_learn_no_answers_tell_what_they_learn(told):
    assert "listen 0.5000" in told([0.0, 0.0])
