"""How many updates fit into a stage's minutes: planned once the pace is known, corrected a little as it goes.

What is timed is what will be run. A stage may begin with updates of an early kind, such as lessons that run no language
model: until there is a plan, they take turns with the kind that follows. Evaluations and checkpoints count too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import fmean
from time import monotonic
from typing import Any

from weft.files import write_json

SHARE = 0.1  # of the time goes by until there is a plan, or
ENOUGH = 100  # updates of the usual kind have been timed
WARM = 2  # first updates of a kind, which are not like those that follow
DRIFT = 0.05  # so much of it the planned end may move: learning rates have been chosen for it
CORRECTIONS = 20  # times in a stage
EARLY = 4  # at most one update in so many is of an early kind
FAR = 1 << 40  # more updates than any stage has


def early_updates(objectives: Any) -> int:
    """How many updates at the beginning of a stage have other ``objectives(done)`` than all that follow."""
    usual, low, high = objectives(FAR), 0, FAR
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if objectives(middle) == usual else (middle + 1, high)
    return low


PLANS = "steps.json"  # of a run


def pace_of(run: Any) -> Pace:
    """That of a stage under way (`stage.StageRun`)."""
    evaluation, stage = run.stage.evaluation, run.stage
    every = {"evaluation": evaluation.every} if evaluation.data else {}
    return Pace(
        stage.minutes,
        early_updates(run.lessons.objectives),
        run.at.seconds,
        read_plans(run.folder.path, run.number, stage.minutes),
        {**every, "checkpoint": run.recipe.checkpoint_every},
    )


def read_plans(run: Path, stage: int, minutes: float) -> list[tuple[int, int]]:
    """What was planned for a stage; nothing where its minutes have changed. What is damaged is measured again."""
    try:
        known = _known(run)[str(stage)]
        if known["minutes"] != minutes:
            return []
        return [(int(at), int(steps)) for at, steps in known.get("plans", [[0, known["steps"]]])]
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return []


def write_plans(run: Path, stage: int, minutes: float, plans: list[tuple[int, int]]) -> None:
    known = {"minutes": minutes, "steps": plans[-1][1], "plans": plans}
    write_json(run / PLANS, {**_known(run), str(stage): known})


def _known(run: Path) -> dict[str, Any]:
    try:
        known = json.loads((run / PLANS).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


class Pace:
    """Of one stage. ``plans`` are pairs (updates done when it was made, updates of the stage), the plan and what
    corrects it."""

    def __init__(
        self,
        minutes: float,
        early: int = 0,
        spent: float = 0.0,
        plans: Sequence[tuple[int, int]] = (),
        every: dict[str, int] | None = None,
    ) -> None:
        """``spent``: seconds of it that have gone by; ``every``: updates between two of what else takes time."""
        self.seconds, self.early, self.plans, self.every = 60 * minutes, early, list(plans), every or {}
        self.began = monotonic() - spent
        self.timed: dict[str, list[float]] = {"early": [], "usual": [], **{name: [] for name in self.every}}

    @property
    def elapsed(self) -> float:
        return monotonic() - self.began

    @contextmanager
    def timing(self, kind: str) -> Iterator[None]:
        """Counts what is done meanwhile as one of this kind."""
        began = monotonic()
        yield
        self.timed[kind].append(monotonic() - began)

    def keep(self, run: Any) -> None:
        """Plans the end of the stage under way (`stage.StageRun`), once the pace is known; corrects it from then on."""
        at, stage, ranks = run.at, run.stage, run.ranks
        at.seconds = self.elapsed
        first = not self.plans
        if not (ranks.told(self.ready()) if first else self.due(at.done)):
            return
        if first and stage.evaluation.data and not self.timed["evaluation"]:
            run.evaluate()  # what it costs belongs into the plan
        fit = int(ranks.told(self.fitting(at.done)))
        if fit != self.steps(at.done):
            self.plans.append((at.done, fit))
            ranks.lead(partial(write_plans, run.folder.path, run.number, stage.minutes, self.plans))
        if first:
            run.log.say(f"{stage.name}: {fit} steps fit into {stage.minutes:g} minutes at this speed")
            if (cost := sum(self.timed.get("evaluation", ()))) > self.seconds / 4:
                less = f"--set stages.{run.number}.evaluation.limit=N makes it shorter"
                run.log.say(f"  an evaluation takes {cost:.0f} s of them; {less}")

    def steps(self, done: int) -> int | None:
        """Updates of the stage, as planned when ``done`` were done; None before there is a plan."""
        return next((steps for at, steps in reversed(self.plans) if at <= done), None)

    def place(self, done: int) -> int:
        """The update of the recipe that is due after ``done``: one of the early ones, or one of those that follow."""
        at = next((at for at, _ in self.plans if at <= done), None)
        if at is None:  # they take turns
            return done // 2 if done % 2 == 0 and done // 2 < self.early else self.early + done
        begun = min((at + 1) // 2, self.early) + done - at
        return begun if begun < min(self.early, self.plans[0][1] // EARLY) else self.early + done

    def kind(self, done: int) -> str:
        return "early" if self.place(done) < self.early else "usual"

    def ready(self) -> bool:
        """Whether a plan can be made, where there is none."""
        timed = len(self.timed["usual"])
        return timed >= WARM + ENOUGH or (timed > 0 and self.elapsed >= SHARE * self.seconds)

    def due(self, done: int) -> bool:
        """Whether the plan is to be looked at again; of all ranks at once, for no clock decides."""
        return bool(self.plans) and done > self.plans[-1][0] and done % max(1, self.plans[0][1] // CORRECTIONS) == 0

    def fitting(self, done: int) -> int:
        """Updates of the stage that fit into its time, with the ``done`` ones; near the plan, where there is one."""
        planned = self.steps(done)
        if planned is not None and len(self.timed["usual"]) <= WARM:
            return planned  # gone on with just now
        usual = self._mean("usual")
        usual += sum(self._mean(name) / updates for name, updates in self.every.items())
        left = self.seconds - self.elapsed - self._mean("evaluation")  # one comes at the end
        early = self._mean("early") if self.timed["early"] else usual
        begun = min((done + 1) // 2, self.early) if planned is None else self.place(done)
        more = max(min(self.early, self._within(left, early, usual, done) // EARLY) - begun, 0)
        fit = done + more + int((left - more * early) / usual)
        if self.plans:
            first = self.plans[0][1]
            fit = min(max(fit, round(first * (1 - DRIFT))), round(first * (1 + DRIFT)))
        return max(fit, done)

    def _within(self, left: float, early: float, usual: float, done: int) -> int:
        """Updates in all, if one in `EARLY` is early."""
        return done + int(left / (early / EARLY + usual * (EARLY - 1) / EARLY))

    def _mean(self, kind: str) -> float:
        """Seconds that one of a kind takes, the first ones aside where there are more."""
        times = self.timed.get(kind, [])
        return fmean(times[WARM:] or times[-1:]) if times else 0.0
