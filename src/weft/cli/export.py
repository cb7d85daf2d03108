"""`weft export` and `weft merge`: weft folders to what other programs read, and adapters into their weights."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from weft.cli.convert import Dtype, Force, Kind, Out, progress_line, report

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A weft folder or hub name.")]


class Layout(StrEnum):
    llava = "llava"


def export(
    model: Model,
    out: Out,
    layout: Annotated[Layout, typer.Option("--format", help="The layout to write.")],
    dtype: Kind = Dtype.auto,
    force: Force = False,
) -> None:
    """Write a model in the layout of another program's class.

    [dim]weft export my-model --format llava -o my-llava[/dim]
    """
    from weft.formats.export_llava import export_llava

    report(export_llava(model, out, dtype.value, force=force, progress=progress_line()))
