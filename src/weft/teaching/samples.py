"""Lessons that change the samples: clips that grow with the run, and questions about one picture asked together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from weft.conversation import Conversation, Image
from weft.data.augment import Augment
from weft.data.lengths import Lengths, slot_tokens
from weft.data.source import Source
from weft.media import Stored
from weft.models.processing import WeftProcessor

EASED_WORDS = 4  # while a run eases in, clips are cut to at most 1 word, growing to this and one more


@dataclass(frozen=True)
class Easing:
    """``augment`` over the first ``samples`` of a run: clips of single words, alone, grow to what it says."""

    augment: Augment
    samples: int

    def __call__(self, position: int) -> Augment:
        if position >= self.samples:
            return self.augment
        progress = position / self.samples
        cut, join = 1 - (1 - self.augment.cut) * progress, self.augment.join * progress
        return self.augment.model_copy(update={"cut": cut, "join": join, "cut_words": EASED_WORDS * progress})


class Conversing:
    """Samples that ask about one picture as one conversation about it, which costs the picture once."""

    def __init__(
        self, chance: float, source: Source, lengths: Lengths, processor: WeftProcessor, row_tokens: int
    ) -> None:
        """``chance`` of one more question, and again, in a row of so many tokens."""
        tokens = lengths.tokens
        self.chance, self.tokens_of, self.embedded_of, self.room = chance, tokens, lengths.embedded, row_tokens
        pictures: dict[str | Stored, list[int]] = {}
        for index in map(int, np.flatnonzero(tokens)):
            if (file := asked_picture(source[index])) is not None:
                pictures.setdefault(file, []).append(index)
        shared = {file: some for file, some in pictures.items() if len(some) > 1}
        self.others = {index: np.array(some) for some in shared.values() for index in some}
        self.added = {  # tokens that a sample adds to a conversation that has its picture
            index: int(tokens[index]) - slot_tokens(processor, "image", processor.image_tokens(file))
            for file, some in shared.items()
            for index in some
        }

    def draw(self, augment: Augment, index: int, rng: Callable[[int], np.random.Generator]) -> list[int] | None:
        """The sample, and those that come after it in one conversation."""
        if index not in self.others:
            return None
        found, drawn, total = [index], rng(3), int(self.tokens_of[index])
        others = self.others[index]
        for other in map(int, drawn.permutation(others[others != index])):
            total += self.added[other]
            if drawn.random() >= self.chance or total > self.room:
                break
            found.append(other)
        return found if len(found) > 1 else None

    def tokens(self, plan: list[int]) -> int:
        return int(self.tokens_of[plan[0]]) + sum(self.added[other] for other in plan[1:])

    def embedded(self, plan: list[int]) -> tuple[int, int]:
        images, sounds = self.embedded_of[plan].sum(0)
        return int(images), int(sounds)

    def make(self, plan: list[int], sample: Callable[[int], Conversation], wave: Any) -> Conversation:
        return self.join([sample(index) for index in plan])

    def join(self, conversations: Sequence[Conversation]) -> Conversation:
        first, *more = conversations
        turns = [m for conversation in more for m in conversation.messages]
        mute = tuple(replace(m, parts=tuple(p for p in m.parts if not isinstance(p, Image))) for m in turns)
        return replace(first, messages=(*first.messages, *mute))


def asked_picture(conversation: Conversation) -> str | Stored | None:
    """The picture that a sample asks one question about; None where it is of another kind."""
    if [m.role for m in conversation.messages] != ["user", "assistant"] or conversation.audios:
        return None
    sources = [image.source for image in conversation.images]
    if len(sources) != 1 or not isinstance(sources[0], (str, Path, Stored)):
        return None
    return sources[0] if isinstance(sources[0], Stored) else str(sources[0])
