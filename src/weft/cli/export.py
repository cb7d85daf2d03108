"""`weft export` and `weft merge`: weft folders to what other programs read, and adapters into their weights."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from weft.cli.imports import Force, Kind, Out, progress_line, report
from weft.conversation import WeftError

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A weft folder or hub name.")]


def export(
    model: Model,
    out: Out,
    layout: Annotated[Literal["llava", "qwen2-audio", "peft"], typer.Option("--format", help="The layout to write.")],
    dtype: Kind = "auto",
    force: Force = False,
    on: Annotated[
        Literal["model", "language"], typer.Option(help="peft: for weft's whole model, or the language model alone.")
    ] = "model",
    base: Annotated[str | None, typer.Option(help="peft: what the adapter says it belongs to.")] = None,
) -> None:
    """Write a model in the layout of another program's class, or its adapter alone.

    [dim]weft export my-model --format llava -o my-llava[/dim]
    """
    if layout != "peft" and (on != "model" or base is not None):
        raise WeftError(f"--on and --base are for --format peft, not {layout}; leave them out")
    if layout == "peft":
        from weft.formats.adapters import export_peft

        if dtype != "auto":
            raise WeftError("--format peft keeps the adapter's own type; leave --dtype out")
        print(export_peft(model, out, on=on, base=base, force=force))
        return
    from weft.formats.layouts import export as write

    if layout == "llava":
        from weft.formats.export_llava import llava_layout as fit
    else:
        from weft.formats.export_qwen2_audio import qwen2_audio_layout as fit
    report(write(model, out, fit, dtype, force=force, progress=progress_line()))


def merge(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An adapter folder.")],
    out: Out,
    dtype: Kind = "auto",
    force: Force = False,
) -> None:
    """Fold an adapter into the weights of its base, one tensor at a time.

    [dim]weft merge my-adapter -o my-model[/dim]
    """
    from weft.formats.adapters import merge

    report(merge(model, out, dtype, force=force, progress=progress_line()))
