"""``weft data``: check, measure and convert sample files."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from weft.cli.terminal import duration, err, facts, number, out, plural, size
from weft.conversation import SampleError

app = typer.Typer(help="Check, measure and convert sample files.", rich_markup_mode="rich")


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Sample files (JSON Lines).")],
    deep: Annotated[bool, typer.Option("--deep", help="Also decode every picture and recording.")] = False,
    max_errors: Annotated[int, typer.Option(min=0, metavar="N", help="List this many mistakes; 0 lists all.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary and mistakes as JSON.")] = False,
) -> None:
    """Check sample files: every mistake with file, line and field, and a summary. Status 2 where there are mistakes."""
    from weft.data.validate import validate as check

    listed: list[SampleError] = []

    def on_mistake(mistake: SampleError) -> None:
        if max_errors and len(listed) >= max_errors:
            return
        listed.append(mistake)
        if not as_json:
            progress.console.print(_mistake_line(mistake), soft_wrap=True, style=None)

    started = time.perf_counter()
    total = sum(os.path.getsize(f) for f in files if f.is_file())
    bar = (TextColumn("checking"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn())
    with Progress(*bar, console=err, transient=True, disable=as_json or not err.is_terminal) as progress:
        task = progress.add_task("", total=total)
        waiting = 0

        def on_progress(count: int) -> None:
            nonlocal waiting
            waiting += count
            if waiting > 1 << 20:
                progress.advance(task, waiting)
                waiting = 0

        summary = check(files, deep=deep, on_mistake=on_mistake, on_progress=on_progress)
    seconds = time.perf_counter() - started
    if as_json:
        mistakes = [{"file": m.file, "line": m.line, "field": m.field, "problem": m.problem} for m in listed]
        print(json.dumps({"ok": not summary.mistakes, **summary.as_dict(), "errors": mistakes}, ensure_ascii=False))
        raise typer.Exit(2 if summary.mistakes else 0)
    if summary.mistakes > len(listed):
        err.print(f"... and {summary.mistakes - len(listed):,} more (--max-errors 0 lists all)", style="quiet")
    if summary.samples:
        out.print(_summary(summary))
    how = "every media file decoded" if deep else "media files found, not decoded (--deep does)"
    if summary.mistakes:
        found = plural(summary.mistakes, "mistake")
        err.print(f"{found}; {plural(summary.samples, 'sample')} without one.", style="bad")
        raise typer.Exit(2)
    out.print(f"No mistakes: {plural(summary.samples, 'sample')} in {duration(seconds)}, {how}.", style="good")


def _mistake_line(mistake: SampleError):  # type: ignore[no-untyped-def]
    from rich.text import Text

    where = ":".join(str(x) for x in (mistake.file, mistake.line) if x is not None)
    line = Text.assemble((where, "accent"), ": ", (mistake.field or "", "head"), ": " if mistake.field else "")
    return line.append(mistake.problem.encode("utf-8", "backslashreplace").decode())


def _summary(s):  # type: ignore[no-untyped-def]
    """The summary as a table of three columns."""

    def share(counts: dict[str, int], empty: str) -> str:
        shown = [f"{name or empty} {count:,}" for name, count in list(counts.items())[:8]]
        return ", ".join(shown) + (f" and {len(counts) - 8} more" if len(counts) > 8 else "")

    rows = [
        ("samples", number(s.samples), ", ".join(s.files[:3]) + (" ..." if len(s.files) > 3 else "")),
        ("messages", number(s.messages), f"{plural(s.turns, 'answer')} among them"),
        ("questions", number(sum(s.tasks.values())), share(s.tasks, "without a task")),
    ]
    if s.images:
        rows.append(("images", number(s.images), plural(s.image_files, "different file")))
    if s.clips:
        rows.append(("clips", number(s.clips), plural(s.clip_files, "different file")))
    if s.box_answers:
        rows.append(("box answers", number(s.box_answers), f"with {plural(s.boxes, 'box', 'boxes')}"))
    if s.word_answers:
        rows.append(("word answers", number(s.word_answers), f"with {plural(s.words, 'word')} and their times"))
    if s.languages:
        rows.append(("languages", number(len(s.languages)), share(s.languages, "")))
    rows.append(("size", size(s.bytes), f"and {size(s.media_bytes)} of media"))
    if s.without_answer:
        rows.append(("without answer", number(s.without_answer), "requests, which training has no use for"))
    if s.repeated_ids:
        rows.append(("repeated ids", number(s.repeated_ids), "allowed, but answers are harder to tell apart"))
    return facts(rows)
