"""The report as a file and as a table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from weft.evaluation.metrics import METRICS
from weft.files import whole_file


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Writes ``report.json`` whole or not at all."""
    with whole_file(path) as file:
        file.write(json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


@dataclass(frozen=True)
class Described:
    """How a figure is read. ``unit``: rate (0..1), percent (0..100), ms, s, per_minute or score."""

    title: str
    better: str
    unit: str


def described(name: str) -> Described:
    """A figure of `weft evaluate`'s metrics, or one of a released script (`evaluation.published`) by its name."""
    if name in METRICS:
        return Described(METRICS[name].title, METRICS[name].better, METRICS[name].unit)
    lower = any(part in name for part in ("wer", "_aas_", "chair_", "without_times"))
    unit = "rate"
    if name.startswith(("minigpt_v2_", "qwen_audio_bleu")):
        unit = "percent"
    elif name.endswith("_seconds"):
        unit = "s"
    elif name.startswith(("cider", "length_")):
        unit = "score"
    return Described(name.replace("_", " "), "lower" if lower else "higher", unit)


def shown(name: str, value: float | None) -> str:
    """A figure as people read it: rates in per cent, times in milliseconds or seconds."""
    if value is None:
        return "–"
    match described(name).unit:
        case "rate":
            return f"{100 * value:.1f} %"
        case "percent":
            return f"{value:.1f} %"
        case "ms":
            return f"{value:.0f} ms"
        case "per_minute":
            return f"{value:.1f} / min"
        case "s":
            return f"{value:.3f} s"
    return f"{value:.2f}"


def beats(name: str, value: float | None, baseline: float | None) -> bool | None:
    """Whether a figure is better than the constant answer's; None where one is missing, and where both are perfect."""
    if value is None or baseline is None or value == baseline == 0 and described(name).better == "lower":
        return None
    return value < baseline if described(name).better == "lower" else value > baseline


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
            arrow = "↓" if described(name).better == "lower" else "↑"
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
    found = list(report.get("notes", ()))
    if signature["not_asked"]:
        found.append(
            f"{signature['not_asked']} of {signature['samples']} samples could not be asked and are in no figure."
        )
    if cut := signature["unfinished"]:
        were = "1 answer was" if cut == 1 else f"{cut} answers were"
        found.append(f"{were} cut at the token limit and scored as written.")
    return found


def published(report: dict[str, Any]) -> str:
    """The published figure of a benchmark's report in one line; empty where there is none."""
    benchmark = report["signature"].get("benchmark") or {}
    figures = benchmark.get("published") or {}
    listed = ", ".join(f"{split} {shown(benchmark['figure'], value)}" for split, value in figures.items())
    return f"published {benchmark['figure']}, 7B: {listed}" if listed else ""
