"""An expected answer beside the given one: what every metric reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from weft.conversation import Box, Conversation, Part, Text, WeftError, Word, Words
from weft.evaluation.scorers import BoxTuple
from weft.evaluation.text import normalized
from weft.media import audio_samples

CHAT = "chat"  # the task key of samples that name none
CAPTIONS = frozenset({"caption", "grounded_caption"})
SPOKEN = frozenset({"transcribe", "translate"})


def as_text(raw: str) -> tuple[Part, ...]:
    return (Text(raw),) if raw else ()


def as_words(raw: str) -> tuple[Part, ...]:
    return (Words(tuple(Word(word, 0.0, 0.0) for word in raw.split())),)


@dataclass(frozen=True)
class Pair:
    """A sample of ``task``, as it is scored.

    ``raw``, ``references``: the answer and all right ones as text, as they are written. ``read``: how such a text
    becomes parts. ``seconds``: how long the clips are, known where nothing is said in them. ``extra``: what a published
    metric needs besides.
    """

    task: str
    expected: tuple[Part, ...]
    given: tuple[Part, ...]
    language: str | None = None
    seconds: float | None = None
    raw: str = ""
    references: tuple[str, ...] = ()
    read: Callable[[str], tuple[Part, ...]] | None = None
    extra: Any = None

    @classmethod
    def of(cls, conversation: Conversation, given: tuple[Part, ...]) -> Pair:
        """``conversation`` ends with the expected answer; the task is that of the last user message."""
        assert conversation.answer is not None
        task = next((m.task for m in reversed(conversation.messages) if m.role == "user"), None)
        language = None if task is None else task.get("to") or task.get("language")
        pair = cls(task.name if task else CHAT, conversation.answer.parts, given, language)
        return replace(pair, seconds=clip_seconds(conversation)) if pair.silent else pair

    @property
    def texts(self) -> tuple[str, ...]:
        """All right answers as text."""
        return self.references or (answer_text(self.expected),)

    @property
    def wordless(self) -> bool:
        """Whether no word is expected: no rate over expected words can be had, nor may one enter a mean."""
        return not normalized(answer_text(self.expected), self.language)

    @property
    def silent(self) -> bool:
        """Whether words were asked for where nobody speaks."""
        return self.task in SPOKEN and self.wordless

    def said(self, raw: str) -> Pair:
        """The same with another answer; words without times where times are expected and nothing else is said."""
        read = self.read or (as_words if answer_words(self.expected) else as_text)
        return replace(self, raw=raw, given=read(raw))


def clip_seconds(conversation: Conversation) -> float | None:
    """How long all clips of a conversation are; None where there is none, or one cannot be read."""
    try:
        return sum(audio_samples(clip.source) for clip in conversation.audios) / 16000 or None
    except WeftError:
        return None


def answer_text(parts: Sequence[Part]) -> str:
    """The words of an answer: its text and its timed words, in order; boxes have none."""
    pieces = []
    for part in parts:
        if isinstance(part, Text):
            pieces.append(part.text.strip())
        elif isinstance(part, Words):
            pieces += [word.text for word in part.words]
    return " ".join(piece for piece in pieces if piece)


def answer_words(parts: Sequence[Part]) -> list[Word]:
    return [word for part in parts if isinstance(part, Words) for word in part.words]


def asks_boxes(expected: Sequence[Part]) -> bool:
    """Whether an expected answer says where something is, or with a list of no boxes that it is nowhere."""
    return any(isinstance(part, Box) for part in expected)


def answer_boxes(parts: Sequence[Part], image: int | None = None) -> list[BoxTuple]:
    """All boxes in order, or those on one image (a part that names none is on the first)."""
    return [b for p in parts if isinstance(p, Box) and (image is None or (p.image or 0) == image) for b in p.boxes]
