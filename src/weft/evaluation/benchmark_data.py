"""The questions of a benchmark from a file: its own fields a line, or weft samples.

A line of the first kind holds the picture or clip, what `Benchmark.fields` names and what its metric's references hold:

    {"id": "7", "image": "img/7.jpg", "question": "What is it?", "answers": ["cup", "a cup", ...]}

A weft sample (``weft data convert`` writes them) brings the same as messages: its picture or clip, its words, and the
expected answer. Samples that ask the same are one question with several answers.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.conversation import Audio, Box, Conversation, Image, Message, SampleError, Text, Words, parse_messages, within
from weft.conversation.parts import Exists
from weft.conversation.samples import iter_lines, parse_line
from weft.dialects import Plain, Special, get_dialect
from weft.dialects.base import plain_text
from weft.evaluation.benchmarks import Benchmark
from weft.evaluation.metrics import clip_seconds
from weft.evaluation.published.rows import Line
from weft.media import image_size

SEVERAL = {"vqa": 4, "vizwiz": 4}  # fewer annotators than these could not give full marks
LISTED = {"vqa": "answers", "vizwiz": "answers", "cider": "answers"}  # metrics with several references a question
# Metrics that read an answer in its system's own notation, tags and braces included.
NOTATION = ("refcoco", "srwt", "nsynth")


@dataclass(frozen=True)
class Question:
    """``conversation``: the request in the published words. ``choices``: answers to choose from (IconQA)."""

    id: str
    conversation: Conversation
    reference: Line
    choices: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """The reference as one line, for people."""
        fields = self.reference.fields
        for name in ("answers", "captions", "answer", "text", "label", "bbox_xywh", "objects"):
            if name in fields:
                value = fields[name]
                return " / ".join(dict.fromkeys(map(str, value))) if isinstance(value, list) else str(value)
        return ""


def read_benchmark(
    benchmark: Benchmark,
    data: str | os.PathLike[str],
    limit: int | None = None,
    media_root: str | os.PathLike[str] | None = None,
) -> list[Question]:
    """The questions of a file, in its order. A mistake is a `SampleError` with file, line and field.

    ``media_root``: media lie inside this folder (`weft.conversation.within`).
    """
    file, exists = os.fspath(data), within(media_root)
    found: dict[Any, Question] = {}
    for number, raw in iter_lines(data):
        try:
            fields = json.loads(raw)
        except (ValueError, RecursionError) as e:
            raise SampleError(f"not JSON ({e}); write one object a line", file=file, line=number) from None
        if not isinstance(fields, dict):
            raise SampleError("must be an object", file=file, line=number)
        if "messages" in fields:
            key, question = _sample(benchmark, raw, file, number, exists)
        else:
            question = _line(benchmark, Line(fields, file, number), exists)
            key = question.id
            if key in found:
                question.reference.wrong("id", f"{key!r} stands in line {found[key].reference.line} already")
        if key in found:  # another answer to the same question
            name = LISTED.get(benchmark.metric)
            if name is None:
                first = found[key].reference.line
                question.reference.wrong("messages", f"asks the same as line {first}: {benchmark.name} has one answer")
            found[key].reference.fields[name] += question.reference.fields[name]
        elif limit is None or len(found) < limit:
            found[key] = question
            if question.reference.fields.get("text") == "" and (seconds := clip_seconds(question.conversation)):
                question.reference.fields.setdefault("seconds", seconds)
    if not found:
        raise SampleError("nothing in it: write one JSON object a line", file=file)
    least = SEVERAL.get(benchmark.metric, 1)
    for question in found.values():
        answers = question.reference.fields.get("answers")
        if isinstance(answers, list) and len(answers) < least:
            question.reference.wrong(
                "answers",
                f"there are {len(answers)}, and {benchmark.title} compares with those of several people (10 as "
                f"published, {least} at least); `weft data convert --answers every` keeps all of them",
            )
    return list(found.values())


def written_answer(system: str, conversation: Conversation) -> str:
    """The last answer of a conversation as ``system``'s dialect writes it, its tags included and its end left out."""
    switches = {"loss_on_tags": False} if system == "qwen_audio" else {}
    dialect = get_dialect(system, switches)
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
    name = line.fields.get("id", line.line)
    if isinstance(name, bool) or not isinstance(name, str | int):
        line.wrong("id", "must be a string or a whole number")
    choices: tuple[str, ...] = ()
    if benchmark.choices:
        choices = tuple(line.strings("choices"))
        if len(choices) < 2:
            line.wrong("choices", "must be a list of at least two strings: the answers to choose from")
    return Question(str(name), conversation, _with_language(benchmark, line), choices)


def _sample(benchmark: Benchmark, raw: bytes, file: str, number: int, exists: Exists) -> tuple[Any, Question]:
    line = Line({}, file, number)
    sample = parse_line(raw, where=file, line=number, root=os.path.dirname(file), probe=image_size, exists=exists)
    if benchmark.choices or benchmark.metric == "chair":
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
    line.fields.update(_reference(benchmark, sample, sources[0], line))
    task = asked.task
    if task is not None and (language := task.get("to") or task.get("language")):
        line.fields.setdefault("language", language)
    name = sample.id if sample.id is not None else str(number)
    return (str(sources[0]), words), Question(name, conversation, _with_language(benchmark, line))


def _reference(benchmark: Benchmark, sample: Conversation, source: Any, line: Line) -> dict[str, Any]:
    assert sample.answer is not None
    parts = sample.answer.parts
    if benchmark.metric == "refcoco":
        box = next((part.boxes[0] for part in parts if isinstance(part, Box) and part.boxes), None)
        if box is None:
            line.wrong("messages", f"{benchmark.title} expects a box, and the answer has none")
        width, height = image_size(source)
        left, top, right, bottom = box
        xywh = [left * width, top * height, (right - left) * width, (bottom - top) * height]
        return {"bbox_xywh": xywh, "width": width, "height": height}
    if benchmark.metric == "srwt" and not any(isinstance(part, Words) for part in parts):
        line.wrong("messages", f"{benchmark.title} expects word times, and the answer has none")
    if benchmark.metric in NOTATION:
        task = parse_messages(benchmark.messages(source)).messages[-1]
        return {"text": written_answer(benchmark.system, Conversation((task, Message("assistant", parts))))}
    text = plain_text(parts)
    if benchmark.metric in LISTED:
        return {LISTED[benchmark.metric]: [text]}
    return {"text" if benchmark.metric in ("wer", "bleu") else "answer": text}


def _with_language(benchmark: Benchmark, line: Line) -> Line:
    """The language of transcripts and translations is that of the benchmark where a line names none."""
    fields = dict(benchmark.task_fields)
    if benchmark.metric in ("wer", "srwt", "bleu") and "language" not in line.fields:
        line.fields["language"] = fields.get("to") or fields.get("language")
    return line


def shown_answer(text: str) -> tuple[Text, ...]:
    return (Text(text),) if text else ()
