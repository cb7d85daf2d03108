"""The run folder: made once, opened again to resume."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from weft.conversation import WeftError
from weft.files import whole_file
from weft.training.recipe import ModelSpec, Recipe, Stage

PATHS = ("base", "source", "tokenizer", "path", "data")  # fields of a recipe that name a file, a folder or a hub name


@dataclass(frozen=True)
class RunFolder:
    """Where a run is, what it is to do, and where its final model goes."""

    path: Path
    recipe: Recipe
    out: Path
    adapter_only: bool = False

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def lengths(self) -> Path:
        """Where the tokens of every sample are kept, once they are counted."""
        return self.path / "lengths"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    def stage(self, number: int) -> Path:
        """The model that a stage leaves to the next."""
        return self.path / "stages" / str(number)

    def model_of(self, number: int) -> ModelSpec:
        """What a stage starts from."""
        return self.recipe.model if number == 0 else ModelSpec(base=str(self.stage(number - 1)))

    def create(self) -> None:
        """Make the folder and write down what is run. Raises `WeftError` where a run or the model is there already."""
        run = self.path
        _check(self.recipe, self.adapter_only)
        if (run / "recipe.json").exists():
            raise WeftError(
                f"{run}: holds a run already; go on with it (weft train --resume {run}) or name another folder"
            )
        if run.exists() and (not run.is_dir() or any(run.iterdir())):
            raise WeftError(f"{run}: is there already and holds other things; name a new folder")
        if self.out.exists():
            raise WeftError(f"{self.out}: is there already, and nothing is overwritten; name a new folder")
        facts = {
            "started": time.time(),
            "command": sys.argv,
            "weft": metadata.version("weft"),
            "revision": revision(),
            "python": platform.python_version(),
            "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
            "threads": self.recipe.threads or torch.get_num_threads(),
            **{name: metadata.version(name) for name in ("torch", "transformers", "peft", "grain", "numpy")},
            "out": str(self.out.absolute()),
            "adapter_only": self.adapter_only,
        }
        _write(run / "run.json", facts)
        _write(run / "recipe.json", self.recipe.model_dump(mode="json"))  # last: with it the folder is a run

    @classmethod
    def reopen(cls, run: Path, recipe: Recipe | None = None) -> RunFolder:
        """The run that is there; a ``recipe`` given replaces the saved one."""
        try:
            facts = json.loads((run / "run.json").read_text())
            saved = Recipe.model_validate_json((run / "recipe.json").read_text())
        except OSError:
            raise WeftError(f"{run}: is not the folder of a run (no recipe.json); start one without --resume") from None
        except (ValueError, ValidationError) as error:
            raise WeftError(f"{run}: its recipe.json cannot be read ({error}); start a new run") from None
        out = Path(facts["out"])
        if recipe is not None and recipe != saved:
            if out.exists():
                raise WeftError(
                    f"{run}: is finished, so no value of its recipe can change; to train on with others, move its "
                    f"model ({out}) away"
                )
            _write(run / "recipe.json", recipe.model_dump(mode="json"))
        return cls(run, recipe or saved, out, bool(facts["adapter_only"]))

    def read_steps(self) -> dict[int, int]:
        """Steps of the stages that are given in minutes, once their speed is known; not where the minutes changed."""
        file, stages = self.path / "steps.json", self.recipe.stages
        known = json.loads(file.read_text()) if file.exists() else {}
        found = {i: known[str(i)] for i in range(len(stages)) if str(i) in known}
        return {i: one["steps"] for i, one in found.items() if one["minutes"] == stages[i].minutes}

    def write_steps(self, steps: dict[int, int]) -> None:
        stages = self.recipe.stages
        _write(self.path / "steps.json", {i: {"minutes": stages[i].minutes, "steps": n} for i, n in steps.items()})


def _check(recipe: Recipe, adapter_only: bool) -> None:
    """Raises `WeftError` where a run could not end as it is meant."""
    for stage in recipe.stages:
        wanted = [name for name in ("metric", "patience") if getattr(stage.evaluation, name)]
        if wanted and stage.evaluation.data is None:
            raise WeftError(f'stage "{stage.name}": evaluation.{wanted[0]} needs evaluation.data to measure on')
    if adapter_only and all(part.train != "lora" for part in recipe.stages[-1].parts.values()):
        raise WeftError("--adapter-only: no part of the last stage trains through LoRA; add --lora, or save it whole")


def located(recipe: Recipe) -> Recipe:
    """The recipe with local paths made absolute, so that the run can be gone on with from anywhere."""

    def whole(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: _absolute(v) if k in PATHS else whole(v) for k, v in value.items()}
        return [whole(v) for v in value] if isinstance(value, list) else value

    return Recipe.model_validate_json(json.dumps(whole(recipe.model_dump(mode="json"))))


def _absolute(value: Any) -> Any:
    return str(Path(value).absolute()) if isinstance(value, str) and Path(value).exists() else value


class Pace:
    """Turns a stage's minutes into steps: the median of the first updates' times, the very first ones aside."""

    FIRST, LAST = 3, 20

    def __init__(self, stage: Stage) -> None:
        assert stage.minutes is not None
        self.seconds = 60 * stage.minutes
        self.times: list[float] = []

    def after(self, seconds: float) -> int | None:
        """The stage's steps, once enough updates have been timed."""
        self.times.append(seconds)
        usual = sorted(self.times[self.FIRST :])
        if not usual or (len(self.times) < self.LAST and sum(self.times) < self.seconds / 10):
            return None
        left = self.seconds - sum(self.times)
        return max(len(self.times) + int(left / usual[len(usual) // 2]), len(self.times) + 1)


def revision() -> str | None:
    """The git revision of weft's own source, ``+`` appended where files are changed; None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _write(file: Path, value: Any) -> None:
    with whole_file(file) as handle:
        handle.write(json.dumps(value, indent=1) + "\n")
