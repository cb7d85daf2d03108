"""What the commands that ask a model share: how a model is named, the decoding options, the progress bar."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from weft.conversation import WeftError

if TYPE_CHECKING:
    from weft.generation import Model, Options
    from weft.generation.workers import Workers

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A folder, a hub name, 'bundled' or 'scratch'.", show_default=False)
]
MaxNewTokens = Annotated[int, typer.Option(help="Longest answer, in tokens.")]
Sample = Annotated[bool, typer.Option("--sample", help="Sample instead of taking the likeliest token.")]
Temperature = Annotated[float | None, typer.Option(help="Flatness of sampling; implies --sample.")]
TopP = Annotated[float | None, typer.Option(help="Sample within this probability mass; implies --sample.")]
TopK = Annotated[int | None, typer.Option(help="Sample among the k likeliest; implies --sample.")]
Beams = Annotated[int, typer.Option(help="Beams of a beam search.")]
RepetitionPenalty = Annotated[float, typer.Option(help="Above 1 makes repeating less likely.")]
Seed = Annotated[int | None, typer.Option(help="Makes sampling repeat.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; default: the checkpoint's.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; default: a GPU where there is one.")]
Switch = Annotated[
    list[str] | None,
    typer.Option("--switch", metavar="NAME=VALUE", help="Change a switch of the model's dialect. Repeatable."),
]
MediaRoot = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Refuse media outside of DIR, links followed: for files by others.")
]
BatchSize = Annotated[int, typer.Option(min=1, max=1 << 16, help="Conversations answered together.")]
Processes = Annotated[
    int, typer.Option("--nproc", min=1, max=1024, help="Processes that answer, each with a model and GPU of its own.")
]
Ray = Annotated[bool, typer.Option("--ray", help="Have Ray Data start the processes, on a cluster or here.")]
OnBadSample = Annotated[
    Literal["fail", "skip"], typer.Option(help="At a sample that cannot be asked: fail, or skip and count it.")
]


def open_model(
    name: str, dtype: str | None = None, device: str | None = None, switches: list[str] | None = None
) -> Model:
    """The model that a command line names, ready to answer. ``switches``: NAME=VALUE, changes to its dialect's."""
    import weft

    return weft.load(name, dtype=dtype, device=device, switches=pairs(switches, "--switch"))


@contextmanager
def open_models(
    name: str, dtype: str | None, device: str | None, switches: list[str] | None, count: int, ray: bool = False
) -> Iterator[Model | Workers]:
    """The model in this process, or in ``count`` others, which Ray starts where that is asked for."""
    if ray:
        from weft.generation.ray_workers import RayWorkers

        with RayWorkers(partial(opened_on, name, dtype, switches), count, device) as started:
            yield started
        return
    if count == 1:
        yield open_model(name, dtype, device, switches)
        return
    from weft.generation import workers

    with workers.Workers(partial(opened_on, name, dtype, switches), count, device) as found:
        yield found


@contextmanager
def ranks(nproc: int) -> Iterator[Any]:
    """The processes that torchrun started this one with, to share what is asked; else this one alone."""
    if os.environ.get("WORLD_SIZE", "1") == "1" or "RANK" not in os.environ:
        from weft.generation.answers import ALONE

        yield ALONE
        return
    from weft.training.ranks import Ranks, leave

    if nproc > 1:
        raise WeftError("torchrun says how many processes answer; leave --nproc out")
    yield Ranks.start()
    leave()


def opened_on(name: str, dtype: str | None, switches: list[str] | None, device: str | None) -> Model:
    return open_model(name, dtype, device, switches)


def decoding_options(
    max_new_tokens: int,
    sample: bool,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    beams: int,
    repetition_penalty: float,
    seed: int | None,
) -> Options:
    from weft.generation import Options

    asked: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    sampling = {name: value for name, value in asked.items() if value is not None}
    return Options(
        max_new_tokens=max_new_tokens,
        do_sample=sample or bool(sampling),
        num_beams=beams,
        repetition_penalty=repetition_penalty,
        seed=seed,
        **sampling,
    )


def parse_task(text: str) -> dict[str, Any]:
    """``transcribe language=en timestamps=true`` as a task part; values are JSON where they read as JSON."""
    try:
        name, *rest = shlex.split(text)
    except ValueError:
        raise WeftError(f"task {text!r}: write its name, then key=value, such as: transcribe language=en") from None
    part: dict[str, Any] = {"type": "task", "task": name}
    for item in rest:
        key, value = _pair(item, f"task {name}")
        part[key] = value
    return part


def pairs(texts: list[str] | None, what: str) -> dict[str, Any]:
    """What an option that is given several times as NAME=VALUE says."""
    return dict(_pair(text, what) for text in texts or ())


def _pair(text: str, what: str) -> tuple[str, Any]:
    """``key=value``; the value is JSON where it reads as JSON, else a string."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise WeftError(f"{what}: {text!r} has no value; write key=value, such as language=en")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, where that is a terminal; called with how many are done, and of how many."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from weft.cli.terminal import err

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        row = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(row, completed=done, total=total)
