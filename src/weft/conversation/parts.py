"""One part of a message: from the sample format, and from the spellings of media that other APIs use."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from weft.conversation.checks import Mistake, counted, key_name, kind_of, listed, number, show, string, unknown_key
from weft.conversation.tasks import TASKS, field_problem, guess
from weft.conversation.types import Audio, Box, Image, MediaSource, Part, Task, Text, Word, Words
from weft.named import Named

Exists = Callable[[str], bool]
Made = TypeVar("Made")

# Which parts a role may hold. Images and sound are only ever input; word times are only ever output.
PARTS: dict[str, tuple[str, ...]] = {
    "system": ("text",),
    "user": ("text", "image", "audio", "task", "box"),
    "assistant": ("text", "box", "words"),
}
KEYS: dict[str, tuple[str, ...]] = {
    "text": ("type", "text"),
    "image": ("type", "image"),
    "audio": ("type", "audio", "transcript"),
    "box": ("type", "boxes", "label", "image", "unit"),
    "words": ("type", "words", "audio"),
}
TYPES = {
    role: frozenset(kind for kind in (Text, Image, Audio, Task, Box, Words) if kind.__name__.lower() in names)
    for role, names in PARTS.items()
}
# Media parts as other APIs spell them, in weft's own spelling.
SPELLINGS = Named[Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]](
    {
        "image_url": "weft.conversation.spellings:address",
        "audio_url": "weft.conversation.spellings:address",
        "input_audio": "weft.conversation.spellings:sound",
        "image": "weft.conversation.spellings:medium",
        "audio": "weft.conversation.spellings:medium",
    }
)
_WORD = {"text", "start", "end"}
_KEYS = {kind: frozenset(keys) for kind, keys in KEYS.items()}


def read_part(raw: Any, index: int, units: dict[int, str], folder: str, exists: Exists, lenient: bool) -> Part:
    if not isinstance(raw, dict):
        raise Mistake(f'a part is an object {{"type": ...}}, this is {kind_of(raw)}')
    kind: Any = raw.get("type")
    if kind == "text":
        check_keys(raw, "text", ("text",))
        return Text(string(raw["text"], "text"))
    if kind == "task":
        return _task(_own_name(raw) if lenient else raw)
    if kind == "box":
        check_keys(raw, "box", ("boxes",))
        units[index] = unit = raw.get("unit", "fraction")
        if unit not in ("fraction", "pixel"):
            raise Mistake(f'{show(unit)} is no unit: "fraction" (the default) or "pixel"', "unit")
        return _box(raw)
    if kind == "words":
        check_keys(raw, "words", ("words",))
        return _words(raw)
    spelt = isinstance(kind, str) and kind in SPELLINGS.places
    if lenient and spelt and (kind not in KEYS or isinstance(raw.get(kind, {}), dict)):
        kind, raw = SPELLINGS[kind](raw)
    if kind in ("image", "audio"):
        check_keys(raw, kind, (kind,))
        medium = _media(raw[kind], kind, folder, exists, lenient)
        said = raw.get("transcript")  # OpenAI's name of it
        return Image(medium) if kind == "image" else Audio(medium, said if said is None else string(said, "transcript"))
    kinds = ("text", "image", "audio", "task", "box", "words")
    if kind is None:
        raise Mistake(f'a part has a "type", this one has not: types are {listed(kinds)}')
    hint = guess(kind, kinds) if isinstance(kind, str) else ""
    if kind in ("image_url", "input_audio", "audio_url", "input_image"):
        hint = "it is OpenAI's (weft data convert openai PATH -o samples.jsonl), "
    raise Mistake(f"{show(kind)} is no type of part: {hint}types are {listed(kinds)}", "type")


def _own_name(raw: dict[str, Any]) -> dict[str, Any]:
    """A task under the name that a published system gives it: MiniGPT-v2's identifiers are the names but for one."""
    return {**raw, "task": "grounded_caption"} if raw.get("task") == "grounding" else raw


def _task(raw: dict[str, Any]) -> Task:
    name = raw.get("task")
    if not isinstance(name, str) or name not in TASKS:
        if "task" not in raw:
            raise Mistake('a task part has a "task" (its name), this one has not')
        hint = guess(name, tuple(TASKS)) if isinstance(name, str) else ""
        raise Mistake(f"{show(name)} is no task: {hint}tasks are {listed(tuple(TASKS))}", "task")
    allowed = TASKS[name].fields
    fields = {}
    for key, value in raw.items():
        if key in ("type", "task"):
            continue
        if key not in allowed:
            takes = f"it takes {listed(tuple(allowed))}" if allowed else "it takes none"
            raise Mistake(
                f'task "{name}" has no field "{key_name(key)}": {guess(str(key), tuple(allowed))}{takes}', key_name(key)
            )
        problem = field_problem(allowed[key], value)
        if problem:
            raise Mistake(f"{problem}, this is {show(value)}", key)
        fields[key] = value
    return Task(name, fields)


def _box(raw: dict[str, Any]) -> Box:
    boxes = raw["boxes"]
    if not isinstance(boxes, list | tuple):
        raise Mistake(f"must be a list of [left, top, right, bottom], this is {kind_of(boxes)}", "boxes")
    made = _each(boxes, _corners, "boxes")
    label = raw.get("label")
    if label is not None:
        label = string(label, "label")
    return Box(made, label, counted(raw.get("image"), "image"))


def _each(items: Sequence[Any], read: Callable[[Any], Made], field: str) -> tuple[Made, ...]:
    """All items read; a mistake in one is named with its number."""
    made = []
    for i, item in enumerate(items):
        try:
            made.append(read(item))
        except Mistake as e:
            raise e.inside(f"{field}[{i}]") from None
    return tuple(made)


def _corners(box: Any) -> tuple[float, float, float, float]:
    if not isinstance(box, list | tuple) or len(box) != 4:
        raise Mistake(f"a box is four numbers [left, top, right, bottom], this is {show(box)}")
    left, top, right, bottom = corners = tuple([number(x, "") for x in box])
    if right < left:
        raise Mistake(f"right ({right:g}) is less than left ({left:g}): a box is [left, top, right, bottom]")
    if bottom < top:
        raise Mistake(f"bottom ({bottom:g}) is less than top ({top:g}): a box is [left, top, right, bottom]")
    return cast(tuple[float, float, float, float], corners)


def _words(raw: dict[str, Any]) -> Words:
    words = raw["words"]
    if not isinstance(words, list | tuple):
        raise Mistake(f"must be a list of words, this is {kind_of(words)}", "words")
    return Words(_each(words, _word, "words"), counted(raw.get("audio"), "audio"))


def _word(word: Any) -> Word:
    if not isinstance(word, dict):
        raise Mistake(f'a word is {{"text": ..., "start": ..., "end": ...}}, this is {kind_of(word)}')
    if word.keys() != _WORD:
        unknown_key(word, ("text", "start", "end"), "a word")
        missing = next(k for k in ("text", "start", "end") if k not in word)
        raise Mistake(f'a word has "text", "start" and "end", "{missing}" is missing')
    text = string(word["text"], "text")
    if not text or text.isspace():
        raise Mistake("is empty: a word has letters", "text")
    start, end = number(word["start"], "start"), number(word["end"], "end")
    if start < 0:
        raise Mistake(f"starts before the clip ({start:g} s): times are seconds from the clip's start")
    if end < start:
        raise Mistake(f"{show(text)} ends ({end:g} s) before it starts ({start:g} s)")
    return Word(text, start, end)


def _media(value: Any, kind: str, folder: str, exists: Exists, lenient: bool) -> MediaSource:
    """A source as `weft.media` takes it: a path that was found, a data URL, or (programs only) what is in memory."""
    if lenient and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        if lenient and value is not None and not isinstance(value, bool | int | float | dict | list):
            return value
        if lenient and isinstance(value, list) and kind == "audio":
            raise Mistake("sound in memory is a float array or (array, rate), this is a list", kind)
        raise Mistake(f"must be a path or a data: URL, this is {kind_of(value)}", kind)
    if value.startswith("data:"):
        if "," not in value:
            raise Mistake("is a data: URL without data: write data:image/png;base64,...", kind)
        return value
    if lenient and value.startswith("file://"):
        value = value[len("file://") :]
    if value.startswith(("http://", "https://", "s3://", "gs://")):
        raise Mistake(f"{show(value)} is on the network: download it and give the file's path", kind)
    if not value:
        raise Mistake("is an empty path: name a file", kind)
    string(value, kind)
    path = os.path.join(folder, value) if folder else value
    try:
        found = "\0" not in path and exists(path)
    except Mistake as e:
        raise e.inside(kind) from None
    if not found:
        if "\0" not in path and os.path.isdir(path):
            raise Mistake(f"is a folder, not a file: {value!r}", kind)
        where = "" if os.path.isabs(value) else f" (paths start from {folder or 'the working directory'})"
        raise Mistake(f"no such file: {value!r}{where}", kind)
    return path


def check_keys(raw: dict[str, Any], kind: str, needed: tuple[str, ...]) -> None:
    if not raw.keys() <= _KEYS[kind]:
        unknown_key(raw, KEYS[kind], f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} part")
    for key in needed:
        if key not in raw:
            raise Mistake(f'{"an" if kind[0] in "aeiou" else "a"} {kind} part has "{key}", this one has not')
