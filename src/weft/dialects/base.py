"""What a dialect is, and the pieces it writes.

A dialect turns a conversation into *pieces*: plain text, single special tokens and media slots, each with its loss
flag. Nothing a user wrote can become a special token, because plain text is tokenised with special tokens switched off.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from weft.conversation import Audio, Box, Conversation, Image, Message, Part, Task, Text, WeftError, Words
from weft.frozen import Frozen

Modality = Literal["image", "audio"]


class DialectError(WeftError):
    """A conversation that this dialect cannot write. The message says which dialects can."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A part of a medium: a box in an image, as fractions of its sides, or a stretch of a clip, in seconds."""

    modality: Modality
    index: int  # counts images (or clips) over the whole conversation
    extent: tuple[float, ...]  # left, top, right, bottom; or start, end


@dataclass(frozen=True, slots=True)
class Plain:
    """Text that is tokenised as text. Neighbours with the same loss flag are joined before tokenising.

    ``loss``: an answer's, which the model is to write; ``learn`` false: of a message that is not to be learned, so that
    its tokens have no loss flag, and are the same tokens.
    ``apart=True`` keeps a piece from being joined with the one before it (systems that tokenise parts separately).
    ``about`` is the spot in a medium that a piece tells of, for who teaches (`teaching.gaze`); no token depends on it.
    """

    text: str
    loss: bool = False
    apart: bool = False
    about: Spot | None = field(default=None, compare=False)
    learn: bool = True


@dataclass(frozen=True, slots=True)
class Special:
    """Exactly one token of the vocabulary, by its name."""

    token: str
    loss: bool = False
    about: Spot | None = field(default=None, compare=False)  # as in `Plain`
    learn: bool = True


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the embeddings of one image or clip go. ``index`` counts images (or clips) over the whole conversation."""

    modality: Modality
    index: int


Piece = Plain | Special | Slot


class Switches(Frozen):
    """The named switches of a dialect: its quirks, with the published behaviour as the default."""


class Dialect(ABC):
    """Writes conversations as pieces and parses generated text back into parts.

    One instance is made from its switches and holds no other state.
    """

    name: ClassVar[str]
    Switches: ClassVar[type[Frozen]] = Switches
    tasks: ClassVar[frozenset[str]]  # names of the tasks it can write
    # The token repeated over a media span, and those written before and after it (None where there is none).
    slots: ClassVar[Mapping[Modality, tuple[str, str | None, str | None]]]
    marks: ClassVar[frozenset[type[Part]]] = frozenset()  # what answers may hold beside text: Box, Words (with times)
    untimed: ClassVar[bool] = False  # it writes timed words where it has no times to write: as text
    apart_text: ClassVar[str] = ""  # what stands between separately tokenised neighbours when a prompt is one string

    def __init__(self, switches: Frozen | None = None) -> None:
        self.switches = switches or self.Switches()

    @abstractmethod
    def special_tokens(self) -> list[str]:
        """Every special token that `render` may write, besides media placeholders; the tokenizer must have them."""

    @property
    def modalities(self) -> frozenset[Modality]:
        return frozenset(self.slots)

    def slot_tokens(self, modality: Modality) -> tuple[str, str | None, str | None]:
        """What `slots` says; the start and end tokens belong to the span of each *window* of a long clip."""
        if modality not in self.slots:
            raise cannot(self, "an image" if modality == "image" else "a clip", modality=modality)
        return self.slots[modality]

    def edges(self, modality: Modality) -> list[str]:
        """The tokens before and after the embeddings of a picture or window; none where it takes no such medium."""
        return [token for token in self.slots.get(modality, ())[1:] if token is not None]

    def all_tokens(self, *modalities: Modality) -> list[str]:
        """Every special token of a model with these senses: what `render` writes, placeholders, and their edges."""
        media = (m for m in modalities if m in self.slots)
        return self.special_tokens() + [token for m in media for token in (self.slots[m][0], *self.edges(m))]

    @abstractmethod
    def stop_tokens(self) -> list[str]:
        """Tokens that end a generated answer."""

    def ordered_tokens(self) -> list[list[str]]:
        """Runs of special tokens that stand for a scale (times, coordinates), each from low to high.

        Neighbours on a scale should start with similar embeddings; whoever initialises them asks here.
        """
        return []

    def place_tokens(self, modality: Modality) -> list[list[str]]:
        """Tokens that name a place: those that divide an image's side, or a window's seconds (its end has a token too),
        evenly; then those that divide each such step again. None where the dialect has no such tokens."""
        return []

    def place(self, modality: Modality, value: float) -> list[str]:
        """The tokens that write one place, one of each scale of `place_tokens`: ``value`` is a fraction of an image's
        side, or seconds in a window of sound."""
        return []

    def marks_between(self, words: Words, conversation: Conversation) -> int | None:
        """Special tokens among the timed words that are all of a conversation's answer, where each word is tokenised by
        itself between them; None where they must be written to be counted."""
        return None

    @abstractmethod
    def write(self, conversation: Conversation, generate: bool) -> Iterator[list[Piece]]:
        """The pieces of each message in turn, what stands before it included; last, where the model is to go on, those
        that ask for an answer (none, or a list of their own).

        Loss flags are set on answers (and on tags that the model may have to write itself), learned or not.
        """

    def render(self, conversation: Conversation, *, generate: bool = False) -> list[Piece]:
        """The pieces of a conversation, in order.

        With ``generate`` the pieces end where the model is to go on (the conversation ends with a user message);
        without it they are a training sample, in which the loss flags mark what the model learns to write.
        """
        check(self, conversation)
        pieces: list[Piece] = []
        learned = [*_learned(conversation.messages, generate), False]
        for written, learn in zip(self.write(conversation, generate), learned, strict=False):
            pieces += [p if learn or isinstance(p, Slot) or not p.loss else replace(p, learn=False) for p in written]
        return pieces

    def parse(self, text: str, conversation: Conversation) -> list[Part]:
        """Parts of a generated answer; text alone where a dialect has no marks.

        ``text`` is decoded with special tokens kept and stop tokens removed; ``conversation`` is what was asked (its
        task, labels and clips resolve what the text leaves open). Malformed grounding stays text, never guessed at, and
        `malformed` names it.
        """
        return [Text(text.strip())] if text.strip() else []

    def malformed(self, text: str, conversation: Conversation) -> list[str]:
        """What in a generated answer looks like boxes or times and is none: its fragments, as they were written."""
        return []

    def chat_template(self) -> str | None:
        """A Jinja template of what it writes, for programs without weft; None where they are not promised one."""
        return None


class LlamaDialect(Dialect):
    """What is tokenised by Llama's SentencePiece model, which has two special tokens, and begins each text that is
    tokenised by itself with a dummy prefix."""

    apart_text = " "  # that prefix reads as a space

    def special_tokens(self) -> list[str]:
        return ["<s>", "</s>"]

    def stop_tokens(self) -> list[str]:
        return ["</s>"]


def _learned(messages: Sequence[Message], answer: bool) -> list[bool]:
    """Of each message whether it is learned. What a question has to learn, its tags, is learned with its answer.

    ``answer``: whether one follows the last message.
    """
    learned: list[bool] = []
    for message in reversed(messages):
        learned.append(message.learn and (answer or message.role != "user"))
        answer = message.learn and message.role == "assistant"
    return learned[::-1]


def cannot(
    dialect: Dialect,
    what: str,
    *,
    task: str | None = None,
    modality: Modality | None = None,
    mark: type[Part] | None = None,
) -> DialectError:
    """The error for something ``dialect`` has no form for; names the dialects that have the task, medium or mark."""
    from weft.dialects import DIALECTS  # the table's package begins with this file

    able = [
        name
        for name, other in DIALECTS.items()
        if name != dialect.name
        and (task or modality or mark)
        and (task is None or task in other.tasks)
        and (modality is None or modality in other.slots)
        and (mark is None or mark in other.marks)
    ]
    can = f"dialects that can: {', '.join(able)}" if able else "no dialect can"
    return DialectError(f"the dialect {dialect.name} cannot write {what}; {can}")


_MEDIA: dict[type[Part], Modality] = {Image: "image", Audio: "audio"}
_NAMES = {Image: "an image", Audio: "a clip", Task: "a task", Box: "a box", Words: "word times"}


def check(dialect: Dialect, conversation: Conversation) -> None:
    """Raise where a conversation holds what ``dialect`` has no form for, or turns out of order."""
    forms: dict[str, set[type[Part]]] = {
        "system": {Text},
        "user": {Text, Task, Image, Audio, *(dialect.marks & {Box})},
        "assistant": {Text, *dialect.marks} | ({Words} if dialect.untimed else set()),
    }
    for part in conversation.parts():
        if isinstance(part, Task) and part.name not in dialect.tasks:
            raise cannot(dialect, f"the task {part.name!r}", task=part.name)
    for i, message in enumerate(conversation.messages):
        if message.role == "system" and i:
            raise DialectError("a system message must be the first message of a conversation")
        for part in message.parts:
            kind = type(part)
            if kind in _MEDIA and _MEDIA[kind] not in dialect.slots:
                raise cannot(dialect, _NAMES[kind], modality=_MEDIA[kind])
            if kind not in forms[message.role]:
                if kind in (Box, Words) and kind not in dialect.marks:
                    raise cannot(dialect, _NAMES[kind], mark=kind)
                raise DialectError(
                    f"the dialect {dialect.name} has no place for {_NAMES[kind]} in a message of the {message.role}"
                )


def asked(conversation: Conversation) -> Message | None:
    """The user message that an answer replies to: the last one."""
    return next((m for m in reversed(conversation.messages) if m.role == "user"), None)


def asked_label(message: Message | None) -> str | None:
    """The phrase whose boxes a user message asks for, if it asks for any."""
    if message is None or message.task is None or message.task.name not in ("refer", "detection"):
        return None
    return message.text.strip() or None


def join_words(words: list[str]) -> str:
    """Words as a line of text: spaces between them, but none between Chinese or Japanese characters."""
    out = ""
    for word in words:
        out += word if not out or (_spaceless(out[-1]) and _spaceless(word[:1])) else " " + word
    return out


def _spaceless(char: str) -> bool:
    return any(low <= char <= high for low, high in (("\u3040", "\u30ff"), ("\u3400", "\u9fff"), ("\uf900", "\ufaff")))


def plain_text(parts: list[Part] | tuple[Part, ...]) -> str:
    """An answer as a person would read it: its text, words and labels."""
    out = ""
    for part in parts:
        if isinstance(part, Text):
            out += part.text
        elif isinstance(part, Words):
            out += (" " if out and not out[-1].isspace() else "") + join_words([w.text for w in part.words])
        elif isinstance(part, Box) and part.label:
            out += (" " if out and not out[-1].isspace() else "") + part.label
    return out.strip()
