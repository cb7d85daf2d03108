"""The report as a file and as a table."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from weft.evaluation.metrics import METRICS


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Writes ``report.json`` whole or not at all."""
    write_text(path, json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file aside and renames it, so that a reader never sees half of it."""
    descriptor, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def shown(name: str, value: float | None) -> str:
    """A figure as people read it: rates in per cent, times in milliseconds."""
    if value is None:
        return "–"
    unit = METRICS[name].unit
    return f"{100 * value:.1f} %" if unit == "rate" else f"{value:.0f} ms" if unit == "ms" else f"{value:.2f}"


def beats(name: str, value: float | None, baseline: float | None) -> bool | None:
    """Whether a figure is better than the constant answer's; None where one of them is missing."""
    if value is None or baseline is None:
        return None
    return value < baseline if METRICS[name].better == "lower" else value > baseline


def table(report: dict[str, Any]) -> Table:
    """Every metric beside what the best constant answer gets."""
    made = Table(title=None, header_style="bold", pad_edge=False)
    made.add_column("task")
    made.add_column("metric")
    made.add_column("model", justify="right")
    made.add_column("best constant", justify="right", style="dim")
    made.add_column("samples", justify="right")
    counts = report["signature"]["counts"]
    for task, metrics in report["metrics"].items():
        for i, (name, value) in enumerate(metrics.items()):
            baseline = report["baseline"].get(task, {}).get(name)
            better = beats(name, value, baseline)
            style = {True: "green", False: "red", None: ""}[better]
            arrow = "↓" if METRICS[name].better == "lower" else "↑"
            made.add_row(
                "" if i else task,
                f"{name} {arrow}",
                Text(shown(name, value), style),
                shown(name, baseline),
                str(counts[task][name]),
                end_section=i == len(metrics) - 1,
            )
    return made


def notes(report: dict[str, Any]) -> list[str]:
    """What a reader of the table must know besides: samples not asked, answers cut."""
    signature = report["signature"]
    found = []
    if signature["not_asked"]:
        found.append(
            f"{signature['not_asked']} of {signature['samples']} samples could not be asked and are in no figure."
        )
    if signature["unfinished"]:
        found.append(f"{signature['unfinished']} answers were cut at the token limit and scored as they are.")
    return found
