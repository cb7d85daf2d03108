"""An answer that texts end too, as clients of a server ask for; they are not part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from weft.conversation import Part, Text
from weft.dialects.base import plain_text
from weft.generation.answer import Answer
from weft.generation.reply import Reply


class Until(Answer):
    """`ended` says when one of the texts ``until`` has come; ``given`` is what `Answer` is made of."""

    def __init__(self, until: Sequence[str], *given: Any) -> None:
        super().__init__(*given)
        self._until = [text for text in until if text]

    def finish(self) -> tuple[str, Reply]:
        rest, reply = super().finish()
        if self.ended and not self.stopped:  # by a text
            shown = tuple(_before(reply.parts, len(self._text.lstrip())))
            reply = replace(reply, text=self._text.strip(), parts=shown)
        return rest, reply

    def _new(self, last: bool) -> str:
        """What can be given now: no text that may yet become one of those that end the answer."""
        if not self._until:
            return super()._new(last)
        looked = max(0, self._given - max(map(len, self._until)))
        ends = [at for text in self._until if (at := self._text.find(text, looked)) >= 0]
        if ends:
            self._text, self.ended = self._text[: min(ends)], True
        end = len(self._text)
        if not (ends or last):
            longest = range(min(end, max(map(len, self._until)) - 1), 0, -1)
            end -= next((n for n in longest if any(t.startswith(self._text[-n:]) for t in self._until)), 0)
        new = self._text[self._given : end]
        self._given = max(self._given, end)
        return new


def _before(parts: Sequence[Part], length: int) -> list[Part]:
    """The parts within the first ``length`` characters of an answer's text, the last cut there if it is text."""
    kept: list[Part] = []
    for part in parts:
        room = length - len(plain_text(kept))
        if len(plain_text([*kept, part])) > length and isinstance(part, Text):
            part = Text(part.text[:room])
        if len(plain_text([*kept, part])) > length or isinstance(part, Text) and not part.text:
            break
        kept.append(part)
    return kept
