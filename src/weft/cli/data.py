"""``weft data``: check and measure sample files, and make them of other projects' data."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from weft.cli.asking import MediaRoot, progress_bar
from weft.cli.data_convert import HELP as CONVERT_HELP
from weft.cli.data_convert import Naming, convert
from weft.cli.terminal import duration, err, facts, number, out, plural, size
from weft.conversation import SampleError

if TYPE_CHECKING:
    from weft.data.stats import Stats
    from weft.data.validate import Summary

NOTES = 20  # remarks on media files that `stats` prints

app = typer.Typer(no_args_is_help=True, help="Check, measure, convert and shard sample files.", rich_markup_mode="rich")
app.command("convert", help=CONVERT_HELP, no_args_is_help=True, cls=Naming)(convert)


@app.command()
def validate(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Sample files (JSON Lines), or shards.")],
    deep: Annotated[bool, typer.Option("--deep", help="Also decode every picture and recording.")] = False,
    max_errors: Annotated[
        int, typer.Option(min=0, metavar="N", help="List this many mistakes and warnings; 0 lists all.")
    ] = 50,
    media_root: MediaRoot = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary and mistakes as JSON.")] = False,
) -> None:
    """Check sample files: every mistake with file, line and field, and a summary. Status 2 where there are mistakes."""
    from weft.data.validate import validate as check

    listed: list[SampleError] = []
    warned: list[SampleError] = []

    def say(found: SampleError, already: list[SampleError], mark: str = "") -> None:
        if max_errors and len(already) >= max_errors:
            return
        already.append(found)
        if not as_json:
            err.print(Text(mark, style="warn").append_text(_mistake_line(found)), soft_wrap=True)

    def on_mistake(mistake: SampleError) -> None:
        say(mistake, listed)

    def on_warning(warning: SampleError) -> None:
        say(warning, warned, "warning: ")

    started = time.perf_counter()
    total = sum(os.path.getsize(f) for f in files if os.path.isfile(f))
    with _progress("checking", total, hide=as_json) as advance:
        summary = check(
            files, deep=deep, on_mistake=on_mistake, on_warning=on_warning, on_progress=advance, media_root=media_root
        )
    seconds = time.perf_counter() - started
    if as_json:
        said = {
            name: [{"file": m.file, "line": m.line, "field": m.field, "problem": m.problem} for m in found]
            for name, found in (("errors", listed), ("notes", warned))
        }
        print(json.dumps({"ok": not summary.mistakes, **summary.as_dict(), **said}, ensure_ascii=False))
        raise typer.Exit(2 if summary.mistakes else 0)
    if more := summary.mistakes - len(listed) + summary.warnings - len(warned):
        err.print(f"... and {more:,} more (--max-errors 0 lists all)", style="quiet")
    if summary.samples:
        out.print(_summary(summary))
    how = "every media file decoded" if deep else "media files found, not decoded (--deep does)"
    if summary.mistakes:
        found = plural(summary.mistakes, "mistake")
        fine = f"; {plural(summary.samples, 'sample is', 'samples are')} fine" if summary.samples else ""
        err.print(f"{found}{fine}.", style="bad")
        raise typer.Exit(2)
    warnings = f", {plural(summary.warnings, 'warning')}" if summary.warnings else ""
    out.print(
        f"No mistakes{warnings}: {plural(summary.samples, 'sample')} in {duration(seconds)}, {how}.", style="good"
    )


@app.command()
def shard(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A sample file (JSON Lines).")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The new folder of shards.")],
    format: Annotated[
        Literal["tar", "parquet"], typer.Option(help="webdataset's tar with an index beside it, or Parquet.")
    ] = "tar",
    megabytes: Annotated[int, typer.Option("--size", min=1, metavar="MB", help="Of a shard, about.")] = 256,
    media_root: MediaRoot = None,
) -> None:
    """Write samples and their media as shards, which train as the file does: a folder, or its address (s3://...)."""
    from weft.data.shard_writing import shard as write

    with progress_bar("writing") as progress:
        done = write(
            file,
            folder,
            format=format,
            size=megabytes * 1_000_000,
            media_root=str(media_root) if media_root else None,
            progress=progress,
        )
    samples = sum(count for _, count in done)
    out.print(f"{plural(samples, 'sample')} in {plural(len(done), 'shard')}: {folder}", style="good", soft_wrap=True)


@app.command()
def stats(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Sample files (JSON Lines), or shards.")],
    model: Annotated[
        str | None, typer.Option(help="Count tokens as this model would: folder, hub name, bundled, scratch.")
    ] = None,
    out_path: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="PICTURE", help="Also draw it: .png, .svg or .pdf.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N samples.")] = None,
    media_root: MediaRoot = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure sample files: lengths, tokens, tasks, durations, picture sizes, boxes; a table, and a picture."""
    from weft.data.stats import draw, measure

    length = None
    if model is not None:  # what counts tokens as its processor does; no weights are read
        from weft.recipes import model_spec
        from weft.training.sizes import planned

        length = planned(model_spec(model))[1].length
    total = sum(os.path.getsize(f) for f in files if os.path.isfile(f))
    with _progress("measuring", total, hide=as_json) as advance:
        found = measure(files, length=length, limit=limit, on_progress=advance, media_root=media_root)
    if as_json:
        print(json.dumps(found.as_dict(), ensure_ascii=False))
    else:
        out.print(_measures(found))
        out.print()
        if learnable := found.learnable.rows():
            out.print(facts([(name, number(count), remark) for name, count, remark in learnable]))
            out.print()
        out.print(_counts("task", {name or "none": n for name, n in found.tasks.most_common()}))
        if len(found.languages) > 1:
            out.print()
            out.print(_counts("language", dict(found.languages.most_common())))
        for note in found.notes[:NOTES]:
            err.print(Text("warning: ", style="warn").append(note), soft_wrap=True)
        if len(found.notes) > NOTES:
            err.print(f"... and {len(found.notes) - NOTES:,} more (--json lists all)", style="quiet")
    if out_path is not None:
        drawn = draw(found, out_path)
        if not as_json:
            out.print()
            out.print(Text.assemble("drawn to ", (str(drawn), "accent")))


@contextmanager
def _progress(what: str, total: int, *, hide: bool) -> Iterator[Callable[[int], None]]:
    """A bar on stderr that is advanced by bytes; lines printed to ``err`` meanwhile stand above it."""
    bar = (TextColumn(what), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn())
    with Progress(*bar, console=err, transient=True, disable=hide or not err.is_terminal) as progress:
        task, waiting = progress.add_task("", total=total), 0

        def advance(count: int) -> None:
            nonlocal waiting
            waiting += count
            if waiting > 1 << 18:  # the bar is moved a few hundred times, not once a line
                progress.advance(task, waiting)
                waiting = 0

        yield advance


def _measures(found: Stats) -> Table:
    from weft.data.stats import summarise

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="quiet")
    table.add_column("")
    for name in ("count", "min", "5 %", "median", "mean", "95 %", "max", "total"):
        table.add_column(name, justify="right", style="head" if name == "median" else None)
    table.add_row("samples", f"{found.samples:,}")
    for name, values in found.rows():
        s = summarise(values)
        adds_up = not name.startswith("picture")
        cells = [number(s[k]) for k in ("min", "p05", "median", "mean", "p95", "max")]
        total = duration(s["total"]) if name.startswith("seconds") else number(int(s["total"]))
        table.add_row(name, f"{len(values):,}", *cells, total if adds_up else "")
    return table


def _counts(what: str, counts: dict[str, int]) -> Table:
    """Named counts with a bar each."""
    from weft.data.stats import share

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="quiet")
    table.add_column(what)
    table.add_column("count", justify="right")
    table.add_column("share", justify="right")
    table.add_column("", style="accent")
    total, largest = sum(counts.values()), max(counts.values(), default=1)
    for name, n in counts.items():
        table.add_row(Text(name), f"{n:,}", share(n, total), "━" * max(1, round(30 * n / largest)))
    return table


def _mistake_line(mistake: SampleError) -> Text:
    where = ":".join(str(x) for x in (mistake.file, mistake.line) if x is not None)
    line = Text.assemble((where, "accent"), ": ", (mistake.field or "", "head"), ": " if mistake.field else "")
    return line.append(mistake.problem.encode("utf-8", "backslashreplace").decode())


def _summary(s: Summary) -> Table:
    """What was found, as a table of three columns."""

    def share(counts: Counter[str], empty: str) -> str:
        shown = [f"{name or empty} {count:,}" for name, count in counts.most_common(8)]
        return ", ".join(shown) + (f" and {len(counts) - 8} more" if len(counts) > 8 else "")

    rows = [
        ("samples", number(s.samples), ", ".join(s.files[:3]) + (" ..." if len(s.files) > 3 else "")),
        ("messages", number(s.messages), f"{plural(sum(s.turns), 'answer')} among them"),
        ("questions", number(sum(s.tasks.values())), share(s.tasks, "without a task")),
    ]
    if s.images:
        rows.append(("images", number(s.images), plural(s.image_files, "different file")))
    if s.clips:
        rows.append(("clips", number(s.clips), plural(s.clip_files, "different file")))
    if s.boxes:
        rows.append(("box answers", number(len(s.boxes)), f"with {plural(sum(s.boxes), 'box', 'boxes')}"))
    if s.words:
        rows.append(("word answers", number(len(s.words)), f"with {plural(sum(s.words), 'word')} and their times"))
    if s.languages:
        rows.append(("languages", number(len(s.languages)), share(s.languages, "")))
    rows.append(("size", size(s.bytes), f"and {size(s.media_bytes)} of media"))
    rows += [(name, number(count), remark) for name, count, remark in s.learnable.rows()]
    if s.repeated_ids:
        rows.append(("repeated ids", number(s.repeated_ids), "allowed, but answers are harder to tell apart"))
    return facts(rows)
