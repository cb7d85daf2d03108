"""What training is handed by whoever starts it: a scorer, lessons, a store of features. What these are, it does not
know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from rich.console import Console

from weft.conversation import WeftError
from weft.data.lengths import Keep
from weft.data.loader import Annotate, SourceSpec
from weft.models.processing import WeftProcessor
from weft.training.recipe import Recipe, Stage
from weft.training.update import NextTokens, Objective


class Evaluate(Protocol):
    """Scores generated answers, for a stage that names a metric."""

    def __call__(
        self, model: Any, processor: Any, data: str, limit: int | None, on_bad_sample: Literal["fail", "skip"], /
    ) -> dict[str, float | None]:
        """``{"task.metric": value}`` of the first ``limit`` samples of a file; None: there is no value yet, such as an
        error of word times where no word was right."""
        ...

    def lower_is_better(self, metric: str, /) -> bool:
        """Which way is up for a "task.metric"."""
        ...


class Lessons(Protocol):
    """Those of one stage."""

    def sources(self, specs: Sequence[SourceSpec]) -> Sequence[SourceSpec]:
        """The sources of the stage's mixture, as they are to be drawn from."""

    def annotate(self, processor: WeftProcessor) -> Annotate | None:
        """What the loader is to ask of each sample."""

    def objectives(self, done: int) -> Sequence[Objective]:
        """What an update learns that follows on ``done`` others of the stage."""

    def notes(self, planned: int) -> Sequence[str]:
        """Sentences for who starts a stage of so many updates."""


class Recall(Protocol):
    """Gives the towers that know what they have computed before, by part (`features`)."""

    def __call__(
        self, model: Any, stage: Stage, specs: Sequence[SourceSpec], *, half: bool, gigabytes: float, say: Any
    ) -> Mapping[str, Any]: ...


Teach = Callable[[Stage, str], Lessons]  # of a stage and its path in the recipe


@dataclass(frozen=True)
class Handed:
    """All of it; training runs without any."""

    evaluate: Evaluate | None = None  # scores answers, where a stage names a metric
    teach: Teach | None = None  # gives what lessons ask for
    recall: Recall | None = None  # keeps what frozen encoders give (`features`)
    keep_lengths: Keep | None = None  # keeps what samples measure (`kept_lengths`)
    meter: Callable[..., Any] | None = None  # tells what updates cost (`meters`)
    draw: Callable[[Path], Any] | None = None  # a picture of the run's folder, now and then and at the end (`picture`)
    observe: Callable[[dict[str, Any]], Any] | None = None  # is told each record of the log, between updates
    console: Console | None = None  # where the run is told of; None: on stderr
    profile: bool = False  # writes ``trace.json``, of a few updates


class Plain:
    """A stage without lessons: answers, every label alike."""

    def __init__(self, stage: Stage) -> None:
        self.only = (NextTokens(stage.label_smoothing),)

    def sources(self, specs: Sequence[SourceSpec]) -> Sequence[SourceSpec]:
        return specs

    def annotate(self, processor: WeftProcessor) -> None:
        return None

    def objectives(self, done: int) -> Sequence[Objective]:
        return self.only

    def notes(self, planned: int) -> Sequence[str]:
        return ()


def lessons_of(recipe: Recipe, teach: Teach | None) -> list[Lessons]:
    """Those of each stage. Raises `WeftError` where a stage has some and nobody teaches them."""
    found: list[Lessons] = []
    for number, stage in enumerate(recipe.stages):
        names = {name: None for given in (stage.lessons, *(s.lessons for s in stage.mixture)) for name in given or ()}
        if names and teach is None:
            raise WeftError(
                f'stage "{stage.name}" has lessons ({", ".join(names)}), and training was handed nothing that teaches '
                f"them: give train(..., teach=weft.teaching.teach), or take them out"
            )
        found.append(teach(stage, f"stages.{number}") if names and teach else Plain(stage))
    return found
