"""The one report: as data, as a file, as a table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from rich.table import Table
from rich.text import Text

from weft.conversation import Text as TextPart
from weft.conversation import Words
from weft.conversation.writing import dump_parts
from weft.evaluation.constants import baseline
from weft.evaluation.metrics import METRICS, Figures, Metric
from weft.evaluation.pairs import Pair, answer_boxes
from weft.evaluation.right import is_right, rule
from weft.evaluation.scorers import bleu_signature
from weft.evaluation.text import NORMALISERS
from weft.generation import Reply
from weft.version import VERSION

UNANSWERED = {"text": None, "raw": None, "tokens": 0, "finished": False, "windows": 0}
UNITS = {"rate": "{:.1f} %", "percent": "{:.1f} %", "ms": "{:.0f} ms", "s": "{:.3f} s", "per_minute": "{:.1f} / min"}
UNITS["score"] = "{:.2f}"
PACKAGES = ("jiwer", "sacrebleu", "whisper-normalizer", "regex")


@dataclass(frozen=True)
class Sample:
    """``reply`` is None where a sample could not be asked, and ``error`` says why."""

    id: str
    pair: Pair
    reply: Reply | None
    error: str | None = None


def make_report(
    samples: Sequence[Sample], figures: Figures, scorer: str, name: str = "", figure: Metric | None = None
) -> dict[str, Any]:
    """JSON-ready: metrics, baseline, samples, signature and notes.

    ``figures``: of the samples that have a reply, in their order. ``name``: what all samples are reported as, in place
    of their tasks. ``figure``: the published one, which decides what is right.
    """
    tasks: dict[str, list[Pair]] = {}
    scores = iter(figures.samples)
    listed = []
    for sample in samples:
        pair, reply = sample.pair, sample.reply
        one = next(scores) if reply else {}
        tasks.setdefault(name or pair.task, []).append(pair)
        listed.append(
            {
                "id": sample.id,
                "task": name or pair.task,
                "expected": dump_parts(_expected(pair)),
                "answer": dump_parts(reply.parts) if reply else None,
                **{key: getattr(reply, key, none) for key, none in UNANSWERED.items()},
                "scores": one,
                "right": is_right(pair, figure, one) if reply else None,
                "problems": problems(pair, reply) if reply else [],
                "error": sample.error,
            }
        )
    values, answers = baseline(figures)
    signature = {
        "right": {task: rule(pairs, figure) for task, pairs in sorted(tasks.items())},
        "constants": answers,
        "counts": figures.counts,
        "samples": len(samples),
        "not_asked": sum(sample.error is not None for sample in samples),
        "unfinished": sum(sample.reply is not None and not sample.reply.finished for sample in samples),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return {
        "metrics": figures.metrics,
        "baseline": values,
        "samples": listed,
        "notes": list(figures.notes),
        "signature": scored_by(scorer, figures) | signature,
    }


def scored_by(scorer: str, figures: Figures) -> dict[str, Any]:
    """What figures mean, and what made them."""
    used = {metric.name: metric for _, metric, _ in figures.scored}
    languages = {
        metric.name: sorted({pair.language or "not given" for pair in pairs}) for _, metric, pairs in figures.scored
    }
    return {
        "scorer": scorer,
        "weft": VERSION,
        "packages": versions(PACKAGES),
        "normaliser": NORMALISERS,
        "languages": sorted(set().union(*languages.values())),
        "sacrebleu": {code: bleu_signature(code) for code in languages.get("bleu", ())},
        "metrics": {name: metric.meaning for name, metric in used.items()},
    }


def _expected(pair: Pair) -> tuple[Any, ...]:
    """The expected answer for people: all right ones where there are several."""
    several = tuple(dict.fromkeys(pair.references))
    return (TextPart(" / ".join(several)),) if len(several) > 1 or not pair.expected and several else pair.expected


def problems(pair: Pair, reply: Reply) -> list[str]:
    """What is malformed about an answer, in words; it has been scored as it is."""
    found = []
    if not reply.finished:
        found.append(f"cut after {reply.tokens} tokens without an end")
    if answer_boxes(pair.expected) and not answer_boxes(pair.given):
        found.append("no box in the answer")
    if any(isinstance(p, Words) for p in pair.expected) and not any(isinstance(p, Words) for p in pair.given):
        found.append("no word times in the answer")
    return [*found, *(f"neither box nor time: {fragment}" for fragment in reply.malformed)]


def versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def described(name: str) -> Metric:
    """How a figure is read; ``qwen_audio_bleu_de`` is a ``qwen_audio_bleu``."""
    return METRICS.get(name) or METRICS[name.rpartition("_")[0]]


def shown(name: str, value: float | None) -> str:
    """A figure as people read it: rates in per cent, times in milliseconds or seconds."""
    if value is None:
        return "–"
    unit = described(name).unit
    return UNITS[unit].format(100 * value if unit == "rate" else value)


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


def reported(report: dict[str, Any]) -> str:
    """The published figure of a benchmark's report in one line; empty where there is none."""
    benchmark = report["signature"].get("benchmark") or {}
    figures = benchmark.get("published") or {}
    listed = ", ".join(f"{split} {shown(benchmark['figure'], value)}" for split, value in figures.items())
    return f"published {benchmark['figure']}, 7B: {listed}" if listed else ""
