"""A model on a published benchmark: asked in its words, within its limits, scored by its metric and by sound ones."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from weft.conversation import Conversation, Message, Text, WeftError
from weft.conversation.writing import dump_parts
from weft.dialects import DialectError
from weft.evaluation.benchmark_data import NOTATION, Question, read_benchmark, shown_answer, written_answer
from weft.evaluation.benchmarks import Benchmark, get_benchmark
from weft.evaluation.metrics import HALLUCINATED
from weft.evaluation.page import write_page
from weft.evaluation.published.metrics import score_rows
from weft.evaluation.published.rows import Row, Scores
from weft.evaluation.report import described, write_json
from weft.evaluation.right import GRADED
from weft.evaluation.run import Answers, Progress, answered, ask, made_with, versions
from weft.generation import Options, Reply

CONSTANTS = 12  # constant answers that are tried for the baseline


class Chooses(Answers, Protocol):
    """What a benchmark that chooses among given answers needs besides."""

    processor: Any

    def score(self, messages: Any) -> float: ...


def evaluate_benchmark(
    model: Any,
    benchmark: str,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    name: str = "",
    limit: int | None = None,
    options: Options | None = None,
    batch_size: int = 16,
    on_bad_sample: Literal["fail", "skip"] = "fail",
    synonyms: Path | None = None,
    media_root: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Scores a model on a benchmark's file and gives the report, in the shape of `weft.evaluation.evaluate`'s.

    ``options``: decoding other than the published one; the signature says so. ``data``: see `benchmark_data`.
    """
    start = time.monotonic()
    entry = get_benchmark(benchmark)
    options = options or Options(**entry.options())
    questions = read_benchmark(entry, data, limit, media_root)
    prompts = [question.conversation for question in questions]
    settings = {"synonyms": synonyms} if synonyms is not None else {}
    if entry.choices:
        chosen = list(_choose(model, questions, progress))
        replies: list[Reply | None] = [_said(sound) for _, sound in chosen]
        errors: list[str | None] = [None] * len(questions)
        rows = [Row(q.id, original, q.reference) for q, (original, _) in zip(questions, chosen, strict=True)]
        scores = score_rows(entry.metric, rows)
        summed = [Row(q.id, sound, q.reference) for q, (_, sound) in zip(questions, chosen, strict=True)]
        _take(scores, score_rows(entry.metric, summed), "exact")
    else:
        replies, errors = ask(
            model, prompts, options, batch_size=batch_size, on_bad_sample=on_bad_sample, progress=progress
        )
        rows = [
            Row(q.id, prediction(entry, model, q.conversation, reply), q.reference)
            for q, reply in zip(questions, replies, strict=True)
            if reply is not None
        ]
        if not rows:
            raise WeftError(f"none of the {len(questions)} questions could be asked; the first: {errors[0]}")
        scores = score_rows(entry.metric, rows, **settings)
    report = _report(entry, questions, replies, errors, rows, scores, settings)
    report["signature"] |= made_with(model, data, name, options, batch_size, limit)
    report["signature"]["seconds"] = round(time.monotonic() - start, 3)
    remarks = report["notes"]
    if options != Options(**entry.options()):
        remarks.append("The decoding is not the published one; see decoding in the signature.")
    spoken = report["signature"]["dialect"]["name"]
    if spoken and spoken != entry.system:
        remarks.append(f"Asked in the dialect {spoken}; the published figure was made with {entry.system}'s prompt.")
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "report.json", report)
        write_page(folder / "index.html", report, prompts)
    return report


def prediction(benchmark: Benchmark, model: Any, conversation: Conversation, reply: Reply) -> str:
    """An answer as the released script gets it: the system's own text, whatever dialect the model speaks."""
    dialect = getattr(getattr(model, "processor", None), "dialect", None)
    if dialect is not None and dialect.name == benchmark.system:
        return reply.raw if benchmark.metric in NOTATION or benchmark.system == "minigpt_v2" else reply.text
    if benchmark.metric in NOTATION:
        try:
            answer = Message("assistant", reply.parts or (Text(reply.text),))
            return written_answer(benchmark.system, Conversation((*conversation.messages, answer)))
        except DialectError:
            return reply.text
    return reply.text


def _choose(model: Chooses, questions: Sequence[Question], progress: Progress | None) -> Iterator[tuple[str, str]]:
    """The choices of lowest loss: by the original's rule, and by the summed log-probability.

    MiniGPT-v2 divides the summed loss by the padded length of the batch. Of a batch of one that is the length of prompt
    and answer, which is what is done here, so that the ranking depends on nothing else.
    """
    for done, question in enumerate(questions, 1):
        losses = []
        for choice in question.choices:
            said = Conversation((*question.conversation.messages, Message("assistant", (Text(choice),))))
            loss = -model.score(said)
            losses.append((loss / model.processor.length(said), loss))
        best = [min(range(len(losses)), key=lambda i: losses[i][k]) for k in (0, 1)]
        yield question.choices[best[0]], question.choices[best[1]]
        if progress is not None:
            progress(done, len(questions))


def _said(text: str) -> Reply:
    return Reply(text, text, shown_answer(text), 0, True)


def _take(scores: Scores, other: Scores, figure: str) -> None:
    """One figure of ``scores`` from another run of the metric."""
    scores.figures[figure] = other.figures[figure]
    for one, two in zip(scores.each, other.each, strict=True):
        one[figure] = two[figure]


def _report(
    benchmark: Benchmark,
    questions: Sequence[Question],
    replies: Sequence[Reply | None],
    errors: Sequence[str | None],
    rows: Sequence[Row],
    scores: Scores,
    settings: dict[str, Any],
) -> dict[str, Any]:
    each = iter(scores.each)
    samples = []
    for question, reply, error in zip(questions, replies, errors, strict=True):
        one = next(each) if reply is not None else {}
        samples.append(
            {
                "id": question.id,
                "task": benchmark.name,
                "expected": dump_parts(shown_answer(question.expected)),
                **answered(reply),
                "scores": one,
                "right": _right(benchmark, one) if reply else None,
                "problems": [f"neither box nor time: {m}" for m in reply.malformed] if reply else [],
                "error": error,
            }
        )
    baseline, constants = best_constants(benchmark, rows, settings)
    return {
        "metrics": {benchmark.name: scores.figures},
        "baseline": {benchmark.name: baseline} if baseline else {},
        "samples": samples,
        "notes": list(scores.notes),
        "signature": {
            "scorer": benchmark.metric,
            "benchmark": {
                "name": benchmark.name,
                "title": benchmark.title,
                "source": benchmark.source,
                "figure": benchmark.figure,
                "published": dict(benchmark.published),
                "doubt": benchmark.doubt,
            },
            "weft": versions(["weft"])["weft"],
            "packages": versions(scores.packages),
            **{"normaliser": "none", **scores.settings},
            "metrics": {figure: scores.says[figure] for figure in scores.figures},
            "right": {benchmark.name: _rule(benchmark)},
            "constants": {benchmark.name: constants},
            "counts": {benchmark.name: {f: sum(f in one for one in scores.each) or len(rows) for f in scores.figures}},
            "samples": len(questions),
            "not_asked": sum(error is not None for error in errors),
            "unfinished": sum(reply is not None and not reply.finished for reply in replies),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    }


def _rule(benchmark: Benchmark) -> str:
    kind = described(benchmark.figure)
    if kind.unit not in ("rate", "percent"):
        return GRADED
    full, none = ("0", "above 0") if kind.better == "lower" else ("full marks", "0; between, it is only graded")
    return f"right where {benchmark.figure} of the sample is {full}, wrong where it is {none}"


def _right(benchmark: Benchmark, scores: dict[str, float | None]) -> bool | None:
    """By the published figure where that says right or wrong of one sample."""
    if HALLUCINATED in scores:
        return scores[HALLUCINATED] == 0
    value, kind = scores.get(benchmark.figure), described(benchmark.figure)
    if value is None or kind.unit not in ("rate", "percent"):
        return None
    if kind.better == "lower":
        return value == 0
    whole = 100.0 if kind.unit == "percent" else 1.0
    return True if value == whole else False if value == 0 else None


def best_constants(
    benchmark: Benchmark, rows: Sequence[Row], settings: dict[str, Any]
) -> tuple[dict[str, float | None], dict[str, str]]:
    """What the best of a dozen constant answers gets, for every figure, and those answers.

    The candidates are the commonest references; texts that all differ give those of middle length, boxes those nearest
    the median. Naming no object is the best constant for CHAIR and says nothing, so it has none.
    """
    if benchmark.metric == "chair":
        return {}, {}
    best: dict[str, float | None] = {}
    constants: dict[str, str] = {}
    for candidate in _candidates(benchmark, rows):
        scores = score_rows(benchmark.metric, [Row(r.id, candidate, r.reference) for r in rows], **settings)
        for figure, value in scores.figures.items():
            held = best.setdefault(figure, None)
            lower = described(figure).better == "lower"
            if value is not None and (held is None or (value < held if lower else value > held)):
                best[figure], constants[figure] = value, candidate
    return best, {figure: constants.get(figure, "") for figure in best}


def _candidates(benchmark: Benchmark, rows: Sequence[Row]) -> list[str]:
    if benchmark.metric == "refcoco":
        boxes = [_percents(row.reference.fields) for row in rows]
        middle = [sorted(values)[len(boxes) // 2] for values in zip(*boxes, strict=True)]
        boxes.sort(key=lambda box: sum(abs(a - b) for a, b in zip(box, middle, strict=True)))
        near = dict.fromkeys(map(tuple, [middle, *boxes]))
        return ["{" + "".join(f"<{value}>" for value in box) + "}" for box in list(near)[:CONSTANTS]]
    texts: list[str] = []
    for row in rows:
        name, value = row.reference.need("answers", "captions", "answer", "text", "label")
        texts += [str(v) for v in value] if isinstance(value, list) else [str(int(value) if value is True else value)]
    middle_length = sorted(map(len, texts))[len(texts) // 2]
    counted = sorted(Counter(texts).items(), key=lambda item: (-item[1], abs(len(item[0]) - middle_length), item[0]))
    found = [text for text, _ in counted[:CONSTANTS]]
    if benchmark.metric == "hm":
        found = ["yes", "no"]
    return [*found, ""] if benchmark.metric in ("wer", "srwt") else found


def _percents(reference: dict[str, Any]) -> list[int]:
    x, y, w, h = reference["bbox_xywh"]
    sides = (reference["width"], reference["height"]) * 2
    return [min(100, max(0, int(v / side * 100))) for v, side in zip((x, y, x + w, y + h), sides, strict=True)]
