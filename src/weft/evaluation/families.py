"""What `weft score` names: any model's answers by the figures of one released script and the sound ones beside them.

A family (``families.toml``) reads a line of references and an answer as a pair; what scores pairs is `metrics`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from weft.conversation import WeftError
from weft.evaluation.metrics import METRICS, Figures, Metric, measure
from weft.evaluation.pairs import Pair
from weft.evaluation.published import boxes, captions, choices, hallucination, music, speech, translation, vqa
from weft.evaluation.published.rows import Row, read_rows
from weft.evaluation.report import scored_by
from weft.named import beside

READERS: dict[str, Callable[..., Pair]] = {
    "vqa": vqa.read_row,
    "vizwiz": vqa.read_row,
    "hm": choices.read_hateful,
    "refcoco": boxes.read_row,
    "chair": hallucination.read_row,
    "wer": speech.read_row,
    "srwt": speech.read_timed_row,
    "bleu": translation.read_row,
    "cider": captions.read_row,
    "nsynth": music.read_row,
}


@dataclass(frozen=True)
class Family:
    """``references``: what a line of them holds, for people. ``options``: what its reader takes besides a line."""

    name: str
    about: str
    references: str
    task: str
    figures: tuple[str, ...]
    options: tuple[str, ...] = ()
    answer: str = "answer"
    annotators: int = 1
    notation: bool = False
    timed: bool = False

    def pairs(self, rows: Sequence[Row], **options: Any) -> list[Pair]:
        """An option that the family does not take is an error where it has a value."""
        given = {key: value for key, value in options.items() if value is not None}
        for key in given:
            if key not in self.options:
                takers = ", ".join(name for name, family in FAMILIES.items() if key in family.options)
                raise WeftError(f"the metric {self.name} takes no {key}" + (f"; {takers} do" if takers else ""))
        return [READERS.get(self.name, choices.read_row)(row, self.task, **given) for row in rows]

    def settings(self, synonyms: str | os.PathLike[str] | None = None, **_: Any) -> dict[str, str]:
        """What a signature says of the options."""
        if "synonyms" not in self.options:
            return {}
        return {"synonyms": "weft's own list" if synonyms is None else os.path.basename(synonyms)}

    def measure(self, pairs: Sequence[Pair], name: str = "") -> Figures:
        """All figures, as those of ``name``; Qwen-Audio's BLEU is one a language."""
        metrics: list[Metric] = []
        for figure in self.figures:
            metrics += _by_language(METRICS[figure], pairs) if METRICS[figure].by_language else [METRICS[figure]]
        return measure(pairs, metrics, name or self.name)


def _by_language(metric: Metric, pairs: Sequence[Pair]) -> list[Metric]:
    codes = sorted({pair.language or "" for pair in pairs})
    if len(codes) < 2:
        return [metric]

    def only(code: str) -> Metric:
        computed = replace(metric.computed, applies=lambda pair: (pair.language or "") == code)
        return replace(metric, name=f"{metric.name}_{code or 'unnamed'}", computed=computed)

    return [only(code) for code in codes]


_TABLE = beside(__file__)
FAMILIES = {name: Family(name, **row) for name, row in _TABLE.items()}


def get_family(name: str) -> Family:
    if name not in FAMILIES:
        raise WeftError(f"there is no metric {name!r}; choose among {', '.join(FAMILIES)}")
    return FAMILIES[name]


def score_files(
    name: str,
    predictions: str | os.PathLike[str],
    references: str | os.PathLike[str],
    *,
    field: str = "prediction",
    missing: Literal["fail", "wrong"] = "fail",
    **options: Any,
) -> dict[str, Any]:
    """The report of one family on two files, JSON-ready: ``{"metrics": {name: figures}, "samples", "signature"}``.

    The shape of ``weft evaluate``'s report; `rows` says what files hold and what is wrong with them.
    """
    family = get_family(name)
    rows, absent = read_rows(predictions, references, field=field, missing=missing)
    pairs = family.pairs(rows, **options)
    figures = family.measure(pairs)
    remarks = list(figures.notes)
    if absent:
        remarks.append(f"{absent} of {len(rows)} references have no prediction and were scored as an empty answer")
    signature = scored_by(name, figures)
    signature["figures"] = signature.pop("metrics")
    signature |= family.settings(**options)
    return {
        "metrics": figures.metrics,
        "samples": [{"id": row.id, "scores": one} for row, one in zip(rows, figures.samples, strict=True)],
        "notes": remarks,
        "signature": {
            **signature,
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
