"""The questions of a benchmark from a file: its own fields a line, or weft samples.

A line of the first kind holds the picture or clip, what `Benchmark.fields` names and what its metric's references hold:

    {"id": "7", "image": "img/7.jpg", "question": "What is it?", "answers": ["cup", "a cup", ...]}

A weft sample (``weft data convert`` writes them) brings the same as messages: its picture or clip, its words, and the
expected answer. Samples that ask the same are one question with several answers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from weft.conversation import Audio, Box, Conversation, Image, Message, Words, parse_messages
from weft.conversation.parts import Exists
from weft.conversation.roots import within
from weft.conversation.samples import parse_sample
from weft.dialects import Plain, Special, get_dialect
from weft.dialects.base import plain_text
from weft.evaluation.benchmarks import Benchmark
from weft.evaluation.pairs import clip_seconds
from weft.evaluation.published.rows import Line, read_lines
from weft.media import image_size


@dataclass(frozen=True)
class Question:
    """``conversation``: the request in the published words. ``choices``: answers to choose from (IconQA)."""

    id: str
    conversation: Conversation
    reference: Line
    choices: tuple[str, ...] = ()


def read_benchmark(
    benchmark: Benchmark,
    data: str | os.PathLike[str],
    limit: int | None = None,
    media_root: str | os.PathLike[str] | None = None,
) -> list[Question]:
    """The questions of a file, in its order. A mistake is a `SampleError` with file, line and field.

    ``media_root``: media lie inside this folder (`weft.conversation.roots.within`).
    """
    exists, family = within(media_root), benchmark.family
    found: dict[Any, Question] = {}
    for line in read_lines(data):
        if "messages" in line.fields:
            key, question = _sample(benchmark, line, exists)
        else:
            question = _line(benchmark, line, exists)
            key = question.id
            if key in found:
                line.wrong("id", f"{key!r} stands in line {found[key].reference.line} already")
        fields = question.reference.fields
        if key in found:  # another answer to the same question
            first = found[key].reference
            if family.answer != "answers":
                line.wrong("messages", f"asks the same as line {first.line}: {benchmark.name} has one answer")
            first.fields["answers"] += fields["answers"]
        elif limit is None or len(found) < limit:
            found[key] = question
            if "language" in family.options:  # that of the benchmark where a line names none
                asked = benchmark.task_fields
                fields.setdefault("language", asked.get("to") or asked.get("language"))
            if fields.get("text") == "" and (seconds := clip_seconds(question.conversation)):
                fields.setdefault("seconds", seconds)
    for question in found.values():
        answers = question.reference.fields.get("answers")
        if isinstance(answers, list) and len(answers) < family.annotators:
            question.reference.wrong(
                "answers",
                f"there are {len(answers)}, and {benchmark.title} compares with those of several people (10 as "
                f"published, {family.annotators} at least); `weft data convert --answers every` keeps all of them",
            )
    return list(found.values())


def written_answer(benchmark: Benchmark, conversation: Conversation) -> str:
    """The last answer of a conversation as the system's dialect writes it, its tags included and its end left out."""
    dialect = get_dialect(benchmark.system, dict(benchmark.switches))
    last = Conversation((*conversation.prompt().messages[-1:], *conversation.messages[-1:]))
    stops = set(dialect.stop_tokens())
    out = ""
    for piece in dialect.render(last):
        if isinstance(piece, Plain) and piece.loss:
            out += piece.text
        elif isinstance(piece, Special) and piece.loss and piece.token not in stops:
            out += piece.token
    return out


def _line(benchmark: Benchmark, line: Line, exists: Exists) -> Question:
    for needed in (benchmark.media, *benchmark.fields):
        if needed not in line.fields:
            line.wrong(needed, f'missing: a question of {benchmark.name} needs a "{needed}"')
    source = line.string(benchmark.media)
    values = {name: line.string(name) for name in benchmark.fields}
    asked = benchmark.messages(source, **values)
    conversation = parse_messages(asked, where=line.file, line=line.line, root=Path(line.file).parent, exists=exists)
    line.fields.setdefault("id", line.line)
    choices: tuple[str, ...] = ()
    if benchmark.choices:
        choices = tuple(line.strings("choices"))
        if len(choices) < 2:
            line.wrong("choices", "must be a list of at least two strings: the answers to choose from")
    return Question(line.identifier(), conversation, line, choices)


def _sample(benchmark: Benchmark, line: Line, exists: Exists) -> tuple[Any, Question]:
    root = os.path.dirname(line.file)
    sample = parse_sample(line.fields, where=line.file, line=line.line, root=root, probe=image_size, exists=exists)
    if benchmark.choices or not benchmark.family.answer:
        wanted = "choices" if benchmark.choices else "objects"
        line.wrong(
            "messages", f"{benchmark.title} needs {wanted}, which a sample has no place for: write its own fields"
        )
    if len(sample.messages) - (sample.messages[0].role == "system") != 2 or sample.answer is None:
        line.wrong("messages", f"{benchmark.title} asks one question: one user message and the expected answer")
    asked = sample.prompt().messages[-1]
    kind = Image if benchmark.media == "image" else Audio
    sources = [part.source for part in asked.parts if isinstance(part, kind)]
    if len(sources) != 1:
        line.wrong("messages", f"{benchmark.title} asks about one {benchmark.media}, this sample has {len(sources)}")
    words = asked.text.strip()
    values = dict.fromkeys(benchmark.fields, words)
    conversation = parse_messages(benchmark.messages(sources[0], **values))
    reference = _reference(benchmark, sample, sources[0], line)
    task = asked.task
    if task is not None and (language := task.get("to") or task.get("language")):
        reference["language"] = language
    name = sample.id if sample.id is not None else str(line.line)
    return (str(sources[0]), words), Question(name, conversation, replace(line, fields=reference))


def _reference(benchmark: Benchmark, sample: Conversation, source: Any, line: Line) -> dict[str, Any]:
    assert sample.answer is not None
    parts, family = sample.answer.parts, benchmark.family
    if family.answer == "bbox_xywh":
        box = next((part.boxes[0] for part in parts if isinstance(part, Box) and part.boxes), None)
        if box is None:
            line.wrong("messages", f"{benchmark.title} expects a box, and the answer has none")
        width, height = image_size(source)
        left, top, right, bottom = box
        xywh = [left * width, top * height, (right - left) * width, (bottom - top) * height]
        return {"bbox_xywh": xywh, "width": width, "height": height}
    if family.timed and not any(isinstance(part, Words) for part in parts):
        line.wrong("messages", f"{benchmark.title} expects word times, and the answer has none")
    if family.notation:
        task = parse_messages(benchmark.messages(source)).messages[-1]
        return {"text": written_answer(benchmark, Conversation((task, Message("assistant", parts))))}
    text = plain_text(parts)
    return {family.answer: [text] if family.answer == "answers" else text}
