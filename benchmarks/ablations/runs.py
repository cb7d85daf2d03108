"""One run of one arm: train, answer unseen samples, score; and what an update of each arm costs beside the others."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.ablations import world
from benchmarks.ablations.experiments import Arm, Experiment
from rich.console import Console

import weft
from weft.data.loader import SourceSpec, TrainingData
from weft.evaluation.run import evaluate
from weft.generation import Options
from weft.teaching import teach
from weft.training.build import build_model
from weft.training.optim import build_optimizer, embedding_ids
from weft.training.parts import apply_parts
from weft.training.recipe import PART_NAMES, Optim, PartTraining, Recipe, Source, Stage
from weft.training.run import train
from weft.training.update import backward

# Samples of an update, alike in every arm: rows are not packed, so that shorter samples are not more samples.
BATCH = 16
TEST_SEED = 1_000_000
TURNS = 12  # updates of each arm that are timed


def recipe(arm: Arm, folder: Path, seed: int, steps: int, samples: int) -> Recipe:
    """The arm's training; ``seed`` gives the first weights, the samples and their order."""
    parts = {part: PartTraining(train="full") for part in PART_NAMES if part in _parts(arm)}
    stages, done = [], 0.0
    for number, phase in enumerate(arm.phases):
        first = round(done * steps)
        done += phase.share
        count = max(1, round(done * steps) - first)
        mixture = tuple(
            Source(path=str(world.write(folder / f"seed-{seed}", kind, samples, seed)), name=kind, weight=weight)
            for kind, weight in phase.mixture.items()
        )
        stages.append(
            Stage(
                name=f"stage-{number + 1}",
                steps=count,
                optim=Optim(lr=3e-3, min_lr=3e-5, warmup_steps=min(20, count), betas=(0.9, 0.98)),
                parts=parts,
                mixture=mixture,
                packing=False,
                rows=BATCH,
                lessons={
                    "balance": 0.5,
                    "near": 2.0,
                    "listen": {
                        "weight": float(phase.listen),
                        "first": steps // 4 if phase.listen and not number else 0,
                    },
                },
            )
        )
    return Recipe(
        name="ablation",
        model=arm.model.model_copy(update={"seed": seed}),
        stages=tuple(stages),
        seed=seed,
        threads=1,
        checkpoint_every=10**8,
    )


def _parts(arm: Arm) -> set[str]:
    sense = "vision" if arm.model.vision else "audio"
    return {sense, f"{sense}_connector", "language"}


def run(
    experiment: Experiment, name: str, folder: Path, seed: int, steps: int, samples: int, tested: int
) -> dict[str, Any]:
    """Trains arm ``name`` and measures its figures on ``tested`` samples of each kind, the same in every run."""
    arm, place = experiment.arms[name], folder / "run"
    shutil.rmtree(place, ignore_errors=True)
    model = weft.load(train(recipe(arm, folder, seed, steps, samples), place, teach=teach, console=Console(quiet=True)))
    figures: dict[str, float | None] = {}
    baseline: dict[str, float | None] = {}
    for figure in experiment.figures:
        kind = figure.kind_of(name)
        if kind is None:
            continue
        data = world.write(folder / "test", kind, tested, TEST_SEED)
        report = evaluate(model, data, metrics=[figure.metric], options=Options(max_new_tokens=40), batch_size=50)
        (figures[figure.name],) = (table[figure.metric] for table in report["metrics"].values())
        (baseline[figure.name],) = (table[figure.metric] for table in report["baseline"].values())
    shutil.rmtree(place)
    return {"arm": name, "seed": seed, "figures": figures, "baseline": baseline}


class Costed:
    """An arm's model in training, an update at a time."""

    def __init__(self, made: Recipe) -> None:
        self.stage = made.stages[-1]
        self.precision = made.precision
        self.model, processor = build_model(made.model)
        trained = apply_parts(self.model, self.stage)
        self.optimizer = build_optimizer(trained, self.stage.optim, embedding_ids(self.model))
        specs = [SourceSpec(s.path, s.weight, self.stage.augment, s.name) for s in self.stage.mixture]
        taught = teach(self.stage)
        self.objectives = taught.objectives(self.stage.steps)
        rows, annotate = self.stage.rows, taught.annotate(processor)
        data = TrainingData(specs, processor, row_tokens=2048, rows=rows, packing=False, annotate=annotate)
        batches = data.batches()
        self.batches = [next(batches) for _ in range(TURNS)]
        batches.close()  # type: ignore[attr-defined]

    @property
    def tokens(self) -> float:
        return statistics.fmean(b.tokens / BATCH for b in self.batches)

    def update(self, turn: int) -> float:
        """Processor seconds of one update, its samples already decoded."""
        before = time.process_time()
        backward(self.model, [self.batches[turn]], self.objectives, precision=self.precision)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.process_time() - before


def costs(experiment: Experiment, folder: Path, samples: int) -> dict[str, dict[str, float]]:
    """What an update of the last stage costs in each arm: arms take turns, each beside the first's same turn.

    ``ratio`` is of medians of processor time, ``error`` the standard error of the turns' own ratios; ``tokens`` are of
    a sample, media and text.
    """
    made = {name: Costed(recipe(arm, folder, 0, 100, samples)) for name, arm in experiment.arms.items()}
    spent: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(TURNS):
        for name, arm in made.items():
            spent[name].append(arm.update(turn))
    spent = {name: times[2:] for name, times in spent.items()}  # the first two of each fill caches
    first = next(iter(spent.values()))
    found = {}
    for name, times in spent.items():
        ratios = [t / f for t, f in zip(times, first, strict=True)]
        found[name] = {
            "ratio": round(statistics.median(times) / statistics.median(first), 3),
            "error": round(statistics.stdev(ratios) / math.sqrt(len(ratios)), 3),
            "tokens": round(made[name].tokens, 1),
        }
    return found
