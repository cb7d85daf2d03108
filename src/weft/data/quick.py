"""Sample lines as most are, read by a compiled decoder (msgspec): for commands that go over millions of them.

`QuickLines` gives a sample only where `parse_line` would give the same without a mistake; for all others, among them
boxes in pixels and ``data:`` URLs, it gives None, and they are read in the ordinary way. What it gives has the names of
`weft.conversation.types`: parts are told by the name of their class, as `data.counts` does.

While a sample is checked, what commands count of it is written down (`Facts`): going over it again would cost as much.
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


class Task(Struct, tag_field="type", tag="task", forbid_unknown_fields=True, gc=False, frozen=True):  # as a key
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


class Facts(Struct, gc=False):
    """What is counted of a sample; `data.counts.facts_of` makes those of one that was read in the ordinary way."""

    id: str | None
    messages: Any  # the sample's own
    answers: int = 0
    learned: int = 0  # of them
    ends_with_user: bool = False
    asked: Any = ()  # of each message of the user its task; None: it has none
    images: Any = ()  # the source of each, the place of its message and its own place in that
    clips: Any = ()  # likewise
    boxes: Any = ()  # how many, of each answer that has any
    words: Any = ()  # likewise
    ends: Any = ()  # of words with their times: which clip, the end of the last, and the two places
    thin: Any = ()  # two places and number of each box without area


_KINDS = {Text: "Text", Image: "Image", Audio: "Audio", Task: "Task", Box: "Box", Words: "Words"}
_ALLOWED = {role: frozenset(k for k, n in _KINDS.items() if n.lower() in names) for role, names in PARTS.items()}


class _Odd(Exception):
    """Not for this reader."""


class QuickLines:
    """Reads the lines of one file; ``root`` and ``exists`` as in `parse_line`."""

    def __init__(self, root: str, exists: Exists) -> None:
        self.root, self.exists = root, exists
        self.decode = msgspec.json.Decoder(Sample).decode
        self.paths: dict[str, str] = {}  # of media that were found

    def __call__(self, raw: bytes) -> Facts | None:
        try:
            sample = self.decode(raw)
            facts = Facts(str(sample.id) if isinstance(sample.id, int) else sample.id, sample.messages)
            # A key that stands twice is not seen by the decoder. A quotation mark inside of a string has a backslash.
            if self._check(facts) == raw.count(b'":') - (b"\\" in raw and raw.count(b'\\":')):
                return facts
        except (msgspec.DecodeError, _Odd, SampleError, UnicodeDecodeError, RecursionError):
            pass
        return None

    def _check(self, facts: Facts) -> int:
        """Finds the media, writes down what is counted, and counts the keys. Raises for whatever may be a mistake."""
        keys = 1 + (facts.id is not None)  # where it is null, there is a key too many
        expected, role, paths = "user", "", self.paths
        asked: list[Any] = []
        images: list[Any] = []
        clips: list[Any] = []
        grounded: list[tuple[int | UnsetType, int]] = []
        for place, message in enumerate(facts.messages):
            keys += 2
            role = message.role
            if message.learn is UNSET:
                message.learn = True
            else:
                keys += 1
            if role != expected and (place or role != "system"):
                raise _Odd
            expected = "assistant" if role == "user" else "user"
            parts = message.parts
            if type(parts) is str:
                if role == "assistant":
                    facts.answers += 1
                    facts.learned += message.learn
                elif not parts:
                    raise _Odd
                elif role == "user":
                    asked.append(None)
                message.parts = [Text(parts)]
                continue
            text = box = filled = False
            boxes = words = -1
            task: Any = None
            allowed = _ALLOWED[role]
            for at, part in enumerate(parts):
                kind = type(part)
                if kind not in allowed:
                    raise _Odd
                keys += 2
                if kind is Text:
                    filled = filled or bool(part.text)
                    text = text or bool(part.text) and not part.text.isspace()
                    continue
                filled = True
                if kind is Image:
                    part.source = paths.get(part.source) or self._path("image", part.source)
                    images.append((part.source, place, at))
                elif kind is Audio:
                    keys += part.transcript is not UNSET
                    part.source = paths.get(part.source) or self._path("audio", part.source)
                    clips.append((part.source, place, at))
                elif kind is Task:
                    if task is not None:
                        raise _Odd
                    parts[at] = task = _task(part)
                    keys += len(task.fields)
                elif kind is Box:
                    box = True
                    keys += (part.label is not UNSET) + (part.image is not UNSET)
                    grounded.append((part.image, len(images)))
                    for left, top, right, bottom in part.boxes:
                        if not (left < right and top < bottom):
                            raise _Odd
                    boxes = max(boxes, 0) + len(part.boxes)
                else:
                    count, last = len(part.words), 0.0
                    keys += (part.audio is not UNSET) + 3 * count
                    grounded.append((part.audio, len(clips)))
                    for word in part.words:
                        end = word.end
                        if end < word.start or word.text.isspace():
                            raise _Odd
                        if end > last:
                            last = end
                    words = max(words, 0) + count
                    if count:
                        facts.ends = (*facts.ends, (part.audio or 0, last, place, at))
            if role == "assistant":
                facts.answers += 1
                facts.learned += message.learn
                if boxes >= 0:
                    facts.boxes = (*facts.boxes, boxes)
                if words >= 0:
                    facts.words = (*facts.words, words)
                continue
            if not filled:
                raise _Odd
            if role == "user":
                asked.append(task)
            if task is not None and _lacking(task.name, bool(images), bool(clips), text, box):
                raise _Odd
        for index, shown in grounded:
            if shown != 1 if index is UNSET else index >= shown:
                raise _Odd
        facts.asked, facts.images, facts.clips, facts.ends_with_user = asked, images, clips, role != "assistant"
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
def _task(part: Task) -> types.Task:
    """The task itself. Raises `SampleError` for a field that it does not take, and for a wrong value."""
    fields = {key: value for key in FIELDS if (value := getattr(part, key)) is not UNSET}
    return read_task({"type": "task", "task": part.name, **fields})


@lru_cache
def _lacking(name: str, images: bool, clips: bool, text: bool, box: bool) -> str | None:
    return needs_problem(name, images=images, clips=clips, text=text, box=box)
