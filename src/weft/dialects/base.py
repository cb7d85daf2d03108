"""What a dialect is, and the pieces it writes.

A dialect turns a conversation into *pieces*: plain text, single special tokens and media slots, each with its loss flag.
Nothing a user wrote can become a special token, because plain text is tokenised with special tokens switched off.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from weft.conversation import Conversation, Part, WeftError

Modality = Literal["image", "audio"]


class DialectError(WeftError):
    """A conversation that this dialect cannot write. The message says which dialects can."""


@dataclass(frozen=True, slots=True)
class Plain:
    """Text that is tokenised as text. Neighbours with the same loss flag are joined before tokenising.

    ``apart=True`` keeps a piece from being joined with the one before it (systems that tokenise parts separately).
    """

    text: str
    loss: bool = False
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Special:
    """Exactly one token of the vocabulary, by its name."""

    token: str
    loss: bool = False


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the embeddings of one image or clip go. ``index`` counts images (or clips) over the whole conversation."""

    modality: Modality
    index: int


Piece = Plain | Special | Slot


class Switches(BaseModel):
    """The named switches of a dialect: its quirks, with the published behaviour as the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Dialect(ABC):
    """Writes conversations as pieces and parses generated text back into parts.

    One instance is made from its switches and holds no other state.
    """

    name: ClassVar[str]
    Switches: ClassVar[type[Switches]] = Switches

    def __init__(self, switches: Switches | None = None) -> None:
        self.switches = switches or self.Switches()

    @abstractmethod
    def special_tokens(self) -> list[str]:
        """Every special token that `render` may write, besides media placeholders; the tokenizer must have them."""

    @abstractmethod
    def slot_tokens(self, modality: Modality) -> tuple[str, str | None, str | None]:
        """The token repeated over a media span, and the tokens written before and after it (None where there is none).

        The start and end tokens belong to the span of each *window* of a long clip.
        """

    @abstractmethod
    def stop_tokens(self) -> list[str]:
        """Tokens that end a generated answer."""

    @abstractmethod
    def render(self, conversation: Conversation, *, generate: bool = False) -> list[Piece]:
        """The pieces of a conversation, in order.

        With ``generate`` the pieces end where the model is to go on (the conversation ends with a user message);
        without it they are a training sample, in which the loss flags mark what the model learns to write.
        """

    @abstractmethod
    def parse(self, text: str, conversation: Conversation) -> list[Part]:
        """Parts of a generated answer.

        ``text`` is decoded with special tokens kept and stop tokens removed; ``conversation`` is what was asked (its
        task, labels and clips resolve what the text leaves open). Malformed grounding stays in the text as it is.
        """
