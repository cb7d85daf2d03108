"""A stage that is given in minutes takes about so long, by a clock that is made for the test."""

import json
import random
import shutil
from io import StringIO

import pytest
import torch
from rich.console import Console

from marks import nightly, slow
from training_world import text, tiny_recipe, write
from weft.teaching import teach
from weft.training import checkpoint, pace, parallel, picture, stage
from weft.training.optim import learning_rate
from weft.training.pace import Pace, early_updates
from weft.training.recipe import Evaluation, Optim
from weft.training.run import train


class World:
    """Runs whose updates, evaluations and checkpoints take seconds as told, on a clock of their own."""

    def __init__(self, patch, data):
        self.now, self.data = 0.0, data
        self.usual, self.early, self.evaluation, self.checkpoint, self.noise = 2.0, 0.1, 0.0, 0.0, 0.0
        self.random = random.Random(7)
        patch.setattr(pace, "monotonic", lambda: self.now)
        self.save = checkpoint.save
        patch.setattr(stage, "backward", self.update)
        patch.setattr(parallel, "batch_loss", self.evaluate)
        patch.setattr(checkpoint, "save", self.write)
        patch.setattr(picture, "draw", lambda *_: None)

    def update(self, model, micro, objectives, **options):
        self.told.append(getattr(objectives[0], "alone", False))
        seconds = self.early if self.told[-1] else self.usual(self.now) if callable(self.usual) else self.usual
        self.now += seconds * (1 + self.noise * self.random.uniform(-1, 1))
        return {"loss": torch.ones(())}

    def evaluate(self, *_):
        self.now += self.evaluation
        return torch.ones(())

    def write(self, *made):
        self.now += self.checkpoint
        return self.save(*made)

    def run(self, folder, resume=False, minutes=2.0, recipe=None, **fields):
        """Seconds that a run took, and its steps."""
        self.told, began, console = [], self.now, Console(file=StringIO(), width=1000)
        recipe = tiny_recipe(
            self.data, minutes=minutes, row_tokens=64, recipe={"checkpoint_every": 20, **(recipe or {})}, **fields
        )
        train(recipe, folder, resume=resume, teach=teach, console=console)
        self.said = console.file.getvalue()
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        return self.now - began, [r for r in log if r["event"] == "step"]


@pytest.fixture
def world(monkeypatch, tmp_path):
    return World(monkeypatch, write(tmp_path / "texts", 8, (text,)))


LISTEN = {"listen": {"weight": 1.0, "first": 300}}


@pytest.mark.parametrize(
    ("costs", "fields"),
    [
        ({}, {}),
        nightly({"usual": 12.0}, {}),
        nightly({"noise": 0.5}, {}),
        nightly({"usual": 0.5, "noise": 0.3}, {"minutes": 3.0}),
        slow({"checkpoint": 4.0}, {}),
        slow({"early": 0.05}, {"lessons": LISTEN}),
        nightly({"early": 1.0, "noise": 0.3}, {"lessons": LISTEN}),
        ({"early": 0.05}, {"lessons": {"listen": {"weight": 1.0, "first": 5}}}),
        slow({"evaluation": 0.7}, {"evaluate": 10}),
        ({"evaluation": 2.0, "checkpoint": 2.0, "noise": 0.3, "early": 0.1}, {"evaluate": 15, "lessons": LISTEN}),
        ({"usual": lambda now: 3.0 if now < 4 else 2.0}, {}),  # the first ones are slow
        ({"usual": lambda now: 2.0 + now / 600}, {}),  # all that follow are slower
    ],
    ids=str,
)
def test_minutes_are_kept(world, tmp_path, costs, fields):
    for name, value in costs.items():
        setattr(world, name, value)
    if every := fields.pop("evaluate", None):
        fields["evaluation"] = Evaluation(data=str(world.data), every=every)
    took, steps = world.run(tmp_path / "run", **fields)
    wanted = 60 * fields.get("minutes", 2.0)
    assert took == pytest.approx(wanted, rel=0.1)
    plans = json.loads((tmp_path / "run" / "steps.json").read_text())["0"]["plans"]
    assert all(abs(planned / plans[0][1] - 1) <= 0.05 + 1 / plans[0][1] for _, planned in plans)
    assert plans[-1][1] == len(steps) and f"{plans[0][1]} steps fit into" in world.said


def test_lessons_take_turns_until_there_is_a_plan_and_leave_room_for_answers(world, tmp_path):
    """However many the recipe begins with."""
    world.early = 1.0
    _, steps = world.run(tmp_path / "run", lessons=LISTEN)
    planned_at = json.loads((tmp_path / "run" / "steps.json").read_text())["0"]["plans"][0][0]
    assert world.told[:planned_at] == [i % 2 == 0 for i in range(planned_at)]
    rest = world.told[planned_at:]
    assert rest == sorted(rest, reverse=True) and 0.2 < sum(world.told) / len(steps) <= 0.26


def test_a_run_that_goes_on_keeps_its_time_and_its_end(world, tmp_path):
    world.noise = 0.3
    whole, steps = world.run(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "final")
    for made in sorted((tmp_path / "run" / "checkpoints").glob("step-*"))[1:]:
        shutil.rmtree(made)
    kept = int(next((tmp_path / "run" / "checkpoints").glob("step-*")).name[5:])
    again, same = world.run(tmp_path / "run", resume=True)
    assert 0 < kept < len(steps) and len(same) == len(steps)
    assert [r["lr"] for r in same] == [r["lr"] for r in steps]
    assert again == pytest.approx(whole * (1 - kept / len(steps)), rel=0.1)


@pytest.mark.slow
def test_minutes_that_change_are_planned_anew(world, tmp_path):
    world.run(tmp_path / "run", minutes=1.0)
    for minutes, steps in ((2.0, 60), (None, 70)):
        shutil.rmtree(tmp_path / "run" / "final")
        took, done = world.run(tmp_path / "run", resume=True, minutes=minutes, steps=70)
        assert len(done) == pytest.approx(steps, abs=3)


def test_an_evaluation_that_takes_most_of_the_time_is_named(world, tmp_path):
    world.evaluation = 30.0
    world.run(tmp_path / "run", evaluation=Evaluation(data=str(world.data), every=100))
    assert "an evaluation takes" in world.said and "--set stages.0.evaluation.limit=N" in world.said


@pytest.mark.slow
def test_steps_of_0_1_0_are_kept(world, tmp_path):
    took, steps = world.run(tmp_path / "run")
    file = tmp_path / "run" / "steps.json"
    file.write_text(json.dumps({"0": {"minutes": 2.0, "steps": 30}}))
    shutil.rmtree(tmp_path / "run" / "final")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    _, again = world.run(tmp_path / "run", resume=True)
    assert len(again) == pytest.approx(30, abs=2)


def test_early_updates_are_found_by_what_they_learn():
    assert [early_updates(lambda done, n=n: done < n) for n in (0, 1, 2, 300)] == [0, 1, 2, 300]


def test_until_the_end_is_known_the_rate_stays_high():
    optim = Optim(lr=1.0, warmup_steps=2)
    assert [learning_rate(i, None, optim) for i in range(4)] == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0, 1.0]


def test_a_plan_is_not_looked_at_again_by_one_rank_alone():
    """No clock decides when."""
    one = Pace(2.0, plans=[(5, 100)])
    assert [done for done in range(20) if one.due(done)] == [10, 15]
