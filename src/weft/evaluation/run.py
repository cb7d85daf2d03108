"""Evaluating a model on a sample file: generate, score, write the report."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol

from weft.conversation import Conversation, SampleError, WeftError, Words, within
from weft.conversation.samples import iter_lines, parse_line
from weft.conversation.writing import dump_parts
from weft.evaluation.metrics import METRICS, Figures, Pair, answer_boxes, chosen, score
from weft.evaluation.page import write_page
from weft.evaluation.report import write_json
from weft.evaluation.right import is_right, rule
from weft.evaluation.text import NORMALISERS
from weft.generation import Options, Reply
from weft.media import image_size

Progress = Callable[[int, int], None]


class Answers(Protocol):
    """What evaluation needs of a model; `weft.generation.Model` has it."""

    def replies(
        self, conversations: Any, options: Options | None = None, *, batch_size: int = 16
    ) -> Iterator[tuple[int, Reply | WeftError]]: ...


@dataclass(frozen=True)
class Outcome:
    """Replies and their scores; ``replies[i]`` is None where sample i could not be asked (``errors[i]`` says why)."""

    conversations: list[Conversation]
    replies: list[Reply | None]
    errors: list[str | None]
    figures: Figures
    scores: list[dict[str, float | None]]
    seconds: float


def evaluate_samples(
    model: Answers,
    conversations: Sequence[Conversation],
    *,
    metrics: Sequence[str] | None = None,
    options: Options | None = None,
    batch_size: int = 16,
    on_bad_sample: Literal["fail", "skip"] = "fail",
    progress: Progress | None = None,
) -> Outcome:
    """Answers and scores samples in memory. Each ends with the expected answer; earlier turns are given as they are.

    A sample that cannot be asked (a picture that cannot be read, a task the dialect cannot write) raises, or with
    ``skip`` is left out of every figure and counted. A malformed answer is an answer: it is scored, and is wrong.
    """
    start = time.monotonic()
    wanted = chosen(metrics)
    options = options or Options()
    conversations = list(conversations)
    if metrics and not any(metric.applies(Pair.of(c, ())) for metric in wanted for c in conversations):
        raise WeftError(f"no sample is scored by {', '.join(metrics)}; leave --metrics out to see what scores them")
    prompts = [c.prompt() for c in conversations]
    replies, errors = ask(
        model, prompts, options, batch_size=batch_size, on_bad_sample=on_bad_sample, progress=progress
    )
    answered = [i for i, reply in enumerate(replies) if reply is not None]
    figures = score([Pair.of(conversations[i], replies[i].parts) for i in answered], wanted)  # type: ignore[union-attr]
    scores: list[dict[str, float | None]] = [{} for _ in conversations]
    for i, one in zip(answered, figures.samples, strict=True):
        scores[i] = one
    return Outcome(conversations, replies, errors, figures, scores, time.monotonic() - start)


def ask(
    model: Answers,
    prompts: Sequence[Conversation],
    options: Options,
    *,
    batch_size: int = 16,
    on_bad_sample: Literal["fail", "skip"] = "fail",
    progress: Progress | None = None,
) -> tuple[list[Reply | None], list[str | None]]:
    """The reply to each prompt, or None and in the second list the reason why it could not be asked."""
    replies: list[Reply | None] = [None] * len(prompts)
    errors: list[str | None] = [None] * len(prompts)
    for done, (index, reply) in enumerate(model.replies(prompts, options, batch_size=batch_size), 1):
        if isinstance(reply, Reply):
            replies[index] = reply
        elif on_bad_sample == "fail":
            raise reply
        else:
            errors[index] = str(reply)
        if progress is not None:
            progress(done, len(prompts))
    return replies, errors


def made_with(
    model: Answers, data: str | os.PathLike[str], name: str, options: Options, batch_size: int, limit: int | None
) -> dict[str, Any]:
    """What a report's figures depend on besides the scorer: model, dialect, decoding, data."""
    dialect = getattr(getattr(model, "processor", None), "dialect", None)
    switches = dialect.switches.model_dump(mode="json") if dialect is not None else {}
    return {
        "model": name or getattr(model, "name", ""),
        "dialect": {"name": getattr(dialect, "name", ""), "switches": switches},
        "decoding": asdict(options),
        "data": os.fspath(data),
        "data_sha256": hashlib.sha256(Path(data).read_bytes()).hexdigest(),
        "limit": limit,
        "batch_size": batch_size,
        "dtype": str(getattr(model, "dtype", "")).removeprefix("torch."),
        "device": str(getattr(model, "device", "")),
    }


def evaluate(
    model: Answers,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    name: str = "",
    metrics: Sequence[str] | None = None,
    limit: int | None = None,
    options: Options | None = None,
    batch_size: int = 16,
    on_bad_sample: Literal["fail", "skip"] = "fail",
    media_root: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Scores a model on a sample file and gives the report; ``report.json`` and ``index.html`` are written to ``out``.

    ``limit`` takes the first samples only. ``name`` is what the report calls the model. ``media_root``: the folder that
    media lie in, links followed (`weft.conversation.within`).
    """
    options = options or Options()
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise WeftError(f"{out} is a file; name a folder for the report")
    unread: list[str] = []
    skipped = unread if on_bad_sample == "skip" else None
    conversations = read_questions(data, limit, unread=skipped, media_root=media_root)
    outcome = evaluate_samples(
        model,
        conversations,
        metrics=metrics,
        options=options,
        batch_size=batch_size,
        on_bad_sample=on_bad_sample,
        progress=progress,
    )
    report = build_report(outcome, root=Path(data).parent)
    report["signature"] |= made_with(model, data, name, options, batch_size, limit)
    if unread:
        lines = "1 sample" if len(unread) == 1 else f"{len(unread)} samples"
        report["signature"]["unread"] = unread
        report.setdefault("notes", []).append(f"{lines} could not be read and are in no figure; the first: {unread[0]}")
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "report.json", report)
        write_page(folder / "index.html", report, conversations)
    return report


def read_questions(
    data: str | os.PathLike[str],
    limit: int | None = None,
    *,
    unread: list[str] | None = None,
    media_root: str | os.PathLike[str] | None = None,
) -> list[Conversation]:
    """The samples of a file, each checked to end with an expected answer.

    What is wrong with a sample raises, or is added to ``unread`` where that is given.
    """
    conversations: list[Conversation] = []
    file, root, exists = os.fspath(data), os.path.dirname(os.fspath(data)), within(media_root)
    for line, raw in iter_lines(data):
        if limit is not None and len(conversations) >= limit:
            break
        try:
            conversation = parse_line(raw, where=file, line=line, root=root, probe=image_size, exists=exists)
            if conversation.answer is None:
                named = f"sample {conversation.id!r} " if conversation.id else ""
                raise SampleError(f"{named}has no final assistant message to compare with", file=file, line=line)
        except SampleError as problem:
            if unread is None:
                raise
            unread.append(str(problem))
        else:
            conversations.append(conversation)
    if not conversations:
        said = "no samples in it: write one JSON object a line"
        if unread:
            said = f"no sample of it can be read; the first: {unread[0]}"
        raise SampleError(said, file=file)
    return conversations


def build_report(outcome: Outcome, root: Path | None = None) -> dict[str, Any]:
    """The report as JSON-ready data (DESIGN: metrics, baseline, samples, signature)."""
    samples = []
    pairs: dict[str, list[Pair]] = {}
    for i, conversation in enumerate(outcome.conversations):
        reply, scores = outcome.replies[i], outcome.scores[i]
        pair = Pair.of(conversation, reply.parts if reply else ())
        pairs.setdefault(pair.task, []).append(pair)
        samples.append(
            {
                "id": conversation.id if conversation.id is not None else str(i),
                "task": pair.task,
                "expected": dump_parts(pair.expected),
                **answered(reply),
                "scores": scores,
                "right": is_right(pair) if reply else None,
                "problems": problems(pair, reply),
                "error": outcome.errors[i],
            }
        )
    figures = outcome.figures
    remarks = {"notes": list(figures.notes)} if figures.notes else {}
    used = sorted({name for table in figures.metrics.values() for name in table}, key=list(METRICS).index)
    return {
        "metrics": figures.metrics,
        "baseline": figures.baseline,
        "samples": samples,
        **remarks,
        "signature": {
            "scorer": "weft",
            "weft": versions(["weft"])["weft"],
            "normaliser": NORMALISERS,
            "metrics": {name: METRICS[name].says for name in used},
            "packages": versions(("jiwer", "sacrebleu", "whisper-normalizer")),
            "right": {task: rule(group) for task, group in sorted(pairs.items())},
            "constants": figures.constants,
            "counts": figures.counts,
            "samples": len(samples),
            "not_asked": sum(error is not None for error in outcome.errors),
            "unfinished": sum(reply is not None and not reply.finished for reply in outcome.replies),
            "seconds": round(outcome.seconds, 3),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    }


def answered(reply: Reply | None) -> dict[str, Any]:
    """What a report says of one answer, whatever it is scored by; None: there is none."""
    return {
        "answer": dump_parts(reply.parts) if reply else None,
        "text": reply.text if reply else None,
        "raw": reply.raw if reply else None,
        "tokens": reply.tokens if reply else 0,
        "finished": reply.finished if reply else False,
        "windows": reply.windows if reply else 0,
    }


def problems(pair: Pair, reply: Reply | None) -> list[str]:
    """What is malformed about an answer, in words; it has been scored as it is."""
    if reply is None:
        return []
    found = []
    if not reply.finished:
        found.append(f"cut after {reply.tokens} tokens without an end")
    if answer_boxes(pair.expected) and not answer_boxes(pair.given):
        found.append("no box in the answer")
    if any(isinstance(p, Words) for p in pair.expected) and not any(isinstance(p, Words) for p in pair.given):
        found.append("no word times in the answer")
    found += [f"neither box nor time: {fragment}" for fragment in reply.malformed]
    return found


def versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
