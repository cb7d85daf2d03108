"""What a conversation is made of.

Everything weft reads, renders, generates and scores is one of these values. They are plain, frozen and know nothing of
tokens, files or models. Units: boxes are ``(left, top, right, bottom)`` in fractions of the image as a person sees it
(EXIF orientation applied); times are seconds from the start of the clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]

# A path, a ``data:`` URL, encoded bytes, or something already decoded (a PIL image; a float array [samples] or a
# ``(array, rate)`` pair). ``weft.media`` is what reads them.
MediaSource = Any


@dataclass(frozen=True, slots=True)
class Text:
    """Words as a person writes them. Never parsed for special tokens."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    source: MediaSource


@dataclass(frozen=True, slots=True)
class Audio:
    """``transcript``: what is said in it, where that is known. Training may learn from it; no model is given it."""

    source: MediaSource
    transcript: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked for, apart from its wording. ``fields`` that a task takes: see ``tasks.TASKS``.

    ``language=None`` written explicitly asks the model to predict the language, so absence is told from None by
    ``fields`` itself.
    """

    name: str
    fields: dict[str, Any] = field(default_factory=dict)

    def get(self, key: str, default: Any = None) -> Any:
        return self.fields.get(key, default)


@dataclass(frozen=True, slots=True)
class Box:
    """Regions of one image. ``image`` counts from 0 over the whole conversation; None where only one is possible."""

    boxes: tuple[tuple[float, float, float, float], ...]
    label: str | None = None
    image: int | None = None


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Words:
    """Word times of one clip. ``audio`` counts from 0 over the whole conversation; None where only one is possible."""

    words: tuple[Word, ...]
    audio: int | None = None


Part = Text | Image | Audio | Task | Box | Words


@dataclass(frozen=True, slots=True)
class Message:
    """``learn`` false: the message is written as any other, and training learns no token of it."""

    role: Role
    parts: tuple[Part, ...]
    learn: bool = True

    @property
    def task(self) -> Task | None:
        """The task of a user message (at most one)."""
        return next((p for p in self.parts if isinstance(p, Task)), None)

    @property
    def text(self) -> str:
        """All text parts, joined by nothing."""
        return "".join(p.text for p in self.parts if isinstance(p, Text))


@dataclass(frozen=True, slots=True)
class Conversation:
    messages: tuple[Message, ...]
    id: str | None = None

    def parts(self) -> Iterator[Part]:
        for message in self.messages:
            yield from message.parts

    def changed(self, change: Callable[[Part], Part]) -> Conversation:
        """The conversation with ``change(part)`` in the place of each part."""
        return replace(self, messages=tuple(replace(m, parts=tuple(map(change, m.parts))) for m in self.messages))

    @property
    def images(self) -> tuple[Image, ...]:
        return tuple(p for p in self.parts() if isinstance(p, Image))

    @property
    def audios(self) -> tuple[Audio, ...]:
        return tuple(p for p in self.parts() if isinstance(p, Audio))

    def prompt(self) -> Conversation:
        """The conversation without a final assistant message: what is asked."""
        return self if self.answer is None else Conversation(self.messages[:-1], self.id)

    @property
    def learned(self) -> tuple[Message, ...]:
        """What training learns: the answers that do not say otherwise."""
        return tuple(m for m in self.messages if m.role == "assistant" and m.learn)

    @property
    def answer(self) -> Message | None:
        """The final assistant message, if there is one."""
        return self.messages[-1] if self.messages and self.messages[-1].role == "assistant" else None
