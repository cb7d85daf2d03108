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
from math import isfinite
from numbers import Real
from typing import Any, NoReturn, cast

from weft.conversation.errors import SampleError, WeftError
from weft.conversation.tasks import TASKS, field_problem, guess, needs_problem
from weft.conversation.types import (
    Audio,
    Box,
    Conversation,
    Image,
    MediaSource,
    Message,
    Part,
    Role,
    Task,
    Text,
    Word,
    Words,
)

Probe = Callable[[MediaSource], tuple[int, int]]
Exists = Callable[[str], bool]

BOM = "\ufeff".encode()  # some editors begin a file with it; it says nothing

ROLES: tuple[Role, ...] = ("system", "user", "assistant")
# Which parts a role may hold. Images and sound are only ever input; word times are only ever output.
PARTS: dict[str, tuple[str, ...]] = {
    "system": ("text",),
    "user": ("text", "image", "audio", "task", "box"),
    "assistant": ("text", "box", "words"),
}
KEYS: dict[str, tuple[str, ...]] = {
    "text": ("type", "text"),
    "image": ("type", "image"),
    "audio": ("type", "audio"),
    "box": ("type", "boxes", "label", "image", "unit"),
    "words": ("type", "words", "audio"),
}
_TYPES = {
    role: frozenset(kind for kind in (Text, Image, Audio, Task, Box, Words) if kind.__name__.lower() in names)
    for role, names in PARTS.items()
}
_WORD = {"text", "start", "end"}
_KEYS = {kind: frozenset(keys) for kind, keys in KEYS.items()}


class _Mistake(Exception):
    """A mistake on its way out of the nested parsers; each level adds where it was."""

    def __init__(self, problem: str, field: str = ""):
        self.problem, self.field = problem, field

    def inside(self, where: str) -> _Mistake:
        joint = "" if not self.field or self.field.startswith("[") else "."
        self.field = f"{where}{joint}{self.field}"
        return self


# ---------------------------------------------------------------------------------------------------------- reading


def parse_messages(
    messages: Sequence[Any] | Conversation,
    *,
    where: str | None = None,
    line: int | None = None,
    root: str | os.PathLike[str] | None = None,
    probe: Probe | None = None,
    exists: Exists = os.path.isfile,
) -> Conversation:
    """A conversation from a list of messages, as a program or an API client writes them.

    Beside the sample format it takes ``{"type": "image", "url" | "path" | "base64": ...}``, the same for audio,
    ``image_url``, ``audio_url`` and ``input_audio`` parts, media in memory (PIL images, arrays, ``(array, rate)``,
    bytes) and parts that are already typed. ``root``: folder that relative paths start from (None: the working
    directory). ``where`` and ``line`` name the origin in errors. A `Conversation` is given back as it is.
    """
    if isinstance(messages, Conversation):
        return messages
    return _guard(lambda: _conversation(messages, None, root, probe, exists, lenient=True), where, line)


def parse_sample(
    sample: Any,
    *,
    where: str | None = None,
    line: int | None = None,
    root: str | os.PathLike[str] | None = None,
    probe: Probe | None = None,
    exists: Exists = os.path.isfile,
) -> Conversation:
    """A conversation from one sample: ``{"id": ..., "messages": [...]}``, nothing else."""
    return _guard(lambda: _sample(sample, root, probe, exists), where, line)


def parse_line(
    text: bytes | str,
    *,
    where: str | None = None,
    line: int | None = None,
    root: str | os.PathLike[str] | None = None,
    probe: Probe | None = None,
    exists: Exists = os.path.isfile,
) -> Conversation:
    """A conversation from one line of a sample file."""
    return _guard(lambda: _sample(_json(text), root, probe, exists), where, line)


def iter_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes]]:
    """``(line number from 1, line)`` of a sample file; blank lines are passed over.

    Lines end at a line feed and nowhere else: text may hold any other separator.
    """
    try:
        with open(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                if not raw.isspace() and raw != BOM:
                    yield number, raw
    except OSError as e:
        raise SampleError(_os_problem(e), file=os.fspath(path)) from e


def is_spread(line: bytes | str) -> bool:
    """Whether a first line shows that the file is one JSON document over many lines, not JSON Lines."""
    return line.strip() in ("[", "{", b"[", b"{")


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


def _guard(read: Callable[[], Conversation], where: str | None, line: int | None) -> Conversation:
    try:
        return read()
    except _Mistake as e:
        raise SampleError(e.problem, file=where, line=line, field=e.field or None) from None


def _json(text: bytes | str) -> Any:
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        return _DECODER.decode(text.removeprefix("\ufeff"))
    except UnicodeDecodeError as e:
        raise _Mistake(f"byte {e.start + 1} is not UTF-8: save the file as UTF-8") from None
    except json.JSONDecodeError as e:
        if is_spread(text):
            raise _Mistake(
                "is one JSON document over many lines: write one sample a line, without a list around"
            ) from None
        raise _Mistake(f"invalid JSON at column {e.colno} ({e.msg}): write one JSON object a line") from None
    except RecursionError:
        raise _Mistake("invalid JSON: nested too deep for a sample") from None
    except ValueError as e:
        raise _Mistake(f"invalid JSON: {e}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):  # json would keep the last and say nothing
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise _Mistake(f'key "{_name(twice)}" stands twice in one object: keep one')
    return made


def _constant(name: str) -> NoReturn:
    raise _Mistake(f"{name} is not a number: write a finite one")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def _os_problem(e: OSError) -> str:
    if isinstance(e, FileNotFoundError):
        return "no such file: check the path"
    if isinstance(e, IsADirectoryError):
        return "is a folder: name the .jsonl file in it"
    return f"cannot be read ({e.strerror or e})"


# ------------------------------------------------------------------------------------------------- samples, messages


def _sample(sample: Any, root: Any, probe: Probe | None, exists: Exists) -> Conversation:
    if not isinstance(sample, dict):
        raise _Mistake(f'a sample is an object {{"id": ..., "messages": [...]}}, this is {_kind(sample)}')
    if not sample.keys() <= {"id", "messages"}:
        _unknown(sample, ("id", "messages"), "a sample")
    if "messages" not in sample:
        raise _Mistake('a sample has "messages", this one has not')
    name = sample.get("id")
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if name is not None:
        name = _string(name, "id")
    return _conversation(sample["messages"], name, root, probe, exists, lenient=False)


def _conversation(
    messages: Any, name: str | None, root: Any, probe: Probe | None, exists: Exists, *, lenient: bool
) -> Conversation:
    if not isinstance(messages, list | tuple):
        raise _Mistake(f"must be a list of messages, this is {_kind(messages)}", "messages")
    if not messages:
        raise _Mistake("is empty: a conversation has at least one message", "messages")
    folder = os.fspath(root) if root is not None else ""
    parsed: list[Message] = []
    loose: list[tuple[int, int, str]] = []  # grounded parts to settle once the media are known: message, part, unit
    images: list[Image] = []
    clips = 0
    shown: list[tuple[int, int]] = []  # images and clips shown up to each message, itself included
    for m, message in enumerate(messages):
        try:
            role, parts, units = _message(message, m, parsed, folder, exists, lenient)
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
                problem = needs_problem(name_of_task, images=len(images), clips=clips, text=text, box=box)
                if problem:
                    raise _Mistake(problem, f"content[{task}].task")
        except _Mistake as e:
            raise e.inside(f"messages[{m}]") from None
        parsed.append(Message(role, tuple(parts)))
        shown.append((len(images), clips))
    for m, i, unit in loose:
        try:
            part = _settle(parsed[m].parts[i], unit, shown[m], shown[-1], images, probe)
        except _Mistake as e:
            raise e.inside(f"messages[{m}].content[{i}]") from None
        if part is not parsed[m].parts[i]:
            parts = list(parsed[m].parts)
            parts[i] = part
            parsed[m] = Message(parsed[m].role, tuple(parts))
    return Conversation(tuple(parsed), name)


def _message(
    message: Any, index: int, before: list[Message], folder: str, exists: Exists, lenient: bool
) -> tuple[Role, list[Part], dict[int, str]]:
    """Role, parts, and the unit of each box part by its place."""
    if lenient and isinstance(message, Message):
        message = {"role": message.role, "content": message.parts}
    if not isinstance(message, dict):
        raise _Mistake(f'a message is an object {{"role": ..., "content": ...}}, this is {_kind(message)}')
    if message.keys() != {"role", "content"}:
        _unknown(message, ("role", "content"), "a message")
        missing = next(k for k in ("role", "content") if k not in message)
        raise _Mistake(f'a message has "role" and "content", "{missing}" is missing')
    role, content = message["role"], message["content"]
    if role not in ROLES:
        hint = guess(role, ROLES) if isinstance(role, str) else ""
        raise _Mistake(f"{_show(role)} is no role: {hint}roles are system, user and assistant", "role")
    _check_turn(role, index, before)
    if isinstance(content, str):
        content = [Text(_string(content, "content"))]
    elif not isinstance(content, list | tuple):
        raise _Mistake(f"must be a string or a list of parts, this is {_kind(content)}", "content")
    if not content:
        raise _Mistake("is empty: a message has at least one part", "content")
    parts: list[Part] = []
    units: dict[int, str] = {}
    allowed, tasked, empty = _TYPES[role], False, True
    for i, raw in enumerate(content):
        try:
            known = type(raw) is Text or lenient and isinstance(raw, Part)
            part = raw if known else _part(raw, i, units, folder, exists, lenient)
            kind = type(part)
            if kind not in allowed:
                raise _Mistake(f"a {role} message holds {_list(PARTS[role])} parts, no {kind.__name__.lower()}", "type")
            if kind is Task:
                if tasked:
                    raise _Mistake("a message has at most one task: make two messages of it", "task")
                tasked = True
            empty = empty and kind is Text and not part.text  # type: ignore[union-attr]
        except _Mistake as e:
            raise e.inside(f"content[{i}]") from None
        parts.append(part)
    if empty and role != "assistant":
        raise _Mistake("holds no text: only an answer may be empty", "content")
    return role, parts, units


def _check_turn(role: Role, index: int, before: list[Message]) -> None:
    if role == "system":
        if index:
            raise _Mistake("the system message comes first, before all others", "role")
        return
    expected = "assistant" if before and before[-1].role == "user" else "user"
    if role != expected:
        after = f"after the {before[-1].role}'s" if before else "first"
        raise _Mistake(f"a message of the {expected} comes {after}: user and assistant take turns", "role")


# --------------------------------------------------------------------------------------------------------- parts


def _part(raw: Any, index: int, units: dict[int, str], folder: str, exists: Exists, lenient: bool) -> Part:
    if not isinstance(raw, dict):
        raise _Mistake(f'a part is an object {{"type": ...}}, this is {_kind(raw)}')
    kind = raw.get("type")
    if kind == "text":
        _keys(raw, "text", ("text",))
        return Text(_string(raw["text"], "text"))
    if kind == "task":
        return _task(raw)
    if kind == "box":
        _keys(raw, "box", ("boxes",))
        units[index] = unit = raw.get("unit", "fraction")
        if unit not in ("fraction", "pixel"):
            raise _Mistake(f'{_show(unit)} is no unit: "fraction" (the default) or "pixel"', "unit")
        return _box(raw)
    if kind == "words":
        _keys(raw, "words", ("words",))
        return _words(raw)
    if lenient:
        kind, raw = _foreign(raw)
    if kind == "image":
        _keys(raw, "image", ("image",))
        return Image(_media(raw["image"], "image", folder, exists, lenient))
    if kind == "audio":
        _keys(raw, "audio", ("audio",))
        return Audio(_media(raw["audio"], "audio", folder, exists, lenient))
    kinds = ("text", "image", "audio", "task", "box", "words")
    if kind is None:
        raise _Mistake(f'a part has a "type", this one has not: types are {_list(kinds)}')
    hint = guess(kind, kinds) if isinstance(kind, str) else ""
    raise _Mistake(f"{_show(kind)} is no type of part: {hint}types are {_list(kinds)}", "type")


def _task(raw: dict[str, Any]) -> Task:
    name = raw.get("task")
    if not isinstance(name, str) or name not in TASKS:
        if "task" not in raw:
            raise _Mistake('a task part has a "task" (its name), this one has not')
        hint = guess(name, tuple(TASKS)) if isinstance(name, str) else ""
        raise _Mistake(f"{_show(name)} is no task: {hint}tasks are {_list(tuple(TASKS))}", "task")
    allowed = TASKS[name].fields
    fields = {}
    for key, value in raw.items():
        if key in ("type", "task"):
            continue
        if key not in allowed:
            takes = f"it takes {_list(tuple(allowed))}" if allowed else "it takes none"
            raise _Mistake(
                f'task "{name}" has no field "{_name(key)}": {guess(str(key), tuple(allowed))}{takes}', _name(key)
            )
        problem = field_problem(allowed[key], value)
        if problem:
            raise _Mistake(f"{problem}, this is {_show(value)}", key)
        fields[key] = value
    return Task(name, fields)


def _box(raw: dict[str, Any]) -> Box:
    boxes = raw["boxes"]
    if not isinstance(boxes, list | tuple):
        raise _Mistake(f"must be a list of [left, top, right, bottom], this is {_kind(boxes)}", "boxes")
    made = []
    for i, box in enumerate(boxes):
        try:
            made.append(_corners(box))
        except _Mistake as e:
            raise e.inside(f"boxes[{i}]") from None
    label = raw.get("label")
    if label is not None:
        label = _string(label, "label")
    return Box(tuple(made), label, _index(raw.get("image"), "image"))


def _corners(box: Any) -> tuple[float, float, float, float]:
    if not isinstance(box, list | tuple) or len(box) != 4:
        raise _Mistake(f"a box is four numbers [left, top, right, bottom], this is {_show(box)}")
    left, top, right, bottom = corners = tuple([_number(x, "") for x in box])
    if right < left:
        raise _Mistake(f"right ({right:g}) is less than left ({left:g}): a box is [left, top, right, bottom]")
    if bottom < top:
        raise _Mistake(f"bottom ({bottom:g}) is less than top ({top:g}): a box is [left, top, right, bottom]")
    return cast(tuple[float, float, float, float], corners)


def _words(raw: dict[str, Any]) -> Words:
    words = raw["words"]
    if not isinstance(words, list | tuple):
        raise _Mistake(f"must be a list of words, this is {_kind(words)}", "words")
    made = []
    for i, word in enumerate(words):
        try:
            made.append(_word(word))
        except _Mistake as e:
            raise e.inside(f"words[{i}]") from None
    return Words(tuple(made), _index(raw.get("audio"), "audio"))


def _word(word: Any) -> Word:
    if not isinstance(word, dict):
        raise _Mistake(f'a word is {{"text": ..., "start": ..., "end": ...}}, this is {_kind(word)}')
    if word.keys() != _WORD:
        _unknown(word, ("text", "start", "end"), "a word")
        missing = next(k for k in ("text", "start", "end") if k not in word)
        raise _Mistake(f'a word has "text", "start" and "end", "{missing}" is missing')
    text = _string(word["text"], "text")
    if not text or text.isspace():
        raise _Mistake("is empty: a word has letters", "text")
    start, end = _number(word["start"], "start"), _number(word["end"], "end")
    if start < 0:
        raise _Mistake(f"starts before the clip ({start:g} s): times are seconds from the clip's start")
    if end < start:
        raise _Mistake(f"{_show(text)} ends ({end:g} s) before it starts ({start:g} s)")
    return Word(text, start, end)


def _media(value: Any, kind: str, folder: str, exists: Exists, lenient: bool) -> MediaSource:
    """A source as `weft.media` takes it: a path that was found, a data URL, or (programs only) what is in memory."""
    if lenient and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        if lenient and value is not None and not isinstance(value, bool | int | float | dict | list):
            return value
        if lenient and isinstance(value, list) and kind == "audio":
            raise _Mistake("sound in memory is a float array or (array, rate), this is a list", kind)
        raise _Mistake(f"must be a path or a data: URL, this is {_kind(value)}", kind)
    if value.startswith("data:"):
        if "," not in value:
            raise _Mistake("is a data: URL without data: write data:image/png;base64,...", kind)
        return value
    if lenient and value.startswith("file://"):
        value = value[len("file://") :]
    if value.startswith(("http://", "https://", "s3://", "gs://")):
        raise _Mistake(f"{_show(value)} is on the network: download it and give the file's path", kind)
    if not value:
        raise _Mistake("is an empty path: name a file", kind)
    _string(value, kind)
    path = os.path.join(folder, value) if folder else value
    if "\0" in path or not exists(path):
        if "\0" not in path and os.path.isdir(path):
            raise _Mistake(f"is a folder, not a file: {value!r}", kind)
        where = "" if os.path.isabs(value) else f" (paths start from {folder or 'the working directory'})"
        raise _Mistake(f"no such file: {value!r}{where}", kind)
    return path


def _foreign(raw: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Media parts as other APIs spell them, in weft's own spelling. Anything else comes back as it is."""
    kind = raw.get("type")
    if kind in ("image_url", "audio_url"):
        inner = raw.get(kind)
        url = inner.get("url") if isinstance(inner, dict) else inner
        if not isinstance(url, str) or raw.keys() != {"type", kind}:
            raise _Mistake(f'must be {{"url": ...}}, this is {_show(inner)}', str(kind))
        own = kind.removesuffix("_url")
        return own, {"type": own, own: url}
    if kind == "input_audio":
        inner = raw.get(kind)
        if not isinstance(inner, dict) or not isinstance(inner.get("data"), str) or raw.keys() != {"type", kind}:
            raise _Mistake('must be {"data": base64, "format": ...}, this is ' + _show(inner), "input_audio")
        data, form = inner["data"], inner.get("format", "wav")
        url = data if data.startswith("data:") else f"data:audio/{form};base64,{data}"
        return "audio", {"type": "audio", "audio": url}
    if kind in ("image", "audio") and kind not in raw:
        given = [k for k in ("url", "path", "base64") if k in raw]
        if len(given) == 1 and raw.keys() == {"type", given[0]}:
            value = raw[given[0]]
            if given[0] == "base64" and isinstance(value, str) and not value.startswith("data:"):
                value = f"data:{kind}/*;base64,{value}"
            return kind, {"type": kind, kind: value}
    if kind == "audio" and isinstance(raw.get("audio"), dict):
        clip = raw["audio"]
        if {"array", "sampling_rate"} <= clip.keys():
            return kind, {**raw, "audio": (clip["array"], int(clip["sampling_rate"]))}
    return kind, raw


# --------------------------------------------------------------------------------------- grounding against the media


def _settle(
    part: Part, unit: str, shown: tuple[int, int], total: tuple[int, int], images: list[Image], probe: Probe | None
) -> Part:
    """A grounded part with its image or clip found, and its boxes as fractions inside the image.

    Afterwards an index of None says that the whole conversation has exactly one image (or clip).
    """
    if isinstance(part, Words):
        index = _which(part.audio, shown[1], total[1], "audio", "clip")
        return part if index == part.audio else replace(part, audio=index)
    assert isinstance(part, Box)
    index = _which(part.image, shown[0], total[0], "image", "image")
    boxes = part.boxes
    if unit == "pixel" or any(min(b) < 0 or max(b) > 1 for b in boxes):
        boxes = _inside(boxes, unit, images[index or 0].source, probe)
    return part if index == part.image and boxes is part.boxes else Box(boxes, part.label, index)


def _which(index: int | None, shown: int, total: int, field: str, noun: str) -> int | None:
    if index is None:
        if shown == 0:
            raise _Mistake(f"there is no {noun} in this message or before it for it to be about")
        if shown > 1:
            raise _Mistake(f'say which of the {shown} {noun}s is meant: "{field}": 0 ... {shown - 1}', field)
        return None if total == 1 else 0
    if index >= shown:
        if index < total:
            raise _Mistake(f"{noun} {index} comes only later in the conversation", field)
        have = f"has {total} {noun}{'s' if total != 1 else ''}, counted from 0" if total else f"has no {noun}"
        raise _Mistake(f"there is no {noun} {index}: the conversation {have}", field)
    return index


def _inside(
    boxes: tuple[tuple[float, float, float, float], ...], unit: str, source: MediaSource, probe: Probe | None
) -> tuple[tuple[float, float, float, float], ...]:
    """Boxes as fractions, what sticks out by up to half a pixel clamped."""
    if probe is None:
        if unit == "pixel":
            raise _Mistake("boxes in pixels need the image's size: pass probe=weft.media.image_size", "unit")
        width = height = 0
    else:
        try:
            width, height = probe(source)
        except WeftError as e:
            raise _Mistake(f"the size of its image is needed, and cannot be read: {e}", "boxes") from None
    made = []
    for i, box in enumerate(boxes):
        out = []
        for value, side in zip(box, (width, height, width, height), strict=True):
            fraction = value / side if unit == "pixel" else value
            slack = 0.5 / side + 1e-9 if side else 1e-6  # without a size, no more than the error of a 32-bit float
            if not -slack <= fraction <= 1 + slack:
                raise _Mistake(_outside(box, unit, width, height), f"boxes[{i}]")
            out.append(min(max(fraction, 0.0), 1.0))
        made.append(cast(tuple[float, float, float, float], tuple(out)))
    return tuple(made)


def _outside(box: Sequence[float], unit: str, width: int, height: int) -> str:
    numbers = ", ".join(f"{x:g}" for x in box)
    size = f" of {width} x {height} pixels" if width else ""
    if unit == "pixel":
        return f"box [{numbers}] lies outside its image{size}"
    hint = '; if these are pixels, say "unit": "pixel"' if max(box) > 1.5 else ""
    return f"box [{numbers}] lies outside its image{size}: fractions go from 0 to 1{hint}"


# --------------------------------------------------------------------------------------------------- small checks


def _keys(raw: dict[str, Any], kind: str, needed: tuple[str, ...]) -> None:
    if not raw.keys() <= _KEYS[kind]:
        _unknown(raw, KEYS[kind], f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} part")
    for key in needed:
        if key not in raw:
            raise _Mistake(f'{"an" if kind[0] in "aeiou" else "a"} {kind} part has "{key}", this one has not')


def _unknown(raw: dict[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in raw:
        if key not in known:
            raise _Mistake(f"unknown key: {guess(str(key), known)}{what} has {_list(known)}", _name(key))


def _string(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise _Mistake(f"must be a string, this is {_kind(value)}", field)
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as e:
            raise _Mistake(
                f"holds half a character (U+{ord(value[e.start]):04X}) at {e.start}: repair it", field
            ) from None
    return value


def _number(value: Any, field: str) -> float:
    if type(value) is float and isfinite(value):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | Real):
        raise _Mistake(f"must be a number, this is {_kind(value)}", field)
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not isfinite(number):
        raise _Mistake(
            f"must be a finite number, this is {value:g}" if isinstance(value, float) else "too large", field
        )
    return number


def _index(value: Any, field: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _Mistake(f"must be a number counted from 0, this is {_show(value)}", field)
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")


def _show(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 80 else text[:77] + "..."


def _name(key: Any) -> str:
    """A key on one line, whatever it holds."""
    return _show(key)[1:-1] if isinstance(key, str) else _show(key)


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
