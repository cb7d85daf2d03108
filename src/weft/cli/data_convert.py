"""``weft data convert``: other projects' data as weft samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from weft.cli.terminal import err, out, plural
from weft.conversation import WeftError

if TYPE_CHECKING:
    from weft.data.converters import Report

HELP = (
    "Turn other projects' data into weft samples.\n\nFORMAT is auto, which tells it from the files, or one of {}; "
    "[bold]weft data convert list[/bold] says what each reads and whether that was verified on real files."
)


class Naming(TyperCommand):
    """Imports the formats when its help names them: the other commands about data begin without them."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from weft.data.converters import CONVERTERS

        self.help = HELP.format(", ".join(CONVERTERS))
        super().format_help(ctx, formatter)


def convert(
    layout: Annotated[str, typer.Argument(metavar="FORMAT", help="What PATH is laid out as; list shows them all.")],
    path: Annotated[Path | None, typer.Argument(help="The file or folder to read.")] = None,
    out_path: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="The sample file to write.")
    ] = None,
    media: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the pictures or recordings; default: that of PATH.")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The second file of a layout that has two: answers, instances.json."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Which samples, where a layout gives several kinds.")] = None,
    split: Annotated[str | None, typer.Option(help="Only this split, where the annotations name it.")] = None,
    language: Annotated[str | None, typer.Option(help="Language of the speech, such as en.")] = None,
    to: Annotated[str | None, typer.Option(help="Language it is translated into.")] = None,
    tier: Annotated[str | None, typer.Option(help="Tier of a timeline that has several.")] = None,
    answers: Annotated[
        str, typer.Option(help="majority: the most frequent answer; every: a sample for each; full: GQA's sentence.")
    ] = "majority",
    original_cleanup: Annotated[
        bool,
        typer.Option("--original-cleanup", help="Clean text as the original's training did; otherwise it is kept."),
    ] = False,
    clip_boxes: Annotated[
        bool,
        typer.Option("--clip-boxes", help="Cut boxes at the edge of their picture; counted. Otherwise they are bad."),
    ] = False,
    max_area: Annotated[float | None, typer.Option(help="Only regions of less than this many square pixels.")] = None,
    on_bad_sample: Annotated[
        Literal["fail", "skip"],
        typer.Option(help="What does not fit: stop with a sentence, or leave it out and count it."),
    ] = "fail",
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N samples.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    from weft.data.converters import convert as run

    if layout == "list" and path is None:
        _list(as_json)
        return
    if path is None or out_path is None:
        missing = "PATH, the file or folder to read" if path is None else "-o FILE, the sample file to write"
        raise WeftError(f"weft data convert {layout} needs {missing}")
    report = run(
        layout,
        path,
        out_path,
        media=media,
        on_bad=on_bad_sample,
        limit=limit,
        annotations=annotations,
        task=task,
        split=split,
        language=language,
        to=to,
        tier=tier,
        answers=answers,
        clean=original_cleanup,
        clip_boxes=clip_boxes,
        max_area=max_area,
    )
    if as_json:
        print(json.dumps(report.as_dict(), ensure_ascii=False))
    else:
        _say(report)


def _say(report: Report) -> None:
    for reason, count in report.left_out.most_common():
        err.print(f"left out: {plural(count, 'entry', 'entries')}: {reason}", style="warn")
    for bad in report.examples:
        err.print(Text(f"  {bad}", style="quiet"), soft_wrap=True)
    for note, count in report.notes.most_common():
        err.print(Text(f"note: {note}: {count:,}", style="quiet"), soft_wrap=True)
    found = f"{report.out}: {plural(report.samples, 'sample')} of {report.layout}"
    out.print(Text(found, style="good"), soft_wrap=True)


def _list(as_json: bool) -> None:
    from weft.data.converters import CONVERTERS

    if as_json:
        rows = {k: {"help": c.help, "verified": c.verified, "tasks": c.tasks} for k, c in CONVERTERS.items()}
        print(json.dumps(rows, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="quiet")
    table.add_column("format", no_wrap=True)
    table.add_column("checked on", no_wrap=True)
    table.add_column("reads", overflow="fold")
    for name, c in CONVERTERS.items():
        reads = Text(c.help)
        if c.tasks:
            reads.append(f"; --task {', '.join(c.tasks)}", style="quiet")
        if c.verified:
            reads.append(f"; checked on {c.verified}", style="quiet")
        table.add_row(Text(name, style="head"), Text("real files" if c.verified else "documents"), reads)
    out.print(table)
