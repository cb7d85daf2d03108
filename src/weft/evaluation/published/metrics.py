"""The metrics of ``weft score`` by name, and the report of one run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from weft.conversation import WeftError
from weft.evaluation.published import boxes, captions, choices, hallucination, notes, speech, translation, vqa
from weft.evaluation.published.rows import Row, Scores, read_rows


@dataclass(frozen=True)
class PublishedMetric:
    """``fields``: what a reference line holds besides its id. ``options``: what ``score`` takes besides the rows."""

    help: str
    fields: str
    score: Callable[..., Scores]
    options: tuple[str, ...] = ()


METRICS: dict[str, PublishedMetric] = {
    "vqa": PublishedMetric("VQA soft accuracy (OK-VQA, VQAv2)", "answers", vqa.score),
    "vizwiz": PublishedMetric("VizWiz", "answers", vqa.score_vizwiz),
    "gqa": PublishedMetric("GQA", "answer", choices.scorer("gqa")),
    "vsr": PublishedMetric("visual spatial reasoning", "answer (true or false)", choices.scorer("vsr")),
    "hm": PublishedMetric("hateful memes", "answer (yes, no, 0 or 1)", choices.scorer("hm")),
    "iconqa": PublishedMetric("IconQA, the choice as text", "answer", choices.scorer("iconqa")),
    "refcoco": PublishedMetric("RefCOCO, RefCOCO+, RefCOCOg", "bbox_xywh, width, height", boxes.score),
    "chair": PublishedMetric(
        "hallucinated objects in captions", "objects, captions (optional)", hallucination.score, ("synonyms",)
    ),
    "wer": PublishedMetric(
        "word error rate", "text, language; seconds of silent clips", speech.score_wer, ("language",)
    ),
    "srwt": PublishedMetric(
        "word times and word error rate", "text with times, language", speech.score_srwt, ("language",)
    ),
    "bleu": PublishedMetric("translation", "text, language; seconds of silent clips", translation.score, ("language",)),
    "cider": PublishedMetric("captions", "answers, or captions", captions.score, ("language",)),
    "accuracy": PublishedMetric("equal strings (Qwen-Audio's sets)", "answer", choices.accuracy),
    "nsynth": PublishedMetric("musical notes: mAP, pitch, instrument", "text", notes.score),
}


def published_metric(name: str) -> PublishedMetric:
    if name not in METRICS:
        raise WeftError(f"there is no metric {name!r}; choose among {', '.join(METRICS)}")
    return METRICS[name]


def score_rows(name: str, rows: Sequence[Row], **options: Any) -> Scores:
    """Scores rows in memory. An option that the metric does not take is an error where it has a value."""
    metric = published_metric(name)
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in metric.options:
            takers = ", ".join(n for n, m in METRICS.items() if key in m.options)
            raise WeftError(f"the metric {name} takes no {key}" + (f"; {takers} do" if takers else ""))
    return metric.score(rows, **given)


def score_files(
    name: str,
    predictions: str | os.PathLike[str],
    references: str | os.PathLike[str],
    *,
    field: str = "prediction",
    missing: Literal["fail", "wrong"] = "fail",
    **options: Any,
) -> dict[str, Any]:
    """The report of one metric on two files, JSON-ready: ``{"metrics": {name: figures}, "samples", "signature"}``.

    The shape of ``weft evaluate``'s report; `rows` says what files hold and what is wrong with them.
    """
    published_metric(name)
    rows, absent = read_rows(predictions, references, field=field, missing=missing)
    scores = score_rows(name, rows, **options)
    remarks = list(scores.notes)
    if absent:
        remarks.append(f"{absent} of {len(rows)} references have no prediction and were scored as an empty answer")
    return {
        "metrics": {name: scores.figures},
        "samples": [{"id": row.id, "scores": one} for row, one in zip(rows, scores.each, strict=True)],
        "notes": remarks,
        "signature": {
            "scorer": name,
            "weft": _version("weft"),
            "packages": {package: _version(package) for package in scores.packages},
            "figures": {figure: scores.says[figure] for figure in scores.figures},
            **scores.settings,
            "samples": len(rows),
            "without_prediction": absent,
            "field": field,
            "predictions": os.fspath(predictions),
            "predictions_sha256": _digest(predictions),
            "references": os.fspath(references),
            "references_sha256": _digest(references),
        },
    }


def _digest(path: str | os.PathLike[str]) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
