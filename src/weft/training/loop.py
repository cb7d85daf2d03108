"""The training loop: stages, updates, evaluation, checkpoints, and every way a run can end.

A run folder holds ``recipe.json`` (resolved), ``run.json`` (versions, revision, where the model goes), ``log.jsonl``,
``progress.png``, ``checkpoints/``, ``lengths/`` and, between stages, ``stages/``. What an update does is a function of
(recipe, files, number of the update), so a run that was killed and resumed gives the same bits on a CPU.
"""

from __future__ import annotations

import copy
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from weft.conversation import WeftError
from weft.data.loader import Batch, SourceSpec, TrainingData
from weft.files import is_full
from weft.training import checkpoint as ckpt
from weft.training import folder, picture
from weft.training.build import build_model
from weft.training.export import round_as_saved, save_adapter, save_model
from weft.training.log import Log, clock, cut_log
from weft.training.memory import give_back_large_blocks
from weft.training.optim import (
    build_optimizer,
    embedding_ids,
    learning_rate,
    load_optimizer_state,
    optimizer_state,
    set_rate,
)
from weft.training.parts import apply_parts, dialect_tokens, merge_lora, set_modes, spare_activations
from weft.training.ranks import ALONE, Ranks, leave
from weft.training.recipe import Recipe
from weft.training.update import backward, batch_loss, clip_gradients, mixed_seed

# evaluate(model, processor, data file, first samples only, "fail" or "skip") -> {"task.metric": value}; None: there is
# no value yet, such as an error of word times where no word was right
Evaluate = Callable[[Any, Any, str, int | None, Literal["fail", "skip"]], dict[str, float | None]]


class Interrupted(Exception):
    """A signal ended the run; it is saved. ``status`` is the exit status that shells expect."""

    def __init__(self, run: Path, step: int, number: int) -> None:
        self.status = 128 + number
        super().__init__(
            f"stopped by {signal.Signals(number).name} and saved at step {step}; go on with: weft train --resume {run}"
        )


class Agreed(WeftError):
    """An error that every rank knows of, so that all can save before they end."""


def lower_is_better(metric: str) -> bool:
    """Which way is up for the loss or a "task.metric"; the names are those of `weft evaluate`."""
    name = metric.rsplit(".", 1)[-1]
    return name == "loss" or name.startswith(("wer", "cer")) or name.endswith("_ms")


class NotFinite(Agreed):
    """A loss or gradient that is not a number."""


def train(
    recipe: Recipe | None,
    run_dir: str | Path,
    *,
    resume: bool = False,
    evaluate: Evaluate | None = None,
    out: str | Path | None = None,
    adapter_only: bool = False,
    console: Console | None = None,
) -> Path:
    """Train a recipe in ``run_dir``; returns the folder of the final model (``out``, or ``run_dir/final``).

    With ``resume`` the run in ``run_dir`` goes on from its newest whole checkpoint; ``recipe`` None: the saved one.
    ``evaluate`` scores generated answers during training where a stage names a metric. Raises `Interrupted` after
    SIGTERM or SIGINT, `WeftError` for everything a user can mend; both say how to go on. Started by torchrun, this is
    one rank of several (`ranks`).
    """
    run, ranks = Path(run_dir), Ranks.start()
    recipe = folder.located(recipe) if recipe is not None else None
    if resume:
        recipe, out, adapter_only = ranks.after_first(partial(folder.reopen, run, recipe))
        if out.exists():
            if console is not None and ranks.first:
                console.print(f"{run} is finished; its model is there", soft_wrap=True)
            return out
    else:
        if recipe is None:
            raise WeftError("give a recipe")
        out = Path(out) if out is not None else run / "final"
        ranks.lead(partial(folder.create, run, recipe, out, adapter_only))
    one = Run(recipe, run, Path(out), adapter_only, evaluate, console, ranks)
    try:
        final = one.go()
    except (Agreed, ckpt.DiskFull):
        raise  # its message speaks of the folder
    except WeftError:
        if not resume and not one.step and ranks.world == 1:
            shutil.rmtree(run, ignore_errors=True)  # the mended command is to find the place free
        raise
    leave()
    return final


class Run:
    """One process's work on a run folder."""

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        out: Path,
        adapter_only: bool,
        evaluate: Evaluate | None,
        console: Console | None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.recipe, self.run, self.out, self.adapter_only, self.evaluate = recipe, run, out, adapter_only, evaluate
        self.checkpoints = run / "checkpoints"
        self.signal = 0
        self.step = 0  # updates done, over all stages
        self.done = 0  # updates done in this stage
        self.rows = 0  # rows of the stage's plan consumed: the position
        self.skipped = 0
        self.best: float | None = None
        self.stale = 0  # evaluations since the best
        self.saved_at = -1
        self.begun = self.drawn = time.monotonic()
        self.console, self.ranks = console, ranks

    # --------------------------------------------------------------------------------------------- the whole run

    def go(self) -> Path:
        recipe = self.recipe
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        give_back_large_blocks()
        found = ckpt.newest(self.checkpoints)
        self.ranks.lead(partial(cut_log, self.run / "log.jsonl", found.step if found else 0))
        first = int(found.state["stage"]) if found else 0
        silent = not self.ranks.first
        with (
            _signals(self),
            Log(self.run, loggers=recipe.loggers, console=self.console, name=recipe.name, silent=silent) as self.log,
            self._endings(),
        ):
            self.model, self.processor = build_model(self._model_of(first))
            self.model.to(self.ranks.device)
            self.steps = folder.read_steps(self.run, recipe)
            self.log.write("start", step=found.step if found else 0, parameters=_count(self.model.parameters()))
            for number in range(first, len(recipe.stages)):
                self._stage(number, found if number == first else None)
            return self._finish()

    def _model_of(self, stage: int) -> Any:
        """What stage number ``stage`` starts from."""
        if stage == 0:
            return self.recipe.model
        return type(self.recipe.model)(base=str(self.run / "stages" / str(stage - 1)))

    @contextmanager
    def _endings(self) -> Iterator[None]:
        """Whatever ends the run, save what is whole and say how to go on."""
        try:
            yield
        except ckpt.DiskFull as error:
            raise ckpt.DiskFull(f"{error}: weft train --resume {self.run}") from None
        except WeftError as error:
            # What one rank alone has met the others do not know of, so they could not save together.
            together = self.ranks.world == 1 or isinstance(error, Agreed)
            if together and self.step and self.step != self.saved_at and hasattr(self, "optimizer"):
                self._save(None)
            if together:
                leave()
            if together and not self.ranks.first:
                raise SystemExit(2) from None  # the first rank says it
            if self.ranks.world == 1 and not self.step and not isinstance(error, Agreed):
                raise  # nothing is trained that could be gone on with
            saved = self.saved_at if self.saved_at >= 0 else 0
            raise type(error)(f"{error}; the run is saved at step {saved}: weft train --resume {self.run}") from None
        except OSError as error:
            if is_full(error):
                what = f"{error.filename} could not be written" if error.filename else str(error)
                raise ckpt.DiskFull(f"{ckpt.disk_full(self.run, what)}: weft train --resume {self.run}") from error
            raise
        finally:
            self._draw(final=True)

    # ------------------------------------------------------------------------------------------------- one stage

    def _stage(self, number: int, found: ckpt.Checkpoint | None) -> None:
        recipe, stage = self.recipe, self.recipe.stages[number]
        self.number, self.stage = number, stage
        tokens = dialect_tokens(self.processor)
        self.parts = apply_parts(self.model, stage, mixed_seed(recipe.seed, number), tokens)
        spare_activations(self.model, stage.checkpoint_activations)
        self.parameters = {n: p for part in self.parts for n, p in part.parameters.items()}
        self.names = {id(p): n for n, p in self.parameters.items()}
        self.optimizer = build_optimizer(self.parts, stage.optim, embedding_ids(self.model))
        self.done, self.rows, self.best, self.stale, anchor = 0, 0, None, 0, None
        if found is not None:
            anchor = self._restore(found)
        self.lower = lower_is_better(stage.evaluation.metric or "loss")
        need = 12 * _count(self.parameters.values()) + 4 * _count(self.model.parameters())
        ckpt.check_room(self.run, need, "a checkpoint and the final model")
        data = self.ranks.after_first(partial(self._data, anchor))
        self._tell_start(data, resumed=found is not None)
        self.dev = self.ranks.lead(self._dev_data)
        batches = data.batches(workers=recipe.workers)
        measure, begun = folder.Pace(stage) if stage.minutes and number not in self.steps else None, self.done
        try:
            while (measure or self.done < self.planned) and not self._patience_is_out():
                started = time.monotonic()
                micro = self._fetch(batches)
                waited = time.monotonic() - started
                numbers = self._update(micro)
                self.step, self.done = self.step + 1, self.done + 1
                self.rows += stage.accumulate * stage.rows * self.ranks.world
                self._record(micro, numbers, time.monotonic() - started, waited)
                if measure and (planned := int(self.ranks.told(measure.after(time.monotonic() - started) or 0))):
                    self.steps[number], measure = begun + planned, None  # once: each new plan would move the end on
                    self.ranks.lead(partial(folder.write_steps, self.run, recipe, self.steps))
                    self.log.say(
                        f"{stage.name}: {begun + planned} steps fit into {stage.minutes:g} minutes at this speed"
                    )
                self._after_update(data)
        finally:
            batches.close()  # type: ignore[attr-defined]
        if self.step != self.saved_at:
            self._save(None, data)
        if stage.evaluation.patience or stage.evaluation.metric:
            self._take_best()
        keep_adapter = self.adapter_only and number == len(recipe.stages) - 1
        if not keep_adapter:
            merge_lora(self.model)
        if number < len(recipe.stages) - 1:
            self.ranks.lead(partial(save_model, self.model, self.processor, self.run / "stages" / str(number)))
            if not self.ranks.first:
                round_as_saved(self.model)

    @property
    def measured(self) -> list[Any]:
        """What a score of this stage is a score of."""
        evaluation = self.stage.evaluation
        return [self.number, evaluation.metric or "loss", evaluation.data, evaluation.limit]

    @property
    def planned(self) -> int:
        """Updates of this stage."""
        return self.steps.get(self.number, self.stage.steps)

    def _data(self, anchor: tuple[int, int] | None) -> TrainingData:
        stage, recipe = self.stage, self.recipe
        specs = [SourceSpec(s.path, s.weight, s.augment or stage.augment, s.name) for s in stage.mixture]
        return TrainingData(
            specs,
            copy.deepcopy(self.processor),  # a tokenizer must not be used from two threads at once
            row_tokens=stage.row_tokens,
            rows=stage.rows,
            packing=stage.packing,
            listen=stage.listen.weight > 0,
            guide=stage.listen.guide > 0,
            seed=mixed_seed(recipe.seed, self.number),
            on_bad_sample=recipe.on_bad_sample,
            rank=self.ranks.rank,
            world=self.ranks.world,
            lengths_dir=self.run / "lengths",
            first_row=self.rows,
            anchor=anchor,
            progress=self._tell_measuring,
        )

    def _dev_data(self) -> TrainingData | None:
        evaluation, stage = self.stage.evaluation, self.stage
        if evaluation.data is None:
            return None
        return TrainingData(
            [SourceSpec(evaluation.data, name="evaluation")],
            copy.deepcopy(self.processor),
            row_tokens=stage.row_tokens,
            rows=stage.rows,
            packing=stage.packing,
            on_bad_sample=self.recipe.on_bad_sample,
            lengths_dir=self.run / "lengths",
            in_order=True,
            limit=evaluation.limit,
            cache_bytes=1 << 28,
        )

    def _tell_measuring(self, source: str, done: int, samples: int) -> None:
        if done and done % 20000 == 0:
            self.log.say(f"measuring {source}: {done:,} of {samples:,} samples")

    def _tell_start(self, data: TrainingData, resumed: bool) -> None:
        for problem in () if resumed else data.problems:  # else log and count have them
            self.log.write("bad_sample", step=self.step, problem=problem)
            self.skipped += 1
        if data.problems:
            self.log.say(f"{len(data.problems)} bad samples are left out, listed in {self.run / 'log.jsonl'}")
            self.log.say(f"  the first: {data.problems[0]}")
        trained = ", ".join(
            f"{p.name} {p.training.train} {_count(p.parameters.values()) / 1e6:.2f} M"
            for p in self.parts
            if p.parameters
        )
        samples = sum(len(s) for s in data.sources) - len(data.problems)
        at = f", going on at step {self.step}" if self.step else ""
        self.log.say(f"{self.stage.name}: {samples:,} samples; training {trained}{at}")
        listen = self.stage.listen
        if listen.weight and listen.first >= self.stage.steps and not self.stage.minutes:
            self.log.say(
                f"  its {self.planned:,} updates only listen and look, and learn no answers: fewer do with "
                f"--set stages.{self.number}.listen.first=N, {listen.first:,} now"
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
        return micro

    def _update(self, micro: list[Batch]) -> dict[str, float]:
        stage, recipe = self.stage, self.recipe
        rate = learning_rate(self.done, self.planned, stage.optim)
        losses = backward(
            self.model,
            micro,
            precision=recipe.precision,
            label_smoothing=stage.label_smoothing,
            near=stage.near,
            balance=stage.balance,
            listen=stage.listen.weight,
            guide=stage.listen.guide,
            answer=self.done >= stage.listen.first,
            seed=(recipe.seed, self.number, self.done),
            ranks=self.ranks,
        )
        if not all(map(math.isfinite, losses.values())):
            self._not_finite("loss", micro)
        self.ranks.add_gradients(self.parameters.values())
        norm = clip_gradients(self.parameters.values(), stage.optim.clip)
        if not math.isfinite(norm):
            self._not_finite("gradient", micro)
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {**losses, "grad_norm": norm, "lr": rate, "labels": self.ranks.total([sum(b.labels for b in micro)])[0]}

    def _not_finite(self, what: str, micro: list[Batch]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        samples = self.ranks.gathered([s for b in micro for s in b.samples])
        self.log.write("not_finite", step=self.step, what=what, samples=samples)
        shown = ", ".join(samples[:3]) + (f" and {len(samples) - 3} more (log.jsonl)" if len(samples) > 3 else "")
        raise NotFinite(
            f'stage "{self.stage.name}", step {self.step + 1}: the {what} is not finite on {shown}; nothing of this'
            " step was applied. Look at these samples, lower the learning rate"
            f" (--set stages.{self.number}.optim.lr=...) or train in float32 (--set precision=float32)"
        )

    def _record(self, micro: list[Batch], numbers: dict[str, float], seconds: float, waited: float) -> None:
        problems = [problem for b in micro for problem in b.skipped]
        counts = [sum(b.places for b in micro), sum(b.tokens for b in micro), len(problems)]
        places, tokens, skipped = map(int, self.ranks.total(counts))
        for problem in self.ranks.gathered(problems) if skipped else ():
            self.log.write("bad_sample", step=self.step, problem=problem)
        self.skipped += skipped
        last = self.step + self.planned - self.done
        self.log.step(
            stage=self.stage.name,
            step=self.step,
            last=last,
            loss=round(numbers["loss"], 6),
            **{name: round(numbers[name], 6) for name in ("listen", "look", "guide") if name in numbers},
            lr=float(f"{numbers['lr']:.6g}"),
            grad_norm=round(numbers["grad_norm"], 5),
            tokens=tokens,
            labels=int(numbers["labels"]),
            padding=round(1 - tokens / max(places, 1), 4),
            seconds=round(seconds, 4),
            waited=round(waited, 4),  # of these, for data
            skipped=self.skipped,
        )

    # --------------------------------------------------------------------------- evaluation, checkpoints, endings

    def _after_update(self, data: TrainingData) -> None:
        evaluation = self.stage.evaluation
        last = self.done == self.planned
        score, is_best = None, False
        if evaluation.data is not None and (self.done % evaluation.every == 0 or last):
            value = self.ranks.lead(self._evaluate)
            told = self.ranks.told(math.nan if value is None else value)
            score = None if math.isnan(told) else told
            is_best = score is not None and (
                self.best is None or (score < self.best if self.lower else score > self.best)
            )
            self.stale = 0 if is_best or self.best is None else self.stale + 1
            self.best = score if is_best else self.best
        stop = self.ranks.largest(self.signal)  # what comes after this is heard of after the next update, by all
        if stop or is_best or self.step % self.recipe.checkpoint_every == 0:
            self._save(score, data)
        if stop:
            leave()
            stopped = Interrupted(self.run, self.step, stop)
            raise stopped if self.ranks.first else SystemExit(stopped.status)
        if time.monotonic() - self.drawn > 60:
            self._draw()

    @torch.no_grad()
    def _evaluate(self) -> float | None:
        """Loss on the evaluation data, and the metric where the stage names one; returns what decides."""
        started = time.monotonic()
        evaluation = self.stage.evaluation
        self.model.eval()
        total, labels = 0.0, 0
        assert self.dev is not None
        for batch in self.dev.batches():
            if batch.labels:
                total += float(batch_loss(self.model, batch, self.recipe.precision)) * batch.labels
                labels += batch.labels
        values: dict[str, float | None] = {"loss": total / max(labels, 1)}
        if evaluation.metric:
            if self.evaluate is None:
                raise WeftError(
                    f"evaluation.metric {evaluation.metric} needs a scorer; weft train and finetune have it"
                )
            assert evaluation.data is not None
            bad = self.recipe.on_bad_sample
            values |= self.evaluate(self.model, self.processor, evaluation.data, evaluation.limit, bad)
            if evaluation.metric not in values:
                raise WeftError(f'no metric "{evaluation.metric}" for this data; there are {", ".join(sorted(values))}')
        set_modes(self.model, self.stage)
        self.log.write("eval", step=self.step, **values, seconds=round(time.monotonic() - started, 2))
        told = "  ".join(f"{k} {v:.4g}" for k, v in values.items() if v is not None)
        self.log.say(f"step {self.step}  evaluation  {told}")
        return values[evaluation.metric or "loss"]

    def _save(self, score: float | None, data: TrainingData | None = None) -> None:
        self.ranks.lead(partial(self._write, score, data))
        self.saved_at = self.step

    def _write(self, score: float | None, data: TrainingData | None) -> None:
        state = {
            "step": self.step,
            "stage": self.number,
            "done": self.done,
            "rows": self.rows,
            "anchor": data.plan.anchor(self.rows) if data is not None else None,
            "score": score,
            "measured": self.measured,
            "best": self.best,
            "stale": self.stale,
            "skipped": self.skipped,
        }
        ckpt.prune(self.checkpoints, self.recipe.keep_last, self.recipe.keep_best, self.lower, self.measured)
        ckpt.save(self.checkpoints, state, dict(self.parameters), optimizer_state(self.optimizer, self.names))
        ckpt.prune(self.checkpoints, self.recipe.keep_last, self.recipe.keep_best, self.lower, self.measured)

    def _restore(self, found: ckpt.Checkpoint) -> tuple[int, int] | None:
        weights = found.weights()
        if set(weights) != set(self.parameters):
            raise WeftError(f"{found.path}: not of this recipe; its trained weights differ from what the stage trains")
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(weights[name])
        load_optimizer_state(self.optimizer, found.optimizer(), self.parameters)
        state = found.state
        self.step, self.done, self.rows = state["step"], state["done"], state["rows"]
        self.skipped = state["skipped"]
        if state.get("measured") == self.measured:  # else scores from here on are of another kind
            self.best, self.stale = state["best"], state["stale"]
        self.saved_at = self.step
        return tuple(state["anchor"]) if state["anchor"] else None

    def _patience_is_out(self) -> bool:
        patience = self.stage.evaluation.patience
        if patience is None or self.stale < patience:
            return False
        self.log.say(f"{self.stage.name}: no better for {patience} evaluations; the stage ends at step {self.step}")
        return True

    def _take_best(self) -> None:
        found = ckpt.best(self.checkpoints, self.lower, self.measured)
        if found is not None and found.step != self.step:
            self.log.say(f"taking the best checkpoint, step {found.step}")
            weights = found.weights()
            with torch.no_grad():
                for name, p in self.parameters.items():
                    p.copy_(weights[name])

    def _finish(self) -> Path:
        if self.adapter_only:
            start = self._model_of(self.number)
            self.ranks.lead(partial(save_adapter, self.model, self.processor, self.out, start, self.stage))
        else:
            self.ranks.lead(partial(save_model, self.model, self.processor, self.out))
        self.log.write("end", step=self.step)
        self.log.say(f"done in {clock(time.monotonic() - self.begun)}; the model is {self.out}")
        return self.out

    def _draw(self, final: bool = False) -> None:
        self.drawn = time.monotonic()
        if not self.ranks.first:
            return
        try:
            picture.draw(self.run)
        except OSError as error:
            if not is_full(error):
                raise  # a picture that finds no room is no reason to lose the message that says so


@contextmanager
def _signals(run: Run) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the run after the update under way; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _: Any) -> None:
        run.signal = number
        for s, handler in previous.items():
            signal.signal(s, handler)

    for s in previous:
        signal.signal(s, note)
    try:
        yield
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)


def _count(parameters: Any) -> int:
    return sum(p.numel() for p in parameters)
