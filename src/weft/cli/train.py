"""``weft train`` and ``weft finetune``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from weft.cli.asking import MediaRoot
from weft.conversation import WeftError

# Before numpy is imported: the threads of its own matrix library spin beside torch's and make decoding cost three times
# the processor time (measured on two cores: 200 against 60 ms an update of `scratch`).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change one value, such as stages.0.optim.lr=1e-4. Repeatable."),
]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="[NAME=]FILE", help="Training samples (JSON Lines, or shards). Repeatable."),
]
OnBad = Annotated[Literal["fail", "skip"] | None, typer.Option(help="Stop, or leave out and count.")]
Workers = Annotated[int | None, typer.Option(min=0, max=1024, help="Processes that decode samples (0: a thread).")]
Threads = Annotated[int | None, typer.Option(min=1, max=1024, help="Threads that compute; default: all cores.")]
Nproc = Annotated[int | None, typer.Option(min=1, max=1024, metavar="N", help="Ranks on this machine, one a GPU.")]


def train(
    ctx: typer.Context,
    recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="A built-in name or a .py file.")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The size of a built-in recipe; tiny makes its own samples.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Start from this weft folder, hub name, bundled or scratch.")
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
    nproc: Nproc = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Write RUN/trace.json: a few updates, step by step.")
    ] = False,
) -> None:
    """Train a recipe. The run folder holds the recipe, the log, checkpoints, a picture and, in the end, the model.

    [dim]weft train digits --data digits=digits/train.jsonl -o runs/digits[/dim]

    [dim]weft train minigpt_v2 --size tiny[/dim]

    [dim]weft train minigpt_v2 --model IMPORTED --stage instructions[/dim]
    """
    import weft

    _in_ranks(ctx, nproc)
    if resume is not None and out is not None:
        raise WeftError("--resume goes on in the folder of the run; give no other")
    asked: dict[str, Any] = {"size": size, "model": model, "stages": stage or (), "data": data or ()}
    common: dict[str, Any] = {"on_bad_sample": on_bad_sample, "media_root": media_root}
    common |= {"workers": workers, "threads": threads, "changes": changes or ()}
    _tell(weft.train, recipe, resume or out, resume=resume is not None, profile=profile, **asked, **common)


def finetune(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, a hub name, 'bundled' or 'scratch'.")],
    data: Annotated[
        list[str],
        typer.Option("--data", metavar="[NAME=]FILE", help="Training samples (JSON Lines, or shards). Repeatable."),
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
    bits: Annotated[
        int | None, typer.Option(metavar="4|8", help="Read the language model in so few bits; leaves an adapter.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    metric: Annotated[
        str | None, typer.Option(metavar="TASK.METRIC", help="Keep the model that is best in this on --eval-data.")
    ] = None,
    changes: Set = None,
    on_bad_sample: OnBad = None,
    media_root: MediaRoot = None,
    workers: Workers = None,
    threads: Threads = None,
    nproc: Nproc = None,
) -> None:
    """Fine-tune a model on your own samples: one command, one folder to chat with and to evaluate.

    [dim]weft finetune scratch --data digits/train.jsonl -o digits-model[/dim]
    """
    import weft

    _in_ranks(ctx, nproc)
    if lora and full:
        raise WeftError("give --lora or --full, not both")
    if bits not in (None, 4, 8):
        raise WeftError(f"--bits is 4 or 8, not {bits}; leave it out for the weights as they are")
    asked: dict[str, Any] = {"eval_data": eval_data, "steps": steps, "minutes": minutes, "lr": lr, "metric": metric}
    asked |= {"full": True if full else False if lora else None, "adapter_only": adapter_only, "bits": bits}
    common: dict[str, Any] = {"on_bad_sample": on_bad_sample, "media_root": media_root}
    common |= {"workers": workers, "threads": threads, "changes": changes or ()}
    _tell(weft.finetune, model, data, out, **asked, **common)


def _in_ranks(ctx: typer.Context, nproc: int | None) -> None:
    """Leaves the command to ``nproc`` ranks; one of them goes on here."""
    if nproc is None or nproc == 1 or "RANK" in os.environ:
        return
    from weft.training.launch import launch

    raise typer.Exit(launch(nproc, [sys.executable, "-c", "from weft.cli import main; main()", *ctx.find_root().obj]))


def _tell(work: Callable[..., Path], *args: Any, **options: Any) -> None:
    """Says where the model is that a run leaves, or how to go on with it."""
    from weft.cli.terminal import err, out
    from weft.training.endings import Interrupted
    from weft.training.launch import talks

    try:
        folder = work(*args, console=err, **options)
    except Interrupted as stop:
        err.print(str(stop), style="warn", soft_wrap=True)
        raise typer.Exit(stop.status) from None
    if talks():
        out.print(str(folder), soft_wrap=True)
