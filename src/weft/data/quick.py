"""Sample lines as most are, read by a compiled decoder (msgspec): for commands that go over millions of them.

`QuickLines` gives a sample only where `parse_line` would give the same without a mistake; for all others, among them
boxes in pixels and ``data:`` URLs, it gives None, and they are read in the ordinary way. What it gives has the names of
`weft.conversation.types`: parts are told by the name of their class, as `data.counts` does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from weft.conversation import SampleError, types
from weft.conversation.parts import PARTS, Exists, read_part
from weft.conversation.samples import read_task
from weft.conversation.tasks import needs_problem

Fraction = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Index = Annotated[int, Meta(ge=0)] | UnsetType
Name = Annotated[str, Meta(min_length=1)]


class _Part(Struct, tag_field="type", forbid_unknown_fields=True, gc=False):
    pass


class Text(_Part, tag="text"):
    text: str


class Image(_Part, tag="image"):
    source: Name = field(name="image")


class Audio(_Part, tag="audio"):
    source: Name = field(name="audio")
    transcript: str | UnsetType = UNSET


class Task(_Part, tag="task"):
    name: str = field(name="task")
    language: str | None | UnsetType = UNSET
    to: str | UnsetType = UNSET
    style: str | UnsetType = UNSET
    timestamps: bool | UnsetType = UNSET
    itn: bool | UnsetType = UNSET


FIELDS = Task.__struct_fields__[1:]


class Box(_Part, tag="box"):
    boxes: list[tuple[Fraction, Fraction, Fraction, Fraction]]
    label: str | UnsetType = UNSET
    image: Index = UNSET


class Word(Struct, forbid_unknown_fields=True, gc=False):
    text: Name
    start: Seconds
    end: Seconds


class Words(_Part, tag="words"):
    words: list[Word]
    audio: Index = UNSET


class Message(Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "user", "assistant"]
    parts: str | Annotated[list[Text | Image | Audio | Task | Box | Words], Meta(min_length=1)] = field(name="content")
    learn: bool | UnsetType = UNSET


class Sample(Struct, forbid_unknown_fields=True, gc=False):
    messages: Annotated[list[Message], Meta(min_length=1)]
    id: str | int | None = None


_ALLOWED = {role: frozenset(name.capitalize() for name in names) for role, names in PARTS.items()}


class _Odd(Exception):
    """Not for this reader."""


class QuickLines:
    """Reads the lines of one file; ``root`` and ``exists`` as in `parse_line`."""

    def __init__(self, root: str, exists: Exists) -> None:
        self.root, self.exists = root, exists
        self.decode = msgspec.json.Decoder(Sample).decode
        self.paths: dict[str, str] = {}  # of media that were found

    def __call__(self, raw: bytes) -> Sample | None:
        try:
            sample = self.decode(raw)
            # A key that stands twice is not seen by the decoder. A quotation mark inside of a string has a backslash.
            if self._check(sample) == raw.count(b'":') - (b"\\" in raw and raw.count(b'\\":')):
                return sample
        except (msgspec.DecodeError, _Odd, SampleError, UnicodeDecodeError, RecursionError):
            pass
        return None

    def _check(self, sample: Sample) -> int:
        """Finds the media, and counts the keys. Raises for whatever may be a mistake."""
        keys, images, clips = 1 + (sample.id is not None), 0, 0  # where it is null, there is a key too many
        if type(sample.id) is int:
            sample.id = str(sample.id)
        expected = "user"
        grounded: list[tuple[int | UnsetType, int]] = []
        for place, message in enumerate(sample.messages):
            keys += 2
            role = message.role
            if message.learn is UNSET:
                message.learn = True
            else:
                keys += 1
            if role != expected and (place or role != "system"):
                raise _Odd
            expected = "assistant" if role == "user" else "user"
            if type(message.parts) is str:
                if not message.parts and role != "assistant":
                    raise _Odd
                message.parts = [Text(message.parts)]
                continue
            text = box = filled = False
            task: Any = None
            part: Any
            allowed = _ALLOWED[role]
            for at, part in enumerate(message.parts):
                kind = type(part).__name__
                if kind not in allowed:
                    raise _Odd
                keys += 2
                filled = filled or kind != "Text" or bool(part.text)
                if kind == "Text":
                    text = text or bool(part.text) and not part.text.isspace()
                elif kind == "Image":
                    images += 1
                    part.source = self.paths.get(part.source) or self._path("image", part.source)
                elif kind == "Audio":
                    clips += 1
                    keys += part.transcript is not UNSET
                    part.source = self.paths.get(part.source) or self._path("audio", part.source)
                elif kind == "Task":
                    if task is not None:
                        raise _Odd
                    task = _task(part.name, part.language, part.to, part.style, part.timestamps, part.itn)
                    message.parts[at] = task  # type: ignore[index]
                    keys += len(task.fields)
                elif kind == "Box":
                    box = True
                    keys += (part.label is not UNSET) + (part.image is not UNSET)
                    grounded.append((part.image, images))
                    for left, top, right, bottom in part.boxes:
                        if not (left < right and top < bottom):
                            raise _Odd
                else:
                    keys += (part.audio is not UNSET) + 3 * len(part.words)
                    grounded.append((part.audio, clips))
                    for word in part.words:
                        if word.end < word.start or word.text.isspace():
                            raise _Odd
            if role != "assistant" and not filled:
                raise _Odd
            if task is not None and _lacking(task.name, images > 0, clips > 0, text, box):
                raise _Odd
        for index, shown in grounded:
            if shown != 1 if index is UNSET else index >= shown:
                raise _Odd
        return keys

    def _path(self, kind: str, name: str) -> str:
        if name.startswith("data:"):
            raise _Odd  # once, and megabytes long
        try:
            found: Any = read_part({"type": kind, kind: name}, 0, {}, self.root, self.exists, False)
        except Exception as mistake:
            raise _Odd from mistake
        self.paths[name] = found.source
        return str(found.source)


@lru_cache(1 << 12)
def _task(name: str, *values: Any) -> types.Task:
    """The task itself. Raises `SampleError` for a field that it does not take, and for a wrong value."""
    fields = {key: value for key, value in zip(FIELDS, values, strict=True) if value is not UNSET}
    return read_task({"type": "task", "task": name, **fields})


@lru_cache
def _lacking(name: str, images: bool, clips: bool, text: bool, box: bool) -> str | None:
    return needs_problem(name, images=images, clips=clips, text=text, box=box)
