"""One stage of a run: its updates, evaluations and checkpoints.

What an update does is a function of (recipe, files, number of the update), so a run that was killed and resumed gives
the same bits on a CPU.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import torch

from weft.conversation import WeftError
from weft.data.loader import Batch, SourceSpec, TrainingData
from weft.models.processing import WeftProcessor
from weft.training import checkpoint as ckpt
from weft.training.asked import ASKED
from weft.training.endings import Agreed, Interrupted, NotFinite, Signals
from weft.training.folder import RunFolder
from weft.training.handed import Handed, Lessons
from weft.training.log import Log
from weft.training.optim import (
    build_optimizer,
    embedding_ids,
    learning_rate,
    load_optimizer_state,
    optimizer_state,
    set_rate,
    step_where_finite,
)
from weft.training.parallel import Whole
from weft.training.parts import apply_parts, constants, dialect_tokens, set_modes, spare_activations
from weft.training.ranks import Ranks, leave
from weft.training.update import backward, mixed_seed, read

DRAW_EVERY = 60.0  # seconds


@dataclass
class Progress:
    """Where a run stands. A checkpoint holds it."""

    step: int = 0  # updates done, over all stages
    stage: int = 0
    done: int = 0  # updates done in this stage
    rows: int = 0  # rows of the stage's plan consumed: the position
    seconds: float = 0.0  # spent in this stage, where it is given in minutes
    skipped: int = 0  # samples left out, over all stages
    best: float | None = None  # score in this stage
    stale: int = 0  # evaluations since the best
    saved: int = 0  # step of the newest checkpoint

    @classmethod
    def of(cls, found: ckpt.Checkpoint | None) -> Progress:
        state = {**found.state, "saved": found.step} if found else {}
        return cls(**{f.name: state[f.name] for f in fields(cls) if f.name in state})


@dataclass(frozen=True)
class Process:
    """What one process of a run works with in every stage."""

    folder: RunFolder
    ranks: Ranks
    holding: Whole  # how ranks hold the model
    log: Log
    signals: Signals
    handed: Handed
    lessons: Sequence[Lessons]  # of each stage
    progress: Progress
    draw: Callable[[], None]  # a picture of the run
    after_update: Callable[[], None]


class Steps:
    """The length of a stage that is given in updates. (`pace.Pace`: in minutes.)"""

    def __init__(self, steps: int) -> None:
        self.planned = steps

    def steps(self, done: int) -> int | None:
        """Updates of the stage, as planned when ``done`` were done; None where they are not known yet."""
        return self.planned

    def place(self, done: int) -> int:
        """The update of the recipe that is due after ``done``."""
        return done

    def kind(self, done: int) -> str:
        """What kind of update that is, for `timing`."""
        return "usual"

    def timing(self, kind: str) -> AbstractContextManager[None]:
        """Around what is to be counted as one of its kind."""
        return nullcontext()

    def keep(self, run: StageRun) -> None:
        """After an update."""


class StageRun:
    """One process's work on stage ``number``, from its start or from the checkpoint ``found`` in it."""

    def __init__(
        self, process: Process, model: Any, processor: WeftProcessor, number: int, found: ckpt.Checkpoint | None = None
    ) -> None:
        self.process, self.model, self.processor, self.number = process, model, processor, number
        self.folder, self.ranks, self.log, self.at = process.folder, process.ranks, process.log, process.progress
        self.recipe, self.holding, self.handed = self.folder.recipe, process.holding, process.handed
        self.stage, self.lessons = self.recipe.stages[number], process.lessons[number]
        self.half = self.recipe.precision == "bfloat16"
        self._choose_score()
        self._choose_parts()
        anchor = self._restore(found) if found is not None else self._start()
        need = 12 * count(self.parameters.values()) + 4 * count(self.model.parameters())
        ckpt.check_room(self.folder.path, need, "a checkpoint and the final model")
        self.data = self.ranks.after_first(partial(self._train_data, anchor))
        self.pace: Any = ASKED["minutes"](self) if self.stage.minutes is not None else Steps(self.stage.steps)
        self.meter: Any = None
        self.drawn = time.monotonic()
        self.log.new_stage()
        self._tell_start(found)
        if self.handed.recall is not None and not self.holding.sharded:  # else ranks encode in step
            facts: dict[str, Any] = {"half": self.half, "gigabytes": self.recipe.features_gb, "say": self.log.say}
            model.recall = self.handed.recall(model, self.stage, self.data.specs, **facts)
        self.dev = self.holding.prepared(self._dev_data)

    def _choose_score(self) -> None:
        """What decides which checkpoint is the best."""
        asked, evaluate = self.stage.evaluation, self.handed.evaluate
        if asked.metric and evaluate is None:
            raise WeftError(f"evaluation.metric {asked.metric} needs a scorer; weft train and finetune have it")
        self.lower = not (asked.metric and evaluate) or evaluate.lower_is_better(asked.metric)
        judged = asked.data and self.folder.inside(asked.data)
        self.measured = [self.number, asked.metric or "loss", judged, asked.limit]  # what a score is a score of

    def _choose_parts(self) -> None:
        """What trains, and its optimizer."""
        seed, tokens = mixed_seed(self.recipe.seed, self.number), dialect_tokens(self.processor)
        parts = apply_parts(self.model, self.stage, seed, tokens)
        self.parts = self.holding.begin(self.model, parts, self.half)
        spare_activations(self.model, self.stage.checkpoint_activations)
        self.parameters = {n: p for part in self.parts for n, p in part.parameters.items()}
        self.optimizer = build_optimizer(self.parts, self.stage.optim, embedding_ids(self.model))
        self.compiled: Any = ASKED["compile"](self) if self.recipe.compile else None

    def _start(self) -> tuple[int, int] | None:
        at = self.at
        at.stage, at.done, at.rows, at.best, at.stale, at.seconds = self.number, 0, 0, None, 0, 0.0
        return None

    @property
    def samples(self) -> list[list[int]]:
        """Of each source how many samples it has, and tokens where counted: by them a changed file is known."""
        return [[len(each.tokens), each.total] for each in self.data.lengths]

    @property
    def planned(self) -> int | None:
        """Updates of this stage; None where they are not known yet."""
        return self.pace.steps(self.at.done)  # type: ignore[no-any-return]

    def train(self) -> None:
        """Every update that is left, and a checkpoint at the end; the model then holds the best weights."""
        stage, at = self.stage, self.at
        batches = self.holding.batches(self.data, workers=self.recipe.workers)
        if meter := self.handed.meter:
            self.meter = meter(self.model, self.ranks.device, half=self.half, say=self.log.say)
        try:
            while (self.planned is None or at.done < self.planned) and not self._patience_is_out():
                started = time.monotonic()
                with self.pace.timing(self.pace.kind(at.done)):
                    micro = self._fetch(batches)
                    waited = time.monotonic() - started
                    numbers = self._update(micro)
                at.step, at.done = at.step + 1, at.done + 1
                at.rows += stage.accumulate * stage.rows * self.ranks.share()["world"]
                self._record(micro, numbers, time.monotonic() - started, waited)
                self.pace.keep(self)
                self._after_update()
                self.process.after_update()
        finally:
            batches.close()  # type: ignore[attr-defined]
            if self.compiled:
                self.compiled.close()
            if self.meter:
                self.meter.flops.close()
            for part, tower in self.model.recall.items():
                self.log.write("features", part=part, recalled=tower.recalled, computed=tower.computed)
        if at.step != at.saved:
            self.save()
        self.holding.wait()
        if stage.evaluation.patience or stage.evaluation.metric:
            self._take_best()

    # ------------------------------------------------------------------------------------------------- what it is on

    def _train_data(self, anchor: tuple[int, int] | None) -> TrainingData:
        recipe, processor = self.recipe, self._own_processor()
        specs = [
            SourceSpec(s.path, s.weight, s.augment or self.stage.augment, s.name, recipe.media_root)
            for s in self.stage.mixture
        ]
        return self._data(
            self.lessons.sources(specs),
            processor,
            annotate=self.lessons.annotate(processor),
            even_rows=self.stage.even_rows,
            seed=mixed_seed(recipe.seed, self.number),
            **self.ranks.share(),
            first_row=self.at.rows,
            anchor=anchor,
            progress=self._tell_measuring,
        )

    def _dev_data(self) -> TrainingData | None:
        asked = self.stage.evaluation
        if asked.data is None:
            return None
        spec = SourceSpec(asked.data, name="evaluation", media_root=self.recipe.media_root)
        part = {"cache_bytes": 1 << 28, **(self.ranks.share() if self.holding.sharded else {})}
        return self._data([spec], self._own_processor(), in_order=True, limit=asked.limit, **part)

    def _data(self, specs: Sequence[SourceSpec], processor: WeftProcessor, **more: Any) -> TrainingData:
        stage, recipe = self.stage, self.recipe
        rows: dict[str, Any] = {"row_tokens": stage.row_tokens, "rows": stage.rows, "packing": stage.packing}
        rows |= {"on_bad_sample": recipe.on_bad_sample, "keep_lengths": self.handed.keep_lengths}
        return TrainingData(specs, processor, **rows, **more)

    def _own_processor(self) -> WeftProcessor:
        return copy.deepcopy(self.processor)  # a tokenizer must not be used from two threads at once

    def _tell_measuring(self, source: str, done: int, samples: int) -> None:
        if done and done % 20000 == 0:
            self.log.say(f"measuring {source}: {done:,} of {samples:,} samples")

    def _tell_start(self, found: ckpt.Checkpoint | None) -> None:
        problems = self.data.problems
        for problem in () if found else problems:  # else log and count have them
            self.log.write("bad_sample", step=self.at.step + 1, problem=problem)
            self.at.skipped += 1
        if problems:
            self.log.say(f"{len(problems)} bad samples are left out, listed in {self.folder.log}")
            self.log.say(f"  the first: {problems[0]}")
        trained = ", ".join(
            f"{p.name} {p.training.train} {count(p.parameters.values()) / 1e6:.2f} M"
            for p in self.parts
            if p.parameters
        )
        samples = sum(len(s) for s in self.data.sources) - len(problems)
        for name in self.data.along:
            self.log.say(f"{name}: its samples are measured as they come, and mistakes in them met then")
        at = f", going on at step {self.at.step}" if self.at.step else ""
        self.log.say(f"{self.stage.name}: {samples:,} samples; training {trained}{at}")
        for note in self.lessons.notes(self.planned) if self.planned is not None else ():
            self.log.say(f"  {note}")
        if found is not None and found.state.get("samples", self.samples) != self.samples:
            self.log.say(
                f"  the samples are not those of the checkpoint (number and tokens of each source: "
                f"{found.state['samples']}, now {self.samples}): from here on rows are planned from what is there now"
            )

    # ----------------------------------------------------------------------------------------------- one update

    def _fetch(self, batches: Iterator[Batch]) -> list[Batch]:
        """The micro-steps of the next update; what one rank cannot read ends all of them."""
        micro, problem = [], []
        try:
            micro = [next(batches) for _ in range(self.stage.accumulate)]
        except WeftError as error:
            if self.ranks.world == 1:
                raise
            problem = [str(error)]
        if self.ranks.largest(len(problem)):
            raise Agreed(self.ranks.gathered(problem)[0])
        return self.compiled.filled(micro) if self.compiled else micro

    def _update(self, micro: list[Batch]) -> dict[str, Any]:
        stage, recipe = self.stage, self.recipe
        rate = learning_rate(self.at.done, self.planned, stage.optim)
        with self.holding.together():
            losses = backward(
                self.model,
                micro,
                self.lessons.objectives(self.pace.place(self.at.done)),
                precision=recipe.precision,
                seed=(recipe.seed, self.number, self.at.done),
                ranks=self.ranks,
                sharded=self.holding.sharded,
                meter=self.meter and self.meter.flops,
            )
        self.holding.add(self.parameters)
        norm = self.holding.clip(self.parameters.values(), stage.optim.clip)
        summed = self.ranks.added(torch.stack(list(losses.values())))
        set_rate(self.optimizer, rate)
        step_where_finite(self.optimizer, summed.isfinite().all() & norm.isfinite().to(summed.device))
        self.optimizer.zero_grad(set_to_none=True)
        (labels,) = self.ranks.total([sum(b.labels for b in micro)])
        told = read({**dict(zip(losses, summed, strict=True)), "grad_norm": norm})  # here the host waits for the device
        grad_norm = told.pop("grad_norm")
        if not all(map(math.isfinite, told.values())):
            self._not_finite("loss", micro)
        if not math.isfinite(grad_norm):
            self._not_finite("gradient", micro)
        return {
            "losses": {name: round(loss, 6) for name, loss in told.items()},
            "lr": float(f"{rate:.6g}"),
            "grad_norm": round(grad_norm, 5),
            "labels": int(labels),
        }

    def _not_finite(self, what: str, micro: list[Batch]) -> None:
        samples = self.ranks.gathered([s for b in micro for s in b.samples])
        self.log.write("not_finite", step=self.at.step + 1, what=what, samples=samples)
        shown = ", ".join(samples[:3]) + (f" and {len(samples) - 3} more (log.jsonl)" if len(samples) > 3 else "")
        raise NotFinite(
            f'stage "{self.stage.name}", step {self.at.step + 1}: the {what} is not finite on {shown}; nothing of this'
            " step was applied. Look at these samples, lower the learning rate"
            f" (--set stages.{self.number}.optim.lr=...) or train in float32 (--set precision=float32)"
        )

    def _record(self, micro: list[Batch], numbers: dict[str, Any], seconds: float, waited: float) -> None:
        problems = [problem for b in micro for problem in b.skipped]
        counts = [sum(b.places for b in micro), sum(b.tokens for b in micro), len(problems)]
        counts += [sum(len(b.samples) for b in micro), *(self.meter.flops.taken() if self.meter else ())]
        places, tokens, skipped, samples, *flops = map(int, self.ranks.total(counts))
        for problem in self.ranks.gathered(problems) if skipped else ():
            self.log.write("bad_sample", step=self.at.step, problem=problem)
        self.at.skipped += skipped
        self.log.step(
            stage=self.stage.name,
            step=self.at.step,
            last=self.at.step + self.planned - self.at.done if self.planned is not None else None,
            **numbers,
            tokens=tokens,
            padding=round(1 - tokens / max(places, 1), 4),
            seconds=round(seconds, 4),
            waited=round(waited, 4),  # of these, for data
            samples=samples,
            **(self.meter.facts(tokens, flops, seconds, self.ranks.world) if self.meter else {}),
            skipped=self.at.skipped,
        )

    def _after_update(self) -> None:
        evaluation, at = self.stage.evaluation, self.at
        score, is_best = None, False
        if evaluation.data is not None and (at.done % evaluation.every == 0 or at.done == self.planned):
            score = self.evaluate()
            is_best = score is not None and (at.best is None or (score < at.best if self.lower else score > at.best))
            at.stale = 0 if is_best or at.best is None else at.stale + 1
            at.best = score if is_best else at.best
        stop = self.ranks.largest(self.process.signals.number)  # later ones are heard of after the next update, by all
        if stop or is_best or at.step % self.recipe.checkpoint_every == 0:
            self.save(score)
        if stop:
            self.holding.wait()
            leave()
            stopped = Interrupted(self.folder.path, at.step, stop)
            raise stopped if self.ranks.first else SystemExit(stopped.status)
        self.holding.look()
        if time.monotonic() - self.drawn > DRAW_EVERY:
            self.drawn = time.monotonic()
            self.process.draw()

    # ------------------------------------------------------------------------------------ evaluation and checkpoints

    def evaluate(self) -> float | None:
        """What `_evaluate` gives, on every rank."""
        with self.pace.timing("evaluation"):
            value = self.holding.judged(self.model, self._evaluate)
        told = self.ranks.told(math.nan if value is None else value)
        return None if math.isnan(told) else told

    @torch.no_grad()
    def _evaluate(self) -> float | None:
        """Loss on the evaluation data, and the metric where the stage names one; returns what decides."""
        started = time.monotonic()
        evaluation = self.stage.evaluation
        self.model.eval()
        assert self.dev is not None
        values: dict[str, float | None] = {"loss": self.holding.loss(self.model, self.dev, self.recipe.precision)}
        if evaluation.metric:
            evaluate = self.handed.evaluate
            assert evaluate is not None and evaluation.data is not None
            bad = self.recipe.on_bad_sample
            values |= evaluate(self.model, self.processor, evaluation.data, evaluation.limit, bad)
            if evaluation.metric not in values:
                raise WeftError(f'no metric "{evaluation.metric}" for this data; there are {", ".join(sorted(values))}')
        set_modes(self.model, self.stage)
        self.log.write("eval", step=self.at.step, **values, seconds=round(time.monotonic() - started, 2))
        told = "  ".join(f"{k} {v:.4g}" for k, v in values.items() if v is not None)
        self.log.say(f"step {self.at.step}  evaluation  {told}")
        return values[evaluation.metric or "loss"]

    def _patience_is_out(self) -> bool:
        patience = self.stage.evaluation.patience
        if patience is None or self.at.stale < patience:
            return False
        self.log.say(f"{self.stage.name}: no better for {patience} evaluations; the stage ends at step {self.at.step}")
        return True

    def save(self, score: float | None = None) -> None:
        """Writes a checkpoint of the last update, whose evaluation gave ``score``."""
        with self.pace.timing("checkpoint"):
            self.holding.save(self._state(score), lambda: (dict(self.parameters), self._moments()), self._prune)
        self.at.saved = self.at.step

    def _state(self, score: float | None) -> dict[str, Any]:
        noted, anchor = ASKED["marks"](self.model) if self.stage.lessons else {}, self.data.plan.anchor(self.at.rows)
        of = {"anchor": anchor, "score": score, "measured": self.measured, "samples": self.samples, "marks": noted}
        return asdict(self.at) | of

    def _moments(self) -> dict[str, torch.Tensor]:
        return optimizer_state(self.optimizer, {id(p): n for n, p in self.parameters.items()})

    def _prune(self) -> None:
        keep = self.recipe.keep_last, self.recipe.keep_best, self.lower, self.measured
        ckpt.prune(self.folder.checkpoints, *keep)

    def _restore(self, found: ckpt.Checkpoint) -> tuple[int, int] | None:
        """Takes weights, optimizer and position from a checkpoint; returns the plan's anchor."""
        there = found.shapes()
        # 0.1.0 trained what is constant, where a model was loaded; a run that did so goes on with it as it is now.
        if {name for name in there if "/" not in name} - constants(self.model) != self.parameters.keys():
            raise WeftError(f"{found.path}: not of this recipe; its trained weights differ from what the stage trains")
        moments = {}
        for key, shape in there.items():
            if (p := self.parameters.get(key.partition("/")[2])) is not None:
                moments[key] = torch.zeros_like(p) if p.shape == shape else torch.zeros(shape)
        self._take(found, moments)
        load_optimizer_state(self.optimizer, moments, self.parameters)
        if noted := found.state.get("marks"):
            ASKED["marks"](self.model, noted)
        if found.state.get("measured") != self.measured:  # scores from here on are of another kind
            self.at.best, self.at.stale = None, 0
        return tuple(found.state["anchor"]) if found.state["anchor"] else None

    def _take_best(self) -> None:
        found = ckpt.best(self.folder.checkpoints, self.lower, self.measured)
        if found is not None and found.step != self.at.step:
            self.log.say(f"taking the best checkpoint, step {found.step}")
            self._take(found)

    @torch.no_grad()
    def _take(self, found: ckpt.Checkpoint, moments: Mapping[str, torch.Tensor] | None = None) -> None:
        """Takes the weights of a checkpoint, and with them fills ``moments``."""
        there = dict(self.model.named_parameters())
        found.read_into({**{n: there[n].detach() for n in found.shapes() if n in there}, **(moments or {})})


def count(parameters: Any) -> int:
    """How many numbers there are in them."""
    return sum(p.numel() for p in parameters)
