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

from weft.conversation import TASKS, Audio, Conversation, Image, Message, Part, Task, Text, WeftError, Words
from weft.generation.reply import Options, Reply
from weft.media import load_audio

KEPT = 4096  # transcripts that are remembered, for the next turn brings all clips of those before
TRANSCRIBE = Task("transcribe")
TOKENS = 256  # of a window's transcript


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
        turns = self._turns(conversation) if conversation.messages[-1:] and conversation.answer is None else {}
        return {mark: one for mark, one in turns.items() if mark not in self._known}

    def learn(self, mark: bytes, reply: Reply) -> None:
        """Keeps the answer to one of `asks`. One that was cut says nothing, so that the sound itself is asked."""
        self._known[mark] = reply.text.strip() if reply.finished else ""

    def typed(self, conversation: Conversation) -> Typed:
        """The conversation with the words that are known in the place of clips. A clip that holds none stays, one that
        word times point into, and one that a later message's task is about."""
        pointed = {part.audio or 0 for part in conversation.parts() if isinstance(part, Words)}
        last = max((n for n, message in enumerate(conversation.messages) if _about_earlier(message)), default=0)
        messages: list[Message] = []
        numbers, kept, words = count(), [], ""
        for place, message in enumerate(conversation.messages):
            clip, words = spoken(message), ""
            of_message = [next(numbers) for part in message.parts if isinstance(part, Audio)]
            if clip is not None and of_message[0] not in pointed and place >= last:
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
        turns: dict[bytes, Conversation] = {}
        for conversation in (one for one in conversations if isinstance(one, Conversation)):
            with suppress(WeftError):
                turns |= self._turns(conversation)
        if not turns:
            return
        marks = [mark for mark in turns if mark not in self._known]
        for place, reply in model.replies([turns[mark] for mark in marks], Options(max_new_tokens=TOKENS), **size):
            if isinstance(reply, Reply):
                self.learn(marks[place], reply)
        self.trim(len(turns))

    def trim(self, wanted: int = 0) -> None:
        """Forgets what was asked for longest ago, but for so many that are wanted now."""
        while len(self._known) > max(KEPT, wanted):
            self._known.popitem(last=False)

    def _turns(self, conversation: Conversation) -> dict[bytes, Conversation]:
        """What each spoken turn is to be asked. Those that are known count as asked for now."""
        turns = {}
        for clip in filter(None, map(spoken, conversation.messages)):
            wave = self._wave(clip)
            turns[mark := _mark(wave)] = Conversation((Message("user", (Audio((wave, self._rate)), TRANSCRIBE)),))
            if mark in self._known:
                self._known.move_to_end(mark)
        return turns

    def _wave(self, clip: Audio) -> np.ndarray:
        return load_audio(clip.source, self._rate)


def spoken(message: Message) -> Audio | None:
    """The clip that a user's turn is, pictures aside; None for any other turn."""
    clips = [part for part in message.parts if isinstance(part, Audio)]
    others = [p for p in message.parts if not (_is_medium(p) or isinstance(p, Text) and not p.text.strip())]
    return clips[0] if message.role == "user" and len(clips) == 1 and not others else None


def _about_earlier(message: Message) -> bool:
    """Whether a message has a task of a sound that was there before it."""
    media = TASKS[message.task.name].media if message.task is not None else ()
    own = {"audio" if isinstance(part, Audio) else "image" for part in message.parts if _is_medium(part)}
    return "audio" in media and not own & set(media)


def _is_medium(part: Part) -> bool:
    return isinstance(part, Audio | Image)


def _pointing(part: Part, places: dict[int, int]) -> Part:
    """A part whose times are in another clip by number; the first where it says none."""
    if not isinstance(part, Words) or places.get(part.audio or 0, part.audio or 0) == (part.audio or 0):
        return part
    return replace(part, audio=places[part.audio or 0])


def _mark(wave: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(wave).data, digest_size=16).digest()
