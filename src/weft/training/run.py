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

from weft.conversation import WeftError
from weft.models.modeling import WeftForConditionalGeneration
from weft.models.processing import WeftProcessor
from weft.training import checkpoint as ckpt
from weft.training.asked import ASKED
from weft.training.endings import Agreed, Signals, saved_at_the_end
from weft.training.folder import RunFolder, alone_in, located
from weft.training.handed import Handed, Lessons, lessons_of
from weft.training.log import Log, clock, cut_log
from weft.training.memory import Blocks
from weft.training.parallel import Whole
from weft.training.ranks import Ranks, leave
from weft.training.recipe import Recipe
from weft.training.stage import Process, Progress, StageRun, count


def train(
    recipe: Recipe | None,
    run_dir: str | Path,
    *,
    resume: bool = False,
    out: str | Path | None = None,
    adapter_only: bool = False,
    **handed: Any,
) -> Path:
    """Train a recipe in ``run_dir``; returns the folder of the final model (``out``, or ``run_dir/final``).

    With ``resume`` the run in ``run_dir`` goes on from its newest whole checkpoint; ``recipe`` None: the saved one.
    ``handed``: fields of `Handed`. Raises `Interrupted` after SIGTERM or SIGINT, `WeftError` for everything a user can
    mend; both say how to go on. Started by torchrun, this is one rank of several (`ranks`).
    """
    path, ranks, given = Path(run_dir), Ranks.start(), Handed(**handed)
    recipe = located(recipe) if recipe is not None else None
    out = Path(out) if out is not None else None

    def drawn() -> None:
        if given.draw is not None and ranks.first:
            with suppress(OSError):  # the log has it all, and how a run ended is to be told before a full disk
                given.draw(path)

    def say(text: str) -> None:
        if given.console is not None and ranks.first:
            given.console.print(text, soft_wrap=True)

    with ExitStack() as held:
        if resume:
            ranks.lead(partial(RunFolder.read, path))
            ranks.lead(partial(held.enter_context, alone_in(path)))
            folder = ranks.after_first(partial(RunFolder.reopen, path, recipe, out))
            if folder.out.exists():
                say(f"{path} is finished; its model is there")
                return folder.out
            if folder.begun is not None:
                say(
                    f"{path} was begun as {folder.begun}, which may still be there with a model of its own: this one "
                    f"leaves its model in {folder.out}"
                )
            lessons = ranks.after_first(partial(lessons_of, folder.recipe, given.teach))
        else:
            if recipe is None:
                raise WeftError("give a recipe")
            folder = RunFolder(path, recipe, out or path / "final", adapter_only)
            lessons = ranks.after_first(partial(lessons_of, recipe, given.teach))
            ranks.lead(folder.check_free)
            ranks.lead(partial(held.enter_context, alone_in(path)))
            ranks.lead(folder.create)
        held.callback(drawn)
        one = Run(folder, ranks, given, lessons, drawn)
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
        self, folder: RunFolder, ranks: Ranks, handed: Handed, lessons: Sequence[Lessons], draw: Callable[[], None]
    ) -> None:
        asked, where = folder.recipe.parallel, (folder.checkpoints, ranks)
        how = "tensor" if asked.tensor > 1 else "shard" if asked.shard else None
        self.holding: Whole = ASKED[how](*where, folder.recipe) if how and ranks.world > 1 else Whole(*where)
        self.folder, self.ranks, self.handed = folder, self.holding.ranks, handed
        self.lessons, self.draw, self.found = lessons, draw, ckpt.newest(folder.checkpoints)
        self.progress = Progress.of(self.found)
        self.stage: StageRun | None = None  # the one at work

    def go(self) -> Path:
        """Every stage that is left; gives the folder of the final model."""
        begun = time.monotonic()
        folder, recipe, ranks, at = self.folder, self.folder.recipe, self.ranks, self.progress
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        trace = folder.path / "trace.json" if self.handed.profile and ranks.first else None
        with (
            Signals() as signals,
            ASKED["trace"].traced(trace) if trace else nullcontext(lambda: None) as traced,
            saved_at_the_end(folder.path, ranks, self._save, lambda: at.saved),
        ):
            ranks.lead(partial(cut_log, folder.log, at.step))
            telling: dict[str, Any] = {"loggers": recipe.loggers, "name": recipe.name, "silent": not ranks.first}
            with Log(folder.path, **telling, console=self.handed.console, observe=self.handed.observe) as log:
                here = folder, ranks, self.holding, log, signals, self.handed, self.lessons, at, self.draw
                process = Process(*here, Blocks(traced).updated)
                model, processor = self.holding.build(folder.model_of(at.stage))
                log.write("start", step=at.step, parameters=count(model.parameters()))
                for damaged in ckpt.newer(folder.checkpoints, self.found):
                    log.say(f"{damaged} is damaged and passed over")
                found = self.found
                for number in range(at.stage, len(recipe.stages)):
                    if self.stage is not None and self.holding.sharded:
                        model, processor = self.holding.build(folder.model_of(number))  # what is shared out stays so
                    self.stage = StageRun(process, model, processor, number, found)
                    self.stage.train()
                    self._pass_on(model, processor, number)
                    found = None
                log.write("end", step=at.step)
                what = f"an adapter for {recipe.model.base}" if recipe.model.bits else "the model"
                log.say(f"done in {clock(time.monotonic() - begun)}; {what} is {folder.out}")
        return folder.out

    def _save(self) -> None:
        if self.stage is not None and self.progress.step != self.progress.saved:
            self.stage.save()
        if self.stage is not None:
            self.holding.wait()

    def _pass_on(self, model: WeftForConditionalGeneration, processor: WeftProcessor, number: int) -> None:
        """Writes what stage ``number`` leaves: what the next begins with, or the final model."""
        folder, last = self.folder, number == len(self.folder.recipe.stages) - 1
        if last and folder.leaves_adapter:
            start, stage = folder.model_of(number), folder.recipe.stages[number]
            saver = ASKED["adapter"].adapter_saver(model, processor, folder.out, start, stage, inside=number > 0)
            self.ranks.lead(saver)
        else:
            self.holding.leave(model, processor, folder.out if last else folder.stage(number), last)
