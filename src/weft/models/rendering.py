"""The one renderer: pieces of a dialect to token ids, with loss flags, media spans and the piece each token came from.

Training samples, evaluation prompts and chat prompts are all made here, so they cannot differ.
Plain text is tokenised with special tokens switched off: what a user writes never becomes one, nor a media slot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from weft.conversation import WeftError
from weft.dialects import Dialect, Modality, Piece, Plain, Slot, Special

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# How many embeddings each window of a medium takes: (modality, index) -> one number a window (an image has one).
SlotSizes = Mapping[tuple[Modality, int], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Span:
    """Where the embeddings of one image or one window of a clip stand (start and end tokens not included)."""

    modality: Modality
    item: int  # counts images (clips) over the conversation
    start: int
    length: int
    window: int = 0


@dataclass(slots=True)
class Rendered:
    """Token ids of one conversation; ``loss`` and ``source`` have one entry a token."""

    ids: list[int] = field(default_factory=list)
    loss: list[bool] = field(default_factory=list)
    source: list[int] = field(default_factory=list)  # index into `pieces`
    spans: list[Span] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)  # joined as they were tokenised


class Renderer:
    """Tokenises the pieces of one dialect with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, dialect: Dialect) -> None:
        self.tokenizer, self.dialect = tokenizer, dialect
        self._ids: dict[str, int] = {}
        self._text: dict[str, list[int]] = {}

    def token_id(self, token: str) -> int:
        """The id of one special token; an error where the tokenizer has no such token."""
        if token not in self._ids:
            index: Any = self.tokenizer.convert_tokens_to_ids(token)
            if index is None or (index == self.tokenizer.unk_token_id and token != self.tokenizer.unk_token):
                raise WeftError(
                    f"the tokenizer has no token {token!r}, which the dialect {self.dialect.name} writes; "
                    "compose the model with this dialect, or choose another"
                )
            self._ids[token] = int(index)
        return self._ids[token]

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of tokens that a person is not shown: the dialect's and the tokenizer's own."""
        ours = self.dialect.special_tokens()
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset(i for i, token in added if token.special or token.content in ours)

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text: no special token is added or recognised in it."""
        if len(text) > 64:
            return self._encode(text)
        if text not in self._text:
            if len(self._text) > 4096:  # wordings and phrases come again and again; anything else need not stay
                self._text.clear()
            self._text[text] = self._encode(text)
        return self._text[text]

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def render(self, pieces: Sequence[Piece], sizes: SlotSizes) -> Rendered:
        out = Rendered(pieces=joined(pieces))
        for index, piece in enumerate(out.pieces):
            if isinstance(piece, Slot):
                ids, loss = self._slot(piece, sizes, out), False
            elif isinstance(piece, Special):
                ids, loss = [self.token_id(piece.token)], piece.loss and piece.learn
            else:
                ids, loss = self.encode_text(piece.text), piece.loss and piece.learn
            out.ids += ids
            out.loss += [loss] * len(ids)
            out.source += [index] * len(ids)
        return out

    def _slot(self, slot: Slot, sizes: SlotSizes, out: Rendered) -> list[int]:
        token, start, end = self.dialect.slot_tokens(slot.modality)
        ids: list[int] = []
        for window, length in enumerate(sizes[slot.modality, slot.index]):
            if start is not None:
                ids.append(self.token_id(start))
            out.spans.append(Span(slot.modality, slot.index, len(out.ids) + len(ids), length, window))
            ids += [self.token_id(token)] * length
            if end is not None:
                ids.append(self.token_id(end))
        return ids


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Plain neighbours with the same loss flag as one piece, unless the later one is to stand apart; none empty."""
    out: list[Piece] = []
    for piece in pieces:
        last = out[-1] if out else None
        if isinstance(piece, Plain):
            if not piece.text:
                continue
            if isinstance(last, Plain) and last.loss == piece.loss and not piece.apart:
                about = last.about if last.about == piece.about else None
                out[-1] = replace(last, text=last.text + piece.text, about=about)
                continue
        out.append(piece)
    return out
