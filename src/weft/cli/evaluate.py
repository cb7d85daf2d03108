"""`weft evaluate`: scores a model on samples; a table, JSON and a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weft.cli import asking


def evaluate(
    model: asking.ModelName,
    data: Annotated[Path, typer.Option(help="JSON Lines of samples, each ending with the expected answer.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for report.json and index.html.")] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="Only these: wer,exact,... Repeatable.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first samples only.")] = None,
    batch_size: asking.BatchSize = 16,
    on_bad_sample: asking.OnBadSample = "fail",
    max_new_tokens: asking.MaxNewTokens = 256,
    beams: asking.Beams = 1,
    dtype: asking.Dtype = None,
    device: asking.Device = None,
) -> None:
    """Score a model on samples, each figure beside what the best constant answer gets.

    Answers are made greedily (or by beams). Only the last answer of a conversation is asked for and scored.
    """
    from weft.cli.terminal import err
    from weft.cli.terminal import out as screen
    from weft.evaluation.metrics import chosen
    from weft.evaluation.report import notes, table
    from weft.evaluation.run import evaluate as run
    from weft.generation import Options

    names = [name.strip() for group in metrics or () for name in group.split(",") if name.strip()] or None
    chosen(names)
    policy = asking.bad_samples(on_bad_sample)
    options = Options(max_new_tokens=max_new_tokens, num_beams=beams)
    answerer = asking.open_model(model, dtype, device)
    with asking.progress_bar("answering") as progress:
        report = run(
            answerer,
            data,
            out,
            name=model,
            metrics=names,
            limit=limit,
            options=options,
            batch_size=batch_size,
            on_bad_sample=policy,
            progress=progress,
        )
    screen.print(table(report))
    for note in notes(report):
        err.print(note, style="warn", soft_wrap=True)
    if out is not None:
        err.print(f"report: {out / 'index.html'}", style="quiet", soft_wrap=True)
