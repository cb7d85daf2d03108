"""``weft.train`` and ``weft.finetune``: what the commands of these names do, from Python.

What they put together, training itself is handed: recipes by name, samples that are made when they are asked for, what
teaches models from nothing, and the scorer behind a stage's metric.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from weft.conversation import WeftError

if TYPE_CHECKING:
    from rich.console import Console

    from weft.training.handed import Teach
    from weft.training.recipe import Recipe

Files = str | Sequence[str] | Mapping[str, str | PathLike[str]]  # FILE or NAME=FILE, one or several; or files by name
Changes = Sequence[str] | Mapping[str, Any]  # PATH=VALUE; or values by path


def train(
    recipe: Recipe | str | PathLike[str] | None = None,
    run: str | PathLike[str] | None = None,
    *,
    size: str | None = None,
    model: str | PathLike[str] | None = None,
    stages: str | Sequence[str] = (),
    data: Files = (),
    changes: Changes = (),
    resume: bool = False,
    out: str | PathLike[str] | None = None,
    adapter_only: bool = False,
    on_bad_sample: Literal["fail", "skip"] | None = None,
    media_root: str | PathLike[str] | None = None,
    workers: int | None = None,
    threads: int | None = None,
    observe: Callable[[dict[str, Any]], Any] | None = None,
    profile: bool = False,
    console: Console | None = None,
) -> Path:
    """Train a recipe (a value, a built-in name or a .py file) in the folder ``run``; returns the folder of the model.

    ``run`` None: ``runs/NAME``. ``out``: the model goes there, and not into ``run/final``. ``size``: of a built-in
    recipe. ``model``: to start from. ``stages``: these alone. ``data``: in place of the recipe's sources. ``changes``
    of single values, such as ``{"stages.0.optim.lr": 1e-4}``. With ``resume`` the run in ``run`` goes on, changed so.
    ``observe`` is told each record of ``log.jsonl`` between updates; ``profile`` writes ``trace.json`` of a few.

    Raises `WeftError` for everything a user can mend, and `weft.training.endings.Interrupted` after SIGTERM or Ctrl-C;
    both say how to go on. Started by torchrun, this is one rank of several.
    """
    from weft.recipes import RECIPES, load_recipe, model_spec, only_stages
    from weft.recipes.files import with_files
    from weft.training.folder import RunFolder
    from weft.training.overrides import override
    from weft.training.recipe import Recipe

    extra = _changes(changes, on_bad_sample=on_bad_sample, media_root=media_root, workers=workers, threads=threads)
    if resume:
        if run is None or recipe is not None or size is not None or model is not None or stages or data:
            raise WeftError("to resume takes the recipe and the data from the run; give its folder and no others")
        kept = override(RunFolder.read(Path(run)).recipe, extra)
        return _run(kept, Path(run), True, out, adapter_only, console, observe=observe, profile=profile)
    if recipe is None:
        raise WeftError(f"name a recipe ({', '.join(RECIPES)}, or a .py file), or a run to resume")
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), size)
    chosen = only_stages(chosen, [stages] if isinstance(stages, str) else stages)
    if model is not None:
        same = {"lora_for_media": chosen.model.lora_for_media}  # what the recipe says of how it learns
        chosen = chosen.model_copy(update={"model": model_spec(str(model)).model_copy(update=same)})
    chosen = override(with_files(chosen, _files(data)), extra)
    folder = Path(run) if run else Path("runs") / chosen.name
    return _run(chosen, folder, False, out, adapter_only, console, observe=observe, profile=profile)


def finetune(
    model: str | PathLike[str],
    data: Files,
    out: str | PathLike[str],
    *,
    eval_data: str | PathLike[str] | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    full: bool | None = None,
    adapter_only: bool = False,
    lr: float | None = None,
    bits: Literal[4, 8] | None = None,
    metric: str | None = None,
    changes: Changes = (),
    on_bad_sample: Literal["fail", "skip"] | None = None,
    media_root: str | PathLike[str] | None = None,
    workers: int | None = None,
    threads: int | None = None,
    console: Console | None = None,
) -> Path:
    """Fine-tune a model on samples; ``out`` becomes the new model, and ``OUT.run`` beside it is the run.

    ``full``: every weight, or with False LoRA; None: LoRA, but for small models. ``metric``: the model is kept that is
    best in this on ``eval_data``. ``bits``: the language model is read in 4 or 8, and trains through
    LoRA; ``out`` becomes an adapter for ``model``. For the rest and what is raised see `train`.
    """
    from weft.data.source import absolute
    from weft.recipes.finetune import SMALL, finetune_recipe
    from weft.training.overrides import override
    from weft.training.recipe import Source

    out = Path(out)
    if out.exists():
        raise WeftError(f"{out}: is there already, and nothing is overwritten; name a new folder")
    if metric and eval_data is None:
        raise WeftError("--metric needs --eval-data FILE to measure it on")
    recipe = finetune_recipe(
        str(model),
        [Source(path=absolute(path), name=name) for name, path in _files(data)],
        eval_data=str(Path(eval_data).absolute()) if eval_data else None,
        full=full,
        steps=steps,
        minutes=minutes,
        lr=lr,
        bits=bits,
        media_root=str(media_root) if media_root else None,
    )
    asked = {"on_bad_sample": on_bad_sample, "media_root": media_root, "workers": workers, "threads": threads}
    recipe = override(recipe, _changes(changes, **{"stages.0.evaluation.metric": metric}, **asked))
    how = {p.train for p in recipe.stages[0].parts.values()}
    if "lora" not in how and full is None and not adapter_only and console is not None:
        console.print(
            f"A model below {SMALL // 1_000_000} M parameters trains in full: it knows too little for LoRA to bend.",
            soft_wrap=True,
        )
    return _run(recipe, out.with_name(f"{out.name}.run"), False, out, adapter_only, console)


def _run(
    recipe: Recipe,
    run: Path,
    resume: bool,
    out: str | PathLike[str] | None,
    adapter_only: bool,
    console: Any,
    **watched: Any,
) -> Path:
    from weft.data.kept_lengths import KeptLengths
    from weft.training import picture
    from weft.training.features import recalled_towers
    from weft.training.meters import Meter
    from weft.training.run import train

    return train(
        recipe,
        run,
        resume=resume,
        evaluate=Scorer(recipe.media_root),
        teach=teacher(recipe),
        recall=recalled_towers,
        keep_lengths=KeptLengths,
        meter=Meter,
        draw=picture.draw,
        out=Path(out) if out is not None else None,
        adapter_only=adapter_only,
        console=console,
        **watched,
    )


def teacher(recipe: Recipe) -> Teach | None:
    """What teaches the lessons of the recipe's stages, where it has any and they are installed."""
    if not any(given for stage in recipe.stages for given in (stage.lessons, *(s.lessons for s in stage.mixture))):
        return None
    try:
        from weft.teaching import teach
    except ImportError:
        return None  # training says what is missing
    return teach


class Scorer:
    """What `weft evaluate` says of a model that is being trained (`weft.training.handed.Evaluate`)."""

    def __init__(self, media_root: str | None = None) -> None:
        self.media_root = media_root

    def __call__(
        self, model: Any, processor: Any, data: str, limit: int | None, on_bad_sample: Literal["fail", "skip"], /
    ) -> dict[str, float | None]:
        from weft.evaluation.run import evaluate
        from weft.generation import Model

        asked: dict[str, Any] = {"limit": limit, "on_bad_sample": on_bad_sample, "media_root": self.media_root}
        report = evaluate(Model(model, processor), data, **asked)
        return {
            f"{task}.{name}": value
            for task, values in report["metrics"].items()
            for name, value in values.items()
            if value is None or isinstance(value, (int, float))
        }

    def lower_is_better(self, metric: str, /) -> bool:
        from weft.evaluation.metrics import chosen

        return chosen([metric.rsplit(".", 1)[-1]])[0].better == "lower"


def _changes(changes: Changes, **named: Any) -> list[str]:
    """Values that have a name of their own here, and then all others: as ``PATH=VALUE``."""
    if root := named.get("media_root"):
        named["media_root"] = str(Path(root).absolute())
    given = [f"{path}={json.dumps(value)}" for path, value in named.items() if value is not None]
    if isinstance(changes, Mapping):
        return [*given, *(f"{path}={json.dumps(value)}" for path, value in changes.items())]
    return [*given, *changes]


def _files(data: Files) -> list[tuple[str | None, str]]:
    """``(name, path)`` of each."""
    if isinstance(data, Mapping):
        return [(name, str(path)) for name, path in data.items()]
    found: list[tuple[str | None, str]] = []
    for text in [data] if isinstance(data, str) else data:
        name, equals, path = text.partition("=")
        found.append((name, path) if equals and name.isidentifier() and not Path(text).exists() else (None, text))
    return found
