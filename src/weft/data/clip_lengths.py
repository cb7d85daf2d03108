"""What edits of clips in time must know of samples before they are decoded.

How long clips are, where they can be cut, and which can be joined.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from weft.conversation import Audio, Conversation, Message, Part, Task, Text, WeftError, Word, Words
from weft.data.lengths import slot_tokens
from weft.media import audio_samples
from weft.models.processing import WeftProcessor

SPEECH = ("transcribe", "translate")
NOT_EDITABLE, ALONE = -1, 0  # groups; from 1 on: samples that may be joined with each other


@dataclass(frozen=True, eq=False)
class ClipLengths:
    """Arrays over the samples of one source; ``tokens`` are those of its `lengths.Lengths`."""

    clip_samples: np.ndarray  # [n] int64 at the model's sample rate, of the one clip; 0 where there is none or several
    clip_tokens: np.ndarray  # [n] int32 the clip takes of the tokens
    group: np.ndarray  # [n] int32
    words: np.ndarray  # [n] int32: timed words of the answer that can be cut apart; 0 where there are none
    first_word: np.ndarray  # [n] int64: where the sample's words begin in the two that follow
    word_ends: np.ndarray  # [w] int64 of the clip's samples: where it can be cut behind a word
    word_tokens: np.ndarray  # [w] int32 of a word alone
    shared: np.ndarray  # [n] int32: tokens of the prompt, clip not counted, which joined samples have once

    def cut_points(self, index: int) -> np.ndarray:
        """Where a sample's clip begins, can be cut, and ends (`augment.cut_points`)."""
        first, count = int(self.first_word[index]), int(self.words[index])
        return np.append(0, self.word_ends[first : first + count] if count else self.clip_samples[index])

    def answer_tokens(self, tokens: Any, index: int, words: tuple[int, int] | None) -> int:
        """Tokens that a sample's answer takes, or the run of it from the first to the last of ``words``."""
        own = int(tokens[index] - self.clip_tokens[index] - self.shared[index])
        if words is None:
            return own
        first, count = int(self.first_word[index]), int(self.words[index])
        each = self.word_tokens[first : first + count]
        kept = each[words[0] : words[1] + 1]
        rest = own - int(each.sum())  # times and what stands between words, of each word alike; or the prompt
        share = len(kept) / count if self.shared[index] else 1.0
        return int(kept.sum()) + math.ceil(max(rest, 0) * share)

    def members(self, tokens: Any) -> dict[int, np.ndarray]:
        """Samples of each joinable group."""
        usable = (tokens > 0) & (self.group > ALONE)
        return {int(g): np.flatnonzero(usable & (self.group == g)) for g in np.unique(self.group[usable])}


class Measured:
    """Of samples as they are measured (`lengths.measure_some`)."""

    def __init__(self, n: int, processor: WeftProcessor) -> None:
        self.processor, self.rate = processor, processor.sounds.section.sample_rate if processor.audio else 0
        self.clips, self.in_clip, self.group = np.zeros(n, np.int64), np.zeros(n, np.int32), np.full(n, NOT_EDITABLE)
        self.words, self.shared, self.first_word = np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n, np.int64)
        self.ends: list[int] = []
        self.word_tokens: list[int] = []
        self.groups: dict[str, tuple[int, int]] = {}
        self.tokens_of = lru_cache(1 << 17)(
            lambda text: len(processor.tokenizer.encode(text, add_special_tokens=False))
        )

    def add(self, i: int, conversation: Conversation) -> None:
        """Sample ``i``, which has one clip."""
        part, key = spoken_part(conversation), join_key(conversation)
        samples = audio_samples(conversation.audios[0].source, self.rate)
        tokens = clip_tokens(self.processor, samples)
        self.clips[i], self.in_clip[i], self.group[i] = samples, tokens, NOT_EDITABLE if part is None else ALONE
        if key is not None:
            if key not in self.groups:
                self.groups[key] = len(self.groups) + 1, _prompt_tokens(conversation, self.processor, tokens)
            self.group[i], self.shared[i] = self.groups[key]
        timed = part.words if isinstance(part, Words) else ()
        points = cut_points(timed, samples, self.rate)[1:]
        if 1 < len(points) == len(timed):
            self.words[i], self.first_word[i] = len(points), len(self.ends)
            self.ends += points
            self.word_tokens += [self.tokens_of(word.text) for word in timed]

    def lengths(self) -> ClipLengths:
        flat = np.array(self.ends, np.int64), np.array(self.word_tokens, np.int32)
        group = self.group.astype(np.int32)
        return ClipLengths(self.clips, self.in_clip, group, self.words, self.first_word, *flat, self.shared)


def clip_tokens(processor: WeftProcessor, samples: int) -> int:
    """Tokens that a clip of ``samples`` takes, boundaries included."""
    return sum(slot_tokens(processor, "audio", w.tokens) for w in processor.sounds.windows(samples))


def _prompt_tokens(conversation: Conversation, processor: WeftProcessor, clip: int) -> int:
    """Tokens of a sample with nothing in its answer and no clip."""
    empty = Conversation((*conversation.prompt().messages, Message("assistant", (Text(""),))))
    try:
        return processor.length(empty) - clip
    except WeftError:
        return 0  # a dialect that cannot write it: rows are planned a little too empty


def spoken_part(conversation: Conversation) -> Words | Text | None:
    """What a change of the clip changes in the answer; None where there is more to it, and the clip must stay as it is.

    That is the only answer about the only clip, where it is nothing but timed words, or transcribes the clip.
    """
    answers = [m for m in conversation.messages if m.role == "assistant"]
    if len(conversation.audios) != 1 or conversation.images or len(answers) != 1 or conversation.answer is None:
        return None
    timed = [p for p in conversation.parts() if isinstance(p, Words)]
    parts = conversation.answer.parts
    if timed:
        return timed[0] if len(parts) == 1 and parts[0] is timed[0] and len(timed) == 1 else None
    asked = any(isinstance(p, Task) and p.name in SPEECH for p in conversation.parts())
    return parts[0] if asked and len(parts) == 1 and isinstance(parts[0], Text) else None


def join_key(conversation: Conversation) -> str | None:
    """What two samples must share to become one: the whole prompt but the clip, the kind of answer, what is learned."""
    part, answer = spoken_part(conversation), conversation.answer
    if part is None or answer is None or len(answer.parts) != 1:
        return None
    prompt = [(m.role, m.learn, [_key(p) for p in m.parts]) for m in conversation.prompt().messages]
    return json.dumps([prompt, type(part).__name__, answer.learn], sort_keys=True, default=str)


def _key(part: Part) -> Any:
    if isinstance(part, Task):
        return ["task", part.name, part.fields]
    return "audio" if isinstance(part, Audio) else ["text", getattr(part, "text", "")]


def cut_points(words: Sequence[Word], samples: int, rate: int) -> list[int]:
    """Where a clip begins, can be cut between its words, and ends: [n + 1], in samples.

    Cuts are in the middle of gaps. Words that overlap leave no clean one: then [2], the clip as a whole.
    """
    points = [0, *(round((a.end + b.start) / 2 * rate) for a, b in pairwise(words)), samples]
    clean = all(a.end <= b.start for a, b in pairwise(words)) and all(a <= b for a, b in pairwise(points))
    return points if clean else [0, samples]
