"""A model on a published benchmark: asked in its words, within its limits, scored by its metric and by sound ones."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

from weft.conversation import Conversation, Message, Text, WeftError
from weft.dialects import DialectError
from weft.evaluation.benchmark_data import Question, read_benchmark, written_answer
from weft.evaluation.benchmarks import Benchmark, get_benchmark
from weft.evaluation.metrics import METRICS
from weft.evaluation.pairs import as_text
from weft.evaluation.published.rows import Row
from weft.evaluation.report import Sample, make_report
from weft.evaluation.run import Answers, Progress, ask, check_folder, made_with, write_report
from weft.generation import Options, Reply


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
    check_folder(out)
    entry = get_benchmark(benchmark)
    options = options or Options(**entry.options())
    questions = read_benchmark(entry, data, limit, media_root)
    prompts = [question.conversation for question in questions]
    if entry.choices:
        chosen = list(_choose(model, questions, progress))
        replies: list[Reply | None] = [Reply(sound, sound, as_text(sound), 0, True) for _, sound in chosen]
        errors: list[str | None] = [None] * len(questions)
        answers = [original for original, _ in chosen]
    else:
        replies, errors = ask(
            model, prompts, options, batch_size=batch_size, on_bad_sample=on_bad_sample, progress=progress
        )
        answers = [
            prediction(entry, model, prompt, reply) if reply else ""
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
    rows = [Row(q.id, answer, q.reference) for q, answer in zip(questions, answers, strict=True)]
    pairs = entry.family.pairs(rows, synonyms=synonyms)
    if entry.choices:  # the sound figure is of the sound choice
        pairs = [replace(pair, given=as_text(sound)) for pair, (_, sound) in zip(pairs, chosen, strict=True)]
    samples = [Sample(q.id, *rest) for q, rest in zip(questions, zip(pairs, replies, errors, strict=True), strict=True)]
    asked = [sample.pair for sample in samples if sample.reply]
    if not asked:
        raise WeftError(f"none of the {len(questions)} questions could be asked; the first: {errors[0]}")
    figures = entry.family.measure(asked, entry.name)
    report = make_report(samples, figures, entry.metric, entry.name, METRICS[entry.figure])
    told = ("name", "title", "source", "figure", "doubt")
    report["signature"]["benchmark"] = {key: getattr(entry, key) for key in told} | {"published": dict(entry.published)}
    report["signature"] |= entry.family.settings(synonyms=synonyms)
    report["signature"] |= made_with(model, data, name, options, batch_size, limit, start)
    remarks = report["notes"]
    if options != Options(**entry.options()):
        remarks.append("The decoding is not the published one; see decoding in the signature.")
    spoken = report["signature"]["dialect"]["name"]
    if spoken and spoken != entry.system:
        remarks.append(f"Asked in the dialect {spoken}; the published figure was made with {entry.system}'s prompt.")
    write_report(report, out, prompts)
    return report


def prediction(benchmark: Benchmark, model: Any, conversation: Conversation, reply: Reply) -> str:
    """An answer as the released script gets it: the system's own text, whatever dialect the model speaks."""
    dialect = getattr(getattr(model, "processor", None), "dialect", None)
    if dialect is not None and dialect.name == benchmark.system:
        return reply.raw if benchmark.family.notation or benchmark.raw else reply.text
    if benchmark.family.notation:
        try:
            answer = Message("assistant", reply.parts or (Text(reply.text),))
            return written_answer(benchmark, Conversation((*conversation.messages, answer)))
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
