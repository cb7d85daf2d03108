"""``weft train`` and ``weft finetune``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from weft.cli.asking import MediaRoot
from weft.conversation import WeftError

if TYPE_CHECKING:
    from weft.training.lessons import Teach
    from weft.training.recipe import Recipe

# Before numpy is imported: the threads of its own matrix library spin beside torch's and make decoding cost three times
# the processor time (measured on two cores: 200 against 60 ms an update of the bundled model).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change one value, such as stages.0.optim.lr=1e-4. Repeatable."),
]
Data = Annotated[
    list[str] | None, typer.Option("--data", metavar="[NAME=]FILE", help="Training samples (JSON Lines). Repeatable.")
]
OnBad = Annotated[
    str | None, typer.Option("--on-bad-sample", metavar="fail|skip", help="Stop, or leave out and count.")
]
Workers = Annotated[int | None, typer.Option(min=0, max=1024, help="Processes that decode samples (0: a thread).")]
Threads = Annotated[int | None, typer.Option(min=1, max=1024, help="Threads that compute; default: all cores.")]


def train(
    recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="A built-in name or a .py file.")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The size of a built-in recipe; tiny makes its own samples.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Start from this weft folder, hub name or bundled.")
    ] = None,
    stage: Annotated[
        list[str] | None, typer.Option("--stage", metavar="NAME", help="Only this stage of the recipe. Repeatable.")
    ] = None,
    data: Data = None,
    changes: Set = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="RUN", help="Folder of the run.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with a run that stopped.")] = None,
    on_bad_sample: OnBad = None,
    media_root: MediaRoot = None,
    workers: Workers = None,
    threads: Threads = None,
) -> None:
    """Train a recipe. The run folder holds the recipe, the log, checkpoints, a picture and, in the end, the model.

    [dim]weft train digits --data digits=digits/train.jsonl -o runs/digits[/dim]

    [dim]weft train minigpt_v2 --size tiny[/dim]

    [dim]weft train minigpt_v2 --model IMPORTED --stage instructions[/dim]
    """
    from weft.recipes import RECIPES, load_recipe
    from weft.recipes.bundled import model_spec
    from weft.training.folder import RunFolder
    from weft.training.overrides import override

    extra = _settings(changes, on_bad_sample, media_root, workers, threads)
    if resume is not None:
        if recipe is not None or size is not None or model is not None or stage or data or out is not None:
            raise WeftError("--resume takes the recipe, the data and the folder from the run; give no others")
        chosen = override(RunFolder.reopen(resume).recipe, extra)
        _run(chosen, resume, resume=True)
        return
    if recipe is None:
        raise WeftError(f"name a recipe ({', '.join(RECIPES)}, or a .py file), or --resume RUN")
    chosen = _only(load_recipe(recipe, size), stage or [])
    if model is not None:
        chosen = chosen.model_copy(update={"model": model_spec(model)})
    chosen = override(_with_data(chosen, data or []), extra)
    _run(chosen, out if out is not None else Path("runs") / chosen.name)


def finetune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, a hub name, or 'bundled'.")],
    data: Annotated[
        list[str], typer.Option("--data", metavar="[NAME=]FILE", help="Training samples (JSON Lines). Repeatable.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="OUT", help="Folder of the new model; OUT.run is the run.")
    ],
    eval_data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Samples to evaluate on while training.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=10**8, help="Updates; default: from the number of samples.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, max=60 * 24 * 366, help="Train for about this long instead.")
    ] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Train small adapters (default above 50 M parameters).")] = False,
    full: Annotated[bool, typer.Option("--full", help="Train every weight (default for small models).")] = False,
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="Write the adapter, not the merged model.")
    ] = False,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    metric: Annotated[
        str | None, typer.Option(metavar="TASK.METRIC", help="Keep the model that is best in this on --eval-data.")
    ] = None,
    changes: Set = None,
    on_bad_sample: OnBad = None,
    media_root: MediaRoot = None,
    workers: Workers = None,
    threads: Threads = None,
) -> None:
    """Fine-tune a model on your own samples: one command, one folder to chat with and to evaluate.

    [dim]weft finetune bundled --data digits/train.jsonl -o digits-model[/dim]
    """
    from weft.cli.terminal import err
    from weft.recipes.finetune import SMALL, finetune_recipe
    from weft.training.overrides import override
    from weft.training.recipe import Source

    if lora and full:
        raise WeftError("give --lora or --full, not both")
    if out.exists():
        raise WeftError(f"{out}: is there already, and nothing is overwritten; name a new folder")
    if metric and eval_data is None:
        raise WeftError("--metric needs --eval-data FILE to measure it on")
    sources = [Source(path=str(Path(path).absolute()), name=name) for name, path in map(_named, data)]
    recipe = finetune_recipe(
        model,
        sources,
        eval_data=str(eval_data.absolute()) if eval_data else None,
        full=True if full else False if lora else None,
        steps=steps,
        minutes=minutes,
        lr=lr,
        media_root=str(media_root) if media_root else None,
    )
    extra = _settings(changes, on_bad_sample, media_root, workers, threads)
    if metric:
        extra = [f"stages.0.evaluation.metric={metric}", *extra]
    recipe = override(recipe, extra)
    how = {p.train for p in recipe.stages[0].parts.values()}
    if "lora" not in how and not full and not adapter_only:
        err.print(
            f"A model below {SMALL // 1_000_000} M parameters trains in full: it knows too little for LoRA to bend.",
            soft_wrap=True,
        )
    _run(recipe, out.with_name(out.name + ".run"), out=out, adapter_only=adapter_only)


def _run(recipe: Recipe, run: Path, **options: Any) -> None:
    from weft.cli.terminal import err, out
    from weft.training.endings import Interrupted
    from weft.training.ranks import talks
    from weft.training.run import train

    try:
        scorer = Scorer(recipe.media_root)
        folder = train(recipe, run, evaluate=scorer, teach=teacher(recipe), console=err, **options)
    except Interrupted as stop:
        err.print(str(stop), style="warn", soft_wrap=True)
        raise typer.Exit(stop.status) from None
    if talks():
        out.print(str(folder), soft_wrap=True)


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
    """What `weft evaluate` says of a model that is being trained (`weft.training.stage.Evaluate`)."""

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


def _settings(
    changes: list[str] | None,
    on_bad_sample: str | None,
    media_root: Path | None,
    workers: int | None,
    threads: int | None,
) -> list[str]:
    """Options that are names for values of the recipe, and then what --set says."""
    given = {"on_bad_sample": on_bad_sample, "workers": workers, "threads": threads}
    if media_root is not None:
        given["media_root"] = str(media_root.absolute())
    return [*(f"{name}={value}" for name, value in given.items() if value is not None), *(changes or [])]


def _named(text: str) -> tuple[str | None, str]:
    """``(name, path)`` of ``name=path`` or ``path``."""
    name, equals, path = text.partition("=")
    return (name, path) if equals and name.isidentifier() and not Path(text).exists() else (None, text)


def _only(recipe: Recipe, names: list[str]) -> Recipe:
    """The recipe with the stages of these names alone, in its own order; all where none is named."""
    there = [stage.name for stage in recipe.stages]
    for name in names:
        if name not in there:
            raise WeftError(f"--stage {name}: the recipe {recipe.name} has the stages {', '.join(there)}")
    stages = tuple(stage for stage in recipe.stages if not names or stage.name in names)
    return recipe.model_copy(update={"stages": stages})


def _with_data(recipe: Recipe, data: list[str]) -> Recipe:
    """The recipe with the paths of its sources replaced by those of the command line, and made absolute.

    Samples of the playground that are not there are made.
    """
    from weft.playground.tasks import make_if_named
    from weft.recipes.datasets import how_to_make

    names = list(dict.fromkeys(s.name or Path(s.path).stem for stage in recipe.stages for s in stage.mixture))
    given: dict[str, str] = {}
    for name, path in map(_named, data):
        if name is None and len(names) == 1:
            name = names[0]
        if name not in names:
            wanted = f"no source {name}" if name else f"{path}: which source is it?"
            raise WeftError(f"--data {wanted}; write NAME=FILE, with a name of: {', '.join(names)}")
        given[name] = path
    stages = []
    for stage in recipe.stages:
        sources = []
        for source in stage.mixture:
            label = source.name or Path(source.path).stem
            file = Path(given.get(label, source.path))
            if not file.is_file() and not make_if_named(file):
                how = how_to_make(file)
                raise WeftError(f"{file}: no such file; {how}say where it is with --data {label}=FILE")
            sources.append(source.model_copy(update={"path": str(file.absolute())}))
        stages.append(stage.model_copy(update={"mixture": tuple(sources)}))
    return recipe.model_copy(update={"stages": tuple(stages)})
