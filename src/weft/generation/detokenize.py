"""Token ids to text, one by one, without ever showing half a character."""

from __future__ import annotations

from typing import Any

UNFINISHED = "\ufffd"  # what a tokenizer decodes an incomplete UTF-8 sequence to


class Detokenizer:
    """``push`` gives the text that an id completes; the texts joined are what decoding all ids at once gives.

    Ids are decoded together with those just before them, because tokenizers treat the first token of a text specially
    (a space is dropped there). Text that ends in an incomplete character is held back until it is complete or `flush`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # ids from here on are decoded again for context
        self._shown = 0  # ids before this have been shown

    def push(self, token: int) -> str:
        self._ids.append(token)
        new = self._new()
        return "" if new.endswith(UNFINISHED) else self._show(new)

    def flush(self) -> str:
        """What is held back, as far as it can be decoded."""
        return self._show(self._new())

    def _new(self) -> str:
        before = self._decode(self._ids[self._start : self._shown])
        return self._decode(self._ids[self._start :])[len(before) :]

    def _show(self, text: str) -> str:
        if text:
            self._start, self._shown = self._shown, len(self._ids)
        return text

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
