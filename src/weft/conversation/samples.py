"""Samples in: JSON Lines, one conversation a line, and the message lists that programs pass (out: `writing`).

Every mistake is a `SampleError` that names file, line and field (``messages[0].content[2].boxes[1]``). Two doors:
`parse_sample` is the strict door of sample files; `parse_messages` is the door of programs and also takes the spellings
of media that other APIs use, and media already in memory.

This package reads no media. What needs an image's size (boxes in pixels, boxes that stick out by rounding) takes a
``probe``, a function from a media source to ``(width, height)`` as a person sees the image: `weft.media.image_size`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NoReturn, TypedDict, TypeVar, Unpack, cast

from weft.conversation.checks import Mistake, key_name, kind_of, listed, show, string, unknown_key
from weft.conversation.errors import SampleError
from weft.conversation.grounding import Probe, settle
from weft.conversation.parts import PARTS, TYPES, Exists, read_part
from weft.conversation.tasks import guess, needs_problem
from weft.conversation.types import Audio, Box, Conversation, Image, Message, Part, Role, Task, Text
from weft.named import Named

Read = TypeVar("Read")

ROLES: tuple[Role, ...] = ("system", "user", "assistant")
# What is no sample, in words: read where there is a mistake, by what it is in.
FOREIGN = Named[Callable[..., Any]](
    {name: f"weft.conversation.foreign:{name}" for name in ("command", "no_text", "no_json", "no_sample", "no_file")}
)
BOM = "\ufeff".encode()  # some editors begin a file with it; it says nothing


class Origin(TypedDict, total=False):
    """Where a conversation is from. ``where`` and ``line`` name it in errors."""

    where: str | None
    line: int | None
    root: str | os.PathLike[str] | None  # the folder that relative paths start from; None: the working directory
    probe: Probe | None  # gives the sizes of images
    exists: Exists  # whether there is such a file


# ---------------------------------------------------------------------------------------------------------- reading


def parse_messages(messages: Sequence[Any] | Conversation, **origin: Unpack[Origin]) -> Conversation:
    """A conversation from a list of messages, as a program or an API client writes them.

    Beside the sample format it takes ``{"type": "image", "url" | "path" | "base64": ...}``, the same for audio,
    ``image_url``, ``audio_url`` and ``input_audio`` parts, media in memory (PIL images, arrays, ``(array, rate)``,
    bytes), parts that are already typed, MiniGPT-v2's name ``grounding`` for ``grounded_caption``, and a region that
    ``identify`` asks about as text. A `Conversation` is given back as it is.
    """
    if isinstance(messages, Conversation):
        return messages
    return _guard(lambda: _conversation(messages, None, origin, lenient=True), origin)


def parse_sample(sample: Any, **origin: Unpack[Origin]) -> Conversation:
    """A conversation from one sample: ``{"id": ..., "messages": [...]}``, nothing else."""
    return _guard(lambda: _sample(sample, origin), origin)


def read_task(raw: dict[str, Any]) -> Task:
    """A task part alone: that there is such a task, and that its fields are of it. What it needs is not asked."""
    return _guard(lambda: cast(Task, read_part(raw, 0, {}, "", os.path.isfile, lenient=False)), {})


def parse_line(text: bytes | str, **origin: Unpack[Origin]) -> Conversation:
    """A conversation from one line of a sample file. Where the file is laid out as another one, the error says so."""
    try:
        return _guard(lambda: _sample(_json(text), origin), origin)
    except SampleError as e:
        said = FOREIGN["command"](e.file) if e.file is not None else None
        if said is None:
            raise
        if e.line == 1:
            raise SampleError(said, file=e.file) from None
        raise SampleError(f"{e.problem} (the file {said})", file=e.file, line=e.line, field=e.field) from None


def iter_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes]]:
    """``(line number from 1, line)`` of a sample file; blank lines are passed over.

    Lines end at a line feed and nowhere else: text may hold any other separator.
    """
    try:
        with open(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                if not (raw if number > 1 else raw.removeprefix(BOM) or b" ").isspace():
                    yield number, raw
    except OSError as e:
        raise SampleError(FOREIGN["no_file"](path, e), file=os.fspath(path)) from e


def iter_samples(
    path: str | os.PathLike[str], *, probe: Probe | None = None, exists: Exists = os.path.isfile
) -> Iterator[Conversation]:
    """The conversations of a sample file, one by one; media paths are relative to the file."""
    file, root = os.fspath(path), os.path.dirname(os.fspath(path))
    for number, raw in iter_lines(path):
        yield parse_line(raw, where=file, line=number, root=root, probe=probe, exists=exists)


def read_samples(
    path: str | os.PathLike[str], *, probe: Probe | None = None, exists: Exists = os.path.isfile
) -> list[Conversation]:
    """All conversations of a sample file. A file without any is a mistake."""
    found = list(iter_samples(path, probe=probe, exists=exists))
    if not found:
        raise SampleError("no samples in it: write one JSON object a line", file=os.fspath(path))
    return found


def _guard(read: Callable[[], Read], origin: Origin) -> Read:
    try:
        return read()
    except Mistake as e:
        at = {"file": origin.get("where"), "line": origin.get("line")}
        raise SampleError(e.problem, **at, field=e.field or None) from None  # type: ignore[arg-type]


def _json(text: bytes | str) -> Any:
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        text = text.removeprefix("\ufeff").rstrip("\r\n")  # an error at the end would be counted from the next line
        return _DECODER.decode(text)
    except UnicodeDecodeError as e:
        raise Mistake(FOREIGN["no_text"](text, e)) from None
    except json.JSONDecodeError as e:
        raise Mistake(FOREIGN["no_json"](text, e)) from None
    except RecursionError:
        raise Mistake("invalid JSON: nested too deep for a sample") from None
    except ValueError as e:
        raise Mistake(f"invalid JSON: {e}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):  # json would keep the last and say nothing
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise Mistake(f'key "{key_name(twice)}" stands twice in one object: keep one')
    return made


def _constant(name: str) -> NoReturn:
    raise Mistake(f"{name} is not a number: write a finite one")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


# ------------------------------------------------------------------------------------------------- samples, messages


def _sample(sample: Any, origin: Origin) -> Conversation:
    if not isinstance(sample, dict) or not sample.keys() <= {"id", "messages"}:
        if told := FOREIGN["no_sample"](sample):
            raise Mistake(told)
        if not isinstance(sample, dict):
            raise Mistake(f'a sample is an object {{"id": ..., "messages": [...]}}, this is {kind_of(sample)}')
        unknown_key(sample, ("id", "messages"), "a sample")
    if "messages" not in sample:
        raise Mistake('a sample has "messages", this one has not')
    name = sample.get("id")
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if name is not None:
        name = string(name, "id")
    return _conversation(sample["messages"], name, origin, lenient=False)


def _conversation(messages: Any, name: str | None, origin: Origin, *, lenient: bool) -> Conversation:
    if not isinstance(messages, list | tuple):
        raise Mistake(f"must be a list of messages, this is {kind_of(messages)}", "messages")
    if not messages:
        raise Mistake("is empty: a conversation has at least one message", "messages")
    root, probe, exists = origin.get("root"), origin.get("probe"), origin.get("exists", os.path.isfile)
    folder = os.fspath(root) if root is not None else ""
    parsed: list[Message] = []
    loose: list[tuple[int, int, str]] = []  # grounded parts to settle once the media are known: message, part, unit
    images: list[Image] = []
    clips = 0
    shown: list[tuple[int, int]] = []  # images and clips shown up to each message, itself included
    for m, message in enumerate(messages):
        try:
            role, parts, units, learn = _message(message, m, parsed, folder, exists, lenient)
            task, text, box = -1, False, False
            for i, part in enumerate(parts):
                kind = type(part)
                if kind is Text:
                    text = text or bool(part.text) and not part.text.isspace()  # type: ignore[union-attr]
                elif kind is Image:
                    images.append(part)  # type: ignore[arg-type]
                elif kind is Audio:
                    clips += 1
                elif kind is Task:
                    task = i
                else:
                    box = box or kind is Box
                    loose.append((m, i, units.get(i, "fraction")))
            if task >= 0:
                name_of_task = cast(Task, parts[task]).name
                region = box or lenient and text  # programs may write a region as their model's text has it
                problem = needs_problem(name_of_task, images=len(images), clips=clips, text=text, box=region)
                if problem:
                    raise Mistake(problem, f"content[{task}].task")
        except Mistake as e:
            raise e.inside(f"messages[{m}]") from None
        parsed.append(Message(role, tuple(parts), learn))
        shown.append((len(images), clips))
    for m, i, unit in loose:
        try:
            part = settle(parsed[m].parts[i], unit, shown[m], shown[-1], images, probe, lenient)
        except Mistake as e:
            raise e.inside(f"messages[{m}].content[{i}]") from None
        if part is not parsed[m].parts[i]:
            parts = list(parsed[m].parts)
            parts[i] = part
            parsed[m] = replace(parsed[m], parts=tuple(parts))
    return Conversation(tuple(parsed), name)


def _message(
    message: Any, index: int, before: list[Message], folder: str, exists: Exists, lenient: bool
) -> tuple[Role, list[Part], dict[int, str], bool]:
    """Role, parts, the unit of each box part by its place, and whether the message is learned."""
    if lenient and isinstance(message, Message):
        message = {"role": message.role, "content": message.parts, "learn": message.learn}
    if not isinstance(message, dict):
        raise Mistake(f'a message is an object {{"role": ..., "content": ...}}, this is {kind_of(message)}')
    if message.keys() != {"role", "content"}:
        unknown_key(message, ("role", "content", "learn"), "a message")
        for key in ("role", "content"):
            if key not in message:
                raise Mistake(f'a message has "role" and "content", "{key}" is missing')
    role, content, learn = message["role"], message["content"], message.get("learn", True)
    if not isinstance(learn, bool):
        raise Mistake(f"must be true or false, this is {show(learn)}", "learn")
    if role not in ROLES:
        hint = guess(role, ROLES) if isinstance(role, str) else ""
        raise Mistake(f"{show(role)} is no role: {hint}roles are system, user and assistant", "role")
    _check_turn(role, index, before)
    if isinstance(content, str):
        content = [Text(string(content, "content"))]
    elif not isinstance(content, list | tuple):
        raise Mistake(f"must be a string or a list of parts, this is {kind_of(content)}", "content")
    if not content:
        raise Mistake("is empty: a message has at least one part", "content")
    parts: list[Part] = []
    units: dict[int, str] = {}
    allowed, tasked, empty = TYPES[role], False, True
    for i, raw in enumerate(content):
        try:
            known = type(raw) is Text or lenient and isinstance(raw, Part)
            part = raw if known else read_part(raw, i, units, folder, exists, lenient)
            kind = type(part)
            if kind not in allowed:
                raise Mistake(f"{role} messages hold {listed(PARTS[role])} parts, no {kind.__name__.lower()}", "type")
            if kind is Task:
                if tasked:
                    raise Mistake("a message has at most one task: make two messages of it", "task")
                tasked = True
            empty = empty and kind is Text and not part.text  # type: ignore[union-attr]
        except Mistake as e:
            raise e.inside(f"content[{i}]") from None
        parts.append(part)
    if empty and role != "assistant":
        raise Mistake("holds no text: only an answer may be empty", "content")
    return role, parts, units, learn


def _check_turn(role: Role, index: int, before: list[Message]) -> None:
    if role == "system":
        if index:
            raise Mistake("the system message comes first, before all others", "role")
        return
    expected = "assistant" if before and before[-1].role == "user" else "user"
    if role != expected:
        after = f"after the {before[-1].role}'s" if before else "first"
        raise Mistake(f"a message of the {expected} comes {after}: user and assistant take turns", "role")
