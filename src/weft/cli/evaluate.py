"""`weft evaluate`: scores a model on samples; a table, JSON and a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from weft.cli import asking


def _list(wanted: bool) -> None:
    """The benchmarks by name: what they are, what a line of --data holds, what scores them."""
    if not wanted:
        return
    from rich.table import Table

    from weft.cli.terminal import err, out
    from weft.evaluation.benchmarks import BENCHMARKS
    from weft.evaluation.report import shown

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="head")
    for name in ("name", "benchmark", "a line of --data holds", "published"):
        table.add_column(name, overflow="fold", style="accent" if name == "name" else "", no_wrap=name == "name")
    for b in BENCHMARKS.values():
        fields = b.family.references.removesuffix(", language")  # the benchmark knows its own
        holds = [b.media, *b.fields, *(["choices"] if b.choices else []), fields]
        published = ", ".join(
            f"{split} {shown(b.figure, value)}".replace(" ", "\u00a0") for split, value in b.published.items()
        )
        table.add_row(b.name, b.title, ", ".join(holds), published or "–")
    out.print(table)
    err.print(
        "Figures are those of the system's own 7B model, as papers and their copies have them. Samples of `weft data "
        "convert` are read too.",
        style="quiet",
        soft_wrap=True,
    )
    raise typer.Exit


def evaluate(
    model: asking.ModelName,
    data: Annotated[str, typer.Option(help="JSON Lines of samples, or shards, each ending with the expected answer.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for report.json and index.html.")] = None,
    benchmark: Annotated[
        str, typer.Option(help="A published benchmark: its prompt, limits and metric.", show_default=False)
    ] = "",
    list_benchmarks: Annotated[
        bool, typer.Option("--list-benchmarks", callback=_list, is_eager=True, help="Show them and exit.")
    ] = False,
    synonyms: Annotated[
        Path | None, typer.Option(help="chair: a list of objects and their synonyms.", show_default=False)
    ] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="Only these: wer,exact,... Repeatable.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first samples only.")] = None,
    batch_size: asking.BatchSize = 16,
    nproc: asking.Processes = 1,
    ray: asking.Ray = False,
    on_bad_sample: asking.OnBadSample = "fail",
    media_root: asking.MediaRoot = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Longest answer, in tokens; default 256, or the benchmark's.", show_default=False)
    ] = None,
    beams: asking.Beams = 1,
    dtype: asking.Dtype = None,
    device: asking.Device = None,
    switch: asking.Switch = None,
) -> None:
    """Score a model on samples, each figure beside what the best constant answer gets.

    With -o, answers are kept as they are made, so after any kind of end the same command goes on where it stopped.
    Answers are made greedily (or by beams). Only the last answer of a conversation is asked for and scored. With
    --benchmark the released script's figures stand under their own names, beside the sound ones.
    """
    from weft.cli.terminal import err
    from weft.cli.terminal import out as screen
    from weft.conversation import WeftError
    from weft.evaluation.benchmark_data import read_benchmark
    from weft.evaluation.benchmarking import evaluate_benchmark
    from weft.evaluation.benchmarks import get_benchmark
    from weft.evaluation.kept import kept
    from weft.evaluation.metrics import chosen
    from weft.evaluation.report import notes, reported, table
    from weft.evaluation.run import evaluate as run
    from weft.generation import Options

    names = [name.strip() for group in metrics or () for name in group.split(",") if name.strip()] or None
    chosen(names)
    limits = {"max_new_tokens": max_new_tokens} if max_new_tokens is not None else {}
    decoding: dict[str, Any] = {}
    if benchmark:
        if names:
            raise WeftError(f"--metrics and --benchmark exclude each other: {benchmark} has its own metrics")
        decoding = get_benchmark(benchmark).options()
        # What is wrong with it is said before a model is loaded.
        read_benchmark(get_benchmark(benchmark), data, limit, media_root)
    elif synonyms is not None:
        raise WeftError("--synonyms is for --benchmark chair")
    options = Options(**decoding | limits | ({"num_beams": beams} if beams > 1 else {}))
    with (
        asking.ranks(nproc) as ranks,
        asking.open_models(model, dtype, device or ranks.device, switch, nproc, ray) as loaded,
        asking.progress_bar("answering") as progress,
        kept(loaded, out, on_bad_sample, ranks, progress) as answerer,
    ):
        shared: dict[str, Any] = {
            "name": model,
            "limit": limit,
            "options": options,
            "batch_size": batch_size,
            "on_bad_sample": on_bad_sample,
            "media_root": media_root,
            "progress": progress if out is None else None,  # else who keeps the answers tells
        }
        place = out if ranks.rank == 0 else None
        if benchmark:
            report = evaluate_benchmark(answerer, benchmark, data, place, synonyms=synonyms, **shared)
        else:
            report = run(answerer, data, place, metrics=names, **shared)
    if ranks.rank:
        return
    screen.print(table(report))
    if line := reported(report):
        err.print(line, style="quiet", soft_wrap=True)
    for note in notes(report):
        err.print(note, style="warn", soft_wrap=True)
    if out is not None:
        err.print(f"report: {out / 'index.html'}", style="quiet", soft_wrap=True)
