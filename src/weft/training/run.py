"""A run: a folder is made or opened again, the recipe's stages follow each other in it, and a model is left.

A run folder holds ``recipe.json`` (resolved), ``run.json`` (versions, revision, where the model goes), ``log.jsonl``,
``progress.png``, ``checkpoints/`` and, between stages, ``stages/``.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from weft.conversation import WeftError
from weft.data.lengths import Keep
from weft.models.adapters import merge_lora
from weft.models.processing import WeftProcessor
from weft.training import checkpoint as ckpt
from weft.training.asked import ASKED
from weft.training.build import build_model
from weft.training.endings import Agreed, Signals, saved_at_the_end
from weft.training.export import round_as_saved, save_model
from weft.training.folder import RunFolder, alone_in, located
from weft.training.handed import Evaluate, Lessons, Recall, Teach, lessons_of
from weft.training.log import Log, clock, cut_log
from weft.training.memory import Blocks
from weft.training.ranks import ALONE, Ranks, leave
from weft.training.recipe import Recipe
from weft.training.stage import Process, Progress, StageRun, count


def train(
    recipe: Recipe | None,
    run_dir: str | Path,
    *,
    resume: bool = False,
    evaluate: Evaluate | None = None,
    teach: Teach | None = None,
    recall: Recall | None = None,
    keep_lengths: Keep | None = None,
    meter: Callable[..., Any] | None = None,
    draw: Callable[[Path], Any] | None = None,
    observe: Callable[[dict[str, Any]], Any] | None = None,
    profile: bool = False,
    out: str | Path | None = None,
    adapter_only: bool = False,
    console: Console | None = None,
) -> Path:
    """Train a recipe in ``run_dir``; returns the folder of the final model (``out``, or ``run_dir/final``).

    With ``resume`` the run in ``run_dir`` goes on from its newest whole checkpoint; ``recipe`` None: the saved one.
    ``evaluate`` scores generated answers during training where a stage names a metric; ``teach`` gives what a stage's
    lessons ask for; ``recall`` keeps what frozen encoders give (`features`), ``keep_lengths`` what samples measure
    (`kept_lengths`), ``meter`` what updates cost (`meters`); ``draw`` makes a picture of the run's folder, now and then
    and at the end (`picture`); ``observe`` is told each record of the log, between updates; ``profile`` writes
    ``trace.json``, of a few. Raises `Interrupted` after SIGTERM or SIGINT, `WeftError` for everything a user can mend;
    both say how to go on. Started by torchrun, this is one rank of several (`ranks`).
    """
    path, ranks = Path(run_dir), Ranks.start()
    recipe = located(recipe) if recipe is not None else None
    out = Path(out) if out is not None else None

    def drawn() -> None:
        if draw is not None and ranks.first:
            with suppress(OSError):  # the log has it all, and how a run ended is to be told before a full disk
                draw(path)

    with ExitStack() as held:
        if resume:
            ranks.lead(partial(RunFolder.read, path))
            ranks.lead(partial(held.enter_context, alone_in(path)))
            folder = ranks.after_first(partial(RunFolder.reopen, path, recipe, out))
            if folder.out.exists():
                if console is not None and ranks.first:
                    console.print(f"{path} is finished; its model is there", soft_wrap=True)
                return folder.out
            if folder.begun is not None and console is not None and ranks.first:
                console.print(
                    f"{path} was begun as {folder.begun}, which may still be there with a model of its own: this one "
                    f"leaves its model in {folder.out}",
                    soft_wrap=True,
                )
            lessons = ranks.after_first(partial(lessons_of, folder.recipe, teach))
        else:
            if recipe is None:
                raise WeftError("give a recipe")
            folder = RunFolder(path, recipe, out or path / "final", adapter_only)
            lessons = ranks.after_first(partial(lessons_of, recipe, teach))
            ranks.lead(folder.check_free)
            ranks.lead(partial(held.enter_context, alone_in(path)))
            ranks.lead(folder.create)
        held.callback(drawn)
        one = Run(folder, ranks, evaluate, console, lessons, recall, keep_lengths, meter, drawn, observe, profile)
        try:
            final = one.go()
        except (Agreed, ckpt.DiskFull):
            raise  # its message speaks of the folder
        except WeftError:
            if not resume and not one.progress.step and ranks.world == 1:
                shutil.rmtree(path, ignore_errors=True)  # the mended command is to find the place free
            raise
    leave()
    return final


class Run:
    """One process's work on a run folder."""

    def __init__(
        self,
        folder: RunFolder,
        ranks: Ranks = ALONE,
        evaluate: Evaluate | None = None,
        console: Console | None = None,
        lessons: Sequence[Lessons] = (),
        recall: Recall | None = None,
        keep_lengths: Keep | None = None,
        meter: Callable[..., Any] | None = None,
        draw: Callable[[], None] = lambda: None,
        observe: Callable[[dict[str, Any]], Any] | None = None,
        profile: bool = False,
    ) -> None:
        self.folder, self.ranks, self.evaluate, self.console, self.draw = folder, ranks, evaluate, console, draw
        self.lessons = lessons or lessons_of(folder.recipe, None)
        self.recall, self.keep_lengths, self.meter = recall, keep_lengths, meter
        self.observe, self.profile = observe, profile
        self.found = ckpt.newest(folder.checkpoints)
        self.progress = Progress.of(self.found)
        self.stage: StageRun | None = None  # the one at work

    def go(self) -> Path:
        """Every stage that is left; gives the folder of the final model."""
        begun = time.monotonic()
        path, recipe, ranks, at = self.folder.path, self.folder.recipe, self.ranks, self.progress
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        blocks, trace = Blocks(), path / "trace.json" if self.profile and ranks.first else None
        with (
            Signals() as signals,
            ASKED["trace"].traced(trace) if trace else nullcontext(lambda: None) as after_update,
            saved_at_the_end(path, ranks, self._save, lambda: at.saved),
        ):
            ranks.lead(partial(cut_log, self.folder.log, at.step))
            telling: dict[str, Any] = {"loggers": recipe.loggers, "console": self.console, "name": recipe.name}
            telling |= {"observe": self.observe}
            with Log(path, **telling, silent=not ranks.first) as log:
                handed = self.evaluate, self.lessons, self.recall, self.keep_lengths, self.meter
                process = Process(self.folder, ranks, log, signals, *handed, at, self.draw, blocks, after_update)
                model, processor = self._build(at.stage)
                log.write("start", step=at.step, parameters=count(model.parameters()))
                for damaged in ckpt.newer(self.folder.checkpoints, self.found):
                    log.say(f"{damaged} is damaged and passed over")
                found = self.found
                for number in range(at.stage, len(recipe.stages)):
                    self.stage = StageRun(process, model, processor, number, found)
                    self.stage.train()
                    self._pass_on(model, processor, number)
                    found = None
                    if self.folder.shares_out(ranks) and number + 1 < len(recipe.stages):
                        model, processor = self._build(number + 1)  # what is shared out stays so
                log.write("end", step=at.step)
                what = f"an adapter for {recipe.model.base}" if recipe.model.bits else "the model"
                log.say(f"done in {clock(time.monotonic() - begun)}; {what} is {self.folder.out}")
        return self.folder.out

    def _build(self, number: int) -> tuple[Any, WeftProcessor]:
        """The model that stage ``number`` starts from."""
        if self.folder.shares_out(self.ranks):
            return ASKED["shard"].build_once(self.folder.model_of(number), self.ranks)
        return build_model(self.folder.model_of(number), self.ranks.device)

    def _save(self) -> None:
        if self.stage is not None and self.progress.step != self.progress.saved:
            self.stage.save()
        if self.stage is not None and self.stage.shards:
            self.stage.shards.wait()

    def _pass_on(self, model: Any, processor: WeftProcessor, number: int) -> None:
        """Writes what stage ``number`` leaves: what the next begins with, or the final model."""
        folder, lead = self.folder, self.ranks.lead
        last = number == len(folder.recipe.stages) - 1
        if last and folder.leaves_adapter:
            start, stage = folder.model_of(number), folder.recipe.stages[number]
            lead(ASKED["adapter"].adapter_saver(model, processor, folder.out, start, stage, inside=number > 0))
            return
        if folder.shares_out(self.ranks):
            merge_lora(model, ASKED["shard"].put_together)
            ASKED["shard_files"].save_shards(model, processor, folder.out if last else folder.stage(number), self.ranks)
            return
        merge_lora(model)
        lead(partial(save_model, model, processor, folder.out if last else folder.stage(number)))
        if not last and not self.ranks.first:
            round_as_saved(model)
