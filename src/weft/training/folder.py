"""The run folder: made once, opened again to resume."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from weft.conversation import WeftError
from weft.files import lock, write_json
from weft.frozen import first_mistake
from weft.training.asked import ASKED
from weft.training.recipe import OLD, ModelSpec, Recipe
from weft.version import VERSION

PATHS = ("base", "source", "tokenizer", "path", "data")  # fields of a recipe that name a file, a folder or a hub name
LOCK = ".lock"
ANEW = "copy it from a backup, or start a new run"


@dataclass(frozen=True)
class RunFolder:
    """Where a run is, what it is to do, and where its final model goes.

    The files in it name what lies in it from there, so that it can be moved and copied. A model that is to go elsewhere
    is for the run alone that was begun so: one that finds itself in another place than where it was begun, be it moved
    or a copy, leaves its model in ``final``, unless it is told otherwise.
    """

    path: Path
    recipe: Recipe
    out: Path
    adapter_only: bool = False
    begun: Path | None = None  # where it was begun, if that is elsewhere and its model was to go beside it

    @property
    def leaves_adapter(self) -> bool:
        """A model in few bits cannot take in what was learned."""
        return self.adapter_only or self.recipe.model.bits is not None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    def stage(self, number: int) -> Path:
        """The model that a stage leaves to the next."""
        return self.path / "stages" / str(number)

    def model_of(self, number: int) -> ModelSpec:
        """What a stage starts from."""
        return self.recipe.model if number == 0 else ModelSpec(base=str(self.stage(number - 1)))

    def check_free(self) -> None:
        """Raises `WeftError` where a run or the model is there already, or the run could not end as it is meant."""
        run = self.path
        _check(self.recipe, self.leaves_adapter)
        if (run / "recipe.json").exists():
            raise WeftError(
                f"{run}: holds a run already; go on with it (weft train --resume {run}) or name another folder"
            )
        if run.exists() and (not run.is_dir() or {p.name for p in run.iterdir()} - {LOCK}):
            raise WeftError(f"{run}: is there already and holds other things; name a new folder")
        if self.out.exists():
            raise WeftError(f"{self.out}: is there already, and nothing is overwritten; name a new folder")

    def create(self) -> None:
        """Write down what is run, where `check_free` has nothing to say. What there is no room for leaves nothing."""
        self.check_free()
        facts = {
            "started": time.time(),
            "command": sys.argv,
            "weft": VERSION,
            "revision": revision(),
            "python": platform.python_version(),
            "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
            "threads": self.recipe.threads or torch.get_num_threads(),
            **{name: sys.modules[name].__version__ for name in ("torch", "transformers", "peft", "grain", "numpy")},
            "adapter_only": self.adapter_only,
        }
        try:
            self._write_facts(facts)
            self._write_recipe()  # last: with it the folder is a run
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def _write_facts(self, facts: dict[str, Any]) -> None:
        named = {"folder": str(self.path.resolve()), "out": self.inside(str(self.out.absolute()))}
        write_json(self.path / "run.json", facts | named)

    def _write_recipe(self) -> None:
        write_json(self.path / "recipe.json", _renamed(self.recipe.model_dump(mode="json"), self.inside))

    def inside(self, name: str) -> str:
        """A path in the run folder as its files name it (``./final``); any other name as it is."""
        here, there = self.path.resolve(), Path(os.path.realpath(name))
        return f"./{there.relative_to(here).as_posix()}" if there.is_relative_to(here) else name

    @classmethod
    def read(cls, run: Path) -> RunFolder:
        """The run that is there. Raises `WeftError` where none is, or its files are damaged."""
        facts, saved = _read(run, "run.json"), _read(run, "recipe.json")
        here = run.resolve()
        try:
            asked = _renamed(saved, lambda name: _from(run, name))
            if any(not {"even_rows", "lessons"} <= stage.keys() for stage in asked["stages"]):
                asked = OLD["recipe"](asked)
            recipe = Recipe.model_validate(asked)
            out = Path(_from(run, facts["out"]))
            begun = Path(facts.get("folder") or _folder_of(out))
            adapter_only = bool(facts["adapter_only"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            said = first_mistake(error) if isinstance(error, ValidationError) else repr(error)
            raise WeftError(f"{run}: its run.json and recipe.json do not say what is run ({said}); {ANEW}") from None
        if begun == here or out.is_relative_to(run):
            return cls(run, recipe, out, adapter_only)
        if out.is_relative_to(begun):  # as 0.1.0 wrote it
            return cls(run, recipe, run / out.relative_to(begun), adapter_only)
        return cls(run, recipe, run / "final", adapter_only, begun)

    @classmethod
    def reopen(cls, run: Path, recipe: Recipe | None = None, out: Path | None = None) -> RunFolder:
        """The run that is there, with a ``recipe`` in place of the saved one or another place for the model, if given.

        What is new is written down.
        """
        found = cls.read(run)
        now = replace(found, recipe=recipe or found.recipe, out=out or found.out, begun=None if out else found.begun)
        if now.out.exists() and not now.out.is_dir():
            raise WeftError(f"{now.out}: is a file, where the folder of the model is to be; move it away")
        if now.recipe != found.recipe:
            if now.out.exists():
                raise WeftError(
                    f"{run}: is finished, so no value of its recipe can change; to train on with others, move its "
                    f"model ({now.out}) away"
                )
            _check(now.recipe, now.leaves_adapter)
            now._write_recipe()
        facts = _read(run, "run.json")
        moved = facts.get("folder") not in (None, str(run.resolve()))
        if moved or now.out != found.out or "folder" not in facts:
            now._write_facts({**facts, "moved": time.time()} if moved else facts)
        return now


def alone_in(run: Path) -> AbstractContextManager[None]:
    """Keeps every other process out of the run folder meanwhile. Raises `WeftError` where one is at work on it."""
    run.mkdir(parents=True, exist_ok=True)
    advice = "wait for it, stop it, or name another folder"
    return lock(run / LOCK, lambda holder: WeftError(f"{run}: {holder} is at work on it; {advice}"))


def _check(recipe: Recipe, adapter_only: bool) -> None:
    """Raises `WeftError` where a run could not end as it is meant."""
    if recipe.model.bits:
        ASKED["bits"].check(recipe)
    for stage in recipe.stages:
        wanted = [name for name in ("metric", "patience") if getattr(stage.evaluation, name)]
        if wanted and stage.evaluation.data is None:
            raise WeftError(f'stage "{stage.name}": evaluation.{wanted[0]} needs evaluation.data to measure on')
    if adapter_only and all(part.train != "lora" for part in recipe.stages[-1].parts.values()):
        raise WeftError("--adapter-only: no part of the last stage trains through LoRA; add --lora, or save it whole")


def located(recipe: Recipe) -> Recipe:
    """The recipe with local paths made absolute, so that the run can be gone on with from anywhere."""

    def absolute(name: str) -> str:
        return str(Path(name).absolute()) if Path(name).exists() else name

    return Recipe.model_validate(_renamed(recipe.model_dump(mode="json"), absolute))


def _renamed(value: Any, change: Callable[[str], str]) -> Any:
    """A recipe as plain data with every name of a file, folder or hub model changed."""
    if isinstance(value, dict):
        return {k: change(v) if k in PATHS and isinstance(v, str) else _renamed(v, change) for k, v in value.items()}
    return [_renamed(v, change) for v in value] if isinstance(value, list) else value


def _from(run: Path, name: str) -> str:
    """The reverse of `RunFolder.inside`."""
    return str(run / name) if name.startswith("./") else name


def _folder_of(out: Path) -> Path:
    """Where a run was begun whose model goes to ``out``: 0.1.0 did not write it down."""
    return out.parent if out.name == "final" else out.with_name(f"{out.name}.run")


def _read(run: Path, name: str) -> Any:
    file = run / name
    try:
        return json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise WeftError(f"{run}: is not the folder of a run (no {name}); start one without --resume") from None
    except (OSError, ValueError, RecursionError) as error:
        problem = "it is empty (0 bytes)" if file.is_file() and not file.stat().st_size else error
        raise WeftError(f"{file}: cannot be read ({problem}); {ANEW}") from None


@cache
def revision() -> str | None:
    """The git revision of weft's own source, ``+`` appended where files are changed; None outside a checkout."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    here = Path(__file__).resolve().parent
    try:
        said = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip()
