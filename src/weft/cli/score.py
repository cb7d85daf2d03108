"""`weft score`: any model's answers by the metrics of the published evaluations."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Literal

import typer


def score(
    metric: Annotated[str, typer.Argument(help="vqa, refcoco, wer, srwt, bleu, cider, accuracy, ...; list shows all.")],
    predictions: Annotated[
        Path | None, typer.Option(help='JSON Lines of {"id", "prediction"}.', show_default=False)
    ] = None,
    references: Annotated[
        Path | None, typer.Option(help='JSON Lines of {"id", ...}; list shows the fields.', show_default=False)
    ] = None,
    field: Annotated[
        str, typer.Option(help="The key of the answer, such as raw or text of weft generate.")
    ] = "prediction",
    language: Annotated[
        str | None, typer.Option(help="Language of all references that name none, as zh.", show_default=False)
    ] = None,
    synonyms: Annotated[
        Path | None, typer.Option(help="chair: a list of objects and their synonyms.", show_default=False)
    ] = None,
    missing: Annotated[
        Literal["fail", "wrong"], typer.Option(help="A reference without a prediction: an error, or an empty answer.")
    ] = "fail",
    json: Annotated[bool, typer.Option("--json", help="The whole report as JSON, samples and signature too.")] = False,
) -> None:
    """Score any model's answers: the released scripts' figures under their own names, beside the sound ones.

    `weft score list` shows the metrics and what a line of references holds.
    """
    from weft.cli.terminal import err
    from weft.conversation import WeftError

    if metric == "list":
        return show_metrics(json)
    from weft.evaluation.families import get_family, score_files

    get_family(metric)
    if predictions is None or references is None:
        raise WeftError(f"give both --predictions and --references: weft score {metric} compares two files")
    report = score_files(
        metric, predictions, references, field=field, missing=missing, language=language, synonyms=synonyms
    )
    if json:
        typer.echo(json_module.dumps(report, ensure_ascii=False, indent=1, allow_nan=False))
        return
    show_report(metric, report)
    for note in report["notes"]:
        err.print(note, style="warn", soft_wrap=True)


def show_report(metric: str, report: dict) -> None:
    from weft.cli.terminal import err, facts, out, plural

    says = report["signature"]["figures"]
    figures = report["metrics"][metric].items()
    out.print(facts((name, "–" if value is None else f"{value:.6g}", says[name]) for name, value in figures))
    versions = {"weft": report["signature"]["weft"], **report["signature"]["packages"]}
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    err.print(f"{plural(report['signature']['samples'], 'sample')}; {made}", style="quiet", soft_wrap=True)


def show_metrics(json: bool = False) -> None:
    from weft.cli.terminal import facts, out
    from weft.evaluation.families import FAMILIES

    if json:
        rows = [{"metric": name, "about": f.about, "references": f.references} for name, f in FAMILIES.items()]
        typer.echo(json_module.dumps(rows, ensure_ascii=False, indent=1))
        return
    out.print(facts((name, f.about, f"references: {f.references}") for name, f in FAMILIES.items()))
