"""Evaluating a model on a sample file: generate, score, write the report."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol

from weft.conversation import Conversation, SampleError, WeftError
from weft.conversation.roots import within
from weft.conversation.samples import iter_lines, parse_line
from weft.data.shard_reading import samples_of
from weft.data.shards import Shards
from weft.data.source import is_shards, open_source
from weft.evaluation.metrics import chosen, measure
from weft.evaluation.page import write_page
from weft.evaluation.pairs import Pair
from weft.evaluation.report import Sample, make_report
from weft.files import write_json
from weft.generation import Options, Reply
from weft.media import image_size

Progress = Callable[[int, int], None]


class Answers(Protocol):
    """What evaluation needs of a model; `weft.generation.Model` has it."""

    def replies(
        self, conversations: Any, options: Options | None = None, *, batch_size: int = 16
    ) -> Iterator[tuple[int, Reply | WeftError]]: ...


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
    model: Answers,
    data: str | os.PathLike[str],
    name: str,
    options: Options,
    batch_size: int,
    limit: int | None,
    start: float,
) -> dict[str, Any]:
    """What a report's figures depend on besides the scorer: model, dialect, decoding, data; and how long it took."""
    dialect = getattr(getattr(model, "processor", None), "dialect", None)
    switches = dialect.switches.model_dump(mode="json") if dialect is not None else {}
    return {
        "model": name or getattr(model, "name", ""),
        "dialect": {"name": getattr(dialect, "name", ""), "switches": switches},
        "decoding": asdict(options),
        "data": os.fspath(data),
        "data_sha256": _digest(data),
        "limit": limit,
        "batch_size": batch_size,
        "dtype": str(getattr(model, "dtype", "")).removeprefix("torch."),
        "device": str(getattr(model, "device", "")),
        "seconds": round(time.monotonic() - start, 3),
    }


def _digest(data: str | os.PathLike[str]) -> str:
    """Of a file its own; of shards that of what their file system tells of them."""
    data = os.fspath(data)
    return open_source(data).fingerprint() if is_shards(data) else hashlib.sha256(Path(data).read_bytes()).hexdigest()


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
    media lie in, links followed (`weft.conversation.roots.within`).
    """
    start = time.monotonic()
    check_folder(out)
    options = options or Options()
    unread: list[str] = []
    skipped = unread if on_bad_sample == "skip" else None
    conversations = read_questions(data, limit, unread=skipped, media_root=media_root)
    wanted = chosen(metrics)
    if metrics and not any(m.computed.applies(Pair.of(c, ())) for m in wanted for c in conversations):
        raise WeftError(f"no sample is scored by {', '.join(metrics)}; leave --metrics out to see what scores them")
    prompts = [c.prompt() for c in conversations]
    replies, errors = ask(
        model, prompts, options, batch_size=batch_size, on_bad_sample=on_bad_sample, progress=progress
    )
    samples = [
        Sample(c.id if c.id is not None else str(i), Pair.of(c, reply.parts if reply else ()), reply, error)
        for i, (c, reply, error) in enumerate(zip(conversations, replies, errors, strict=True))
    ]
    figures = measure([sample.pair for sample in samples if sample.reply], wanted)
    report = make_report(samples, figures, "weft")
    if unread:
        lines = "1 sample" if len(unread) == 1 else f"{len(unread)} samples"
        report["signature"]["unread"] = unread
        report["notes"].append(f"{lines} could not be read and are in no figure; the first: {unread[0]}")
    report["signature"] |= made_with(model, data, name, options, batch_size, limit, start)
    if not report["notes"]:
        del report["notes"]
    write_report(report, out, conversations)
    return report


def check_folder(out: str | os.PathLike[str] | None) -> None:
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise WeftError(f"{out} is a file; name a folder for the report")


def write_report(
    report: dict[str, Any], out: str | os.PathLike[str] | None, conversations: Sequence[Conversation]
) -> None:
    if out is not None:
        write_json(Path(out) / "report.json", report)
        write_page(Path(out) / "index.html", report, conversations)


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
    lines: Iterator[tuple[int, Any]] = enumerate(samples_of(Shards(file)), 1) if is_shards(file) else iter_lines(data)
    for line, found in lines:
        if limit is not None and len(conversations) >= limit:
            break
        try:
            if isinstance(found, SampleError):
                raise found
            conversation: Conversation = found
            if isinstance(found, bytes):
                conversation = parse_line(found, where=file, line=line, root=root, probe=image_size, exists=exists)
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
