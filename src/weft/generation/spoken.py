"""A turn that is spoken is asked as if it were typed: the model writes down what it hears, then answers that.

A language model that learned to hear from a few thousand clips writes speech down far better than it talks about it,
and to its own text it answers as it always did (SpeechGPT's chain of modality, https://arxiv.org/abs/2305.11000,
without the training). The dialect's switch ``spoken`` asks for it. A turn is spoken where it is one clip and no more,
pictures aside: a task, or words beside the clip, say what is to be done with it as it sounds.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np

from weft.conversation import Audio, Conversation, Image, Message, Part, Task, Text, WeftError, Words
from weft.generation.reply import Options, Reply
from weft.media import load_audio

KEPT = 1024  # transcripts that are remembered, for the next turn brings all clips of those before


@dataclass(frozen=True)
class Typed:
    """A conversation as it is asked; the ``words`` of its last turn, if they were spoken; and which clips are ``kept``,
    by their numbers as they were."""

    conversation: Conversation
    words: str = ""
    kept: tuple[int, ...] = ()

    def told(self, reply: Reply) -> Reply:
        """The reply as of the conversation as it was: with what was heard, and its times in the clips they are of."""
        places = dict(enumerate(self.kept))
        parts = tuple(_pointing(part, places) for part in reply.parts)
        return replace(reply, parts=parts, heard=self.words)


class Written:
    """What a model has written down of clips that were turns of their own. ``rate``: of its sound, in Hz."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._known: OrderedDict[bytes, str] = OrderedDict()

    def asks(self, conversation: Conversation) -> dict[bytes, Conversation]:
        """What has to be asked before the conversation: the words of each clip that are not known yet."""
        asked = {}
        for message in conversation.messages:
            if (clip := spoken(message)) is None:
                continue
            wave = self._wave(clip)
            if (mark := _mark(wave)) not in self._known:
                heard = Message("user", (Audio((wave, self._rate)), Task("transcribe")))
                asked[mark] = Conversation((heard,))
        return asked

    def learn(self, mark: bytes, reply: Reply) -> None:
        """Keeps the answer to one of `asks`; one that was broken off is the beginning of what is said."""
        self._known[mark] = reply.text.strip()
        while len(self._known) > KEPT:
            self._known.popitem(last=False)

    def typed(self, conversation: Conversation) -> Typed:
        """The conversation with the words that are known in the place of clips. A clip that holds none stays, and one
        that word times point into."""
        pointed = {part.audio for part in conversation.parts() if isinstance(part, Words)}
        messages: list[Message] = []
        numbers, kept, words = count(), [], ""
        for message in conversation.messages:
            clip, words = spoken(message), ""
            of_message = [next(numbers) for part in message.parts if isinstance(part, Audio)]
            if clip is not None and of_message[0] not in pointed:
                words = self._known.get(_mark(self._wave(clip)), "")
            if words:
                message = replace(message, parts=tuple(Text(words) if part is clip else part for part in message.parts))
            else:
                kept += of_message
            messages.append(message)
        places = {old: new for new, old in enumerate(kept)}
        asked = replace(conversation, messages=tuple(messages))
        return Typed(asked.changed(lambda part: _pointing(part, places)), words, tuple(kept))

    def first(self, model: Any, conversations: Sequence[Conversation | WeftError], **size: int) -> None:
        """Writes down what is spoken in conversations, together. What is wrong with one is said where it is asked."""
        asked: dict[bytes, Conversation] = {}
        for conversation in (one for one in conversations if isinstance(one, Conversation)):
            with suppress(WeftError):
                asked |= self.asks(conversation)
        marks = list(asked)
        for place, reply in model.replies(asked.values(), Options(), **size) if asked else ():
            if isinstance(reply, Reply):
                self.learn(marks[place], reply)

    def _wave(self, clip: Audio) -> np.ndarray:
        return load_audio(clip.source, self._rate)


def spoken(message: Message) -> Audio | None:
    """The clip that a user's turn is, pictures aside; None for any other turn."""
    clips = [part for part in message.parts if isinstance(part, Audio)]
    others = [part for part in message.parts if not isinstance(part, Audio | Image)]
    return clips[0] if message.role == "user" and len(clips) == 1 and not others else None


def _pointing(part: Part, places: dict[int, int]) -> Part:
    """A part whose times are in another clip by number."""
    return replace(part, audio=places[part.audio]) if isinstance(part, Words) and part.audio in places else part


def _mark(wave: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(wave).data, digest_size=16).digest()
