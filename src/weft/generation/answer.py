"""Generated ids to an answer, as they come: the text for a person, then the reply with its parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from weft.conversation import Conversation
from weft.dialects.base import join_words
from weft.generation.detokenize import Detokenizer
from weft.generation.reply import Reply


class Answer:
    """The answer to one prompt. `push` takes an id and gives the text that it completes; the texts joined, with what
    `finish` gives, read as ``reply.text`` does.

    Special tokens are not shown, and a character is held back until all its bytes are there. ``windows``: of its
    longest clip, for the reply.
    """

    def __init__(self, processor: Any, stop: frozenset[int], conversation: Conversation, windows: int) -> None:
        self.ids: list[int] = []
        self.ended = False
        self._processor, self._stop, self._conversation, self._windows = processor, stop, conversation, windows
        self._detokenizer = Detokenizer(processor.tokenizer)
        self._marked = False  # from the first box or word on, text is what the parts so far read as
        self._text, self._given = "", 0  # all that can be read so far, and how much of it was given

    def push(self, token: int) -> str:
        self.ids.append(token)
        if token in self._stop:
            self.ended = True
            return ""
        self._marked = self._marked or token in self._processor.renderer.special_ids
        if self._marked:
            self._text += _beyond(self._text, self._processor.settled(self.ids, self._conversation))
        else:
            self._text += self._detokenizer.push(token)
        return self._new(last=False)

    def take(self, ids: Sequence[int]) -> None:
        """All ids at once, of an answer that nobody reads as it comes."""
        self.ids = list(ids)
        self.ended = self.ended or bool(ids) and ids[-1] in self._stop

    @property
    def stopped(self) -> bool:
        """Whether its last token is one that ends answers."""
        return bool(self.ids) and self.ids[-1] in self._stop

    def finish(self) -> tuple[str, Reply]:
        """The text that is left, and the reply."""
        ids = self.ids[:-1] if self.stopped else self.ids
        raw, text, parts = self._processor.parse_reply(ids, self._conversation)
        if self.stopped or not self.ended:
            self._text += _beyond(self._text, text) if self._marked else self._detokenizer.flush()
        rest = self._new(last=True)
        malformed = self._processor.dialect.malformed(raw, self._conversation)
        return rest, Reply(text, raw, tuple(parts), len(self.ids), self.ended, self._windows, tuple(malformed))

    def _new(self, last: bool) -> str:
        """What can be given now."""
        self._given, new = len(self._text), self._text[self._given :]
        return new


class Windows:
    """The texts of a long clip's windows as they come, put together as `windows.merge` does it."""

    def __init__(self) -> None:
        self._last = ""  # character that was written
        self.turn()

    def turn(self) -> None:
        """The next window begins."""
        self._held, self._begun = "", False  # space that is written when something follows it in this window

    def push(self, delta: str) -> str:
        text = self._held + delta if self._begun else delta.lstrip()
        body = text.rstrip()
        self._held = text[len(body) :]
        if not body:
            return ""
        shown = body if self._begun or not self._last else join_words([self._last, body])[1:]
        self._last, self._begun = body[-1], True
        return shown


def _beyond(sent: str, text: str) -> str:
    """What of ``text`` follows what was sent of it already; nothing where it reads otherwise by now."""
    known = sent.lstrip()
    return text[len(known) :] if text.startswith(known) else ""
