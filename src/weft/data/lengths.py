"""What packing and augmentation must know of every sample before it is decoded: tokens, clip length, what joins what.

Measured once per file from text and media headers, and kept for the runs that follow (`kept_lengths`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from weft.conversation import Conversation, Message, SampleError, Text, WeftError, Words
from weft.conversation.grounding import end_problem, last_words
from weft.data.augment import cut_points, join_key, spoken_part
from weft.data.source import Source
from weft.dialects import Modality
from weft.media import audio_samples
from weft.models.processing import WeftProcessor
from weft.named import Named

ADVICE = "correct it, or leave such samples out with --on-bad-sample skip"
MANY = 500_000  # samples of a source, from which on they are not all measured before
LARGE = Named[Any]({"along": "weft.data.lengths_along:LengthsAlong"})
Keep = Callable[[Source, WeftProcessor], Any]  # to what keeps the lengths of a source, as `kept_lengths` does
NOT_EDITABLE, ALONE = -1, 0  # groups; from 1 on: samples that may be joined with each other


@dataclass(frozen=True)
class Lengths:
    """Arrays over the samples of one source."""

    tokens: np.ndarray  # [n] int32, in training form; 0: left out (see `problems`)
    clip_samples: np.ndarray  # [n] int64 at the model's sample rate, of the one clip; 0 where there is none or several
    clip_tokens: np.ndarray  # [n] int32 the clip takes of `tokens`
    group: np.ndarray  # [n] int32
    words: np.ndarray  # [n] int32: timed words of the answer that can be cut apart; 0 where there are none
    first_word: np.ndarray  # [n] int64: where the sample's words begin in the two that follow
    word_ends: np.ndarray  # [w] int64 of the clip's samples: where it can be cut behind a word
    word_tokens: np.ndarray  # [w] int32 of a word alone
    shared: np.ndarray  # [n] int32: tokens of the prompt, clip not counted, which joined samples have once
    embedded: np.ndarray  # [n, 2] int32: embeddings of its pictures and of its sound
    problems: tuple[str, ...] = ()  # one sentence for each sample that is left out

    def cut_points(self, index: int) -> np.ndarray:
        """Where a sample's clip begins, can be cut, and ends (`augment.cut_points`)."""
        first, count = int(self.first_word[index]), int(self.words[index])
        return np.append(0, self.word_ends[first : first + count] if count else self.clip_samples[index])

    def answer_tokens(self, index: int, words: tuple[int, int] | None) -> int:
        """Tokens that a sample's answer takes, or the run of it from the first to the last of ``words``."""
        own = int(self.tokens[index] - self.clip_tokens[index] - self.shared[index])
        if words is None:
            return own
        first, count = int(self.first_word[index]), int(self.words[index])
        tokens = self.word_tokens[first : first + count]
        kept = tokens[words[0] : words[1] + 1]
        rest = own - int(tokens.sum())  # times and what stands between words, of each word alike; or the prompt
        share = len(kept) / count if self.shared[index] else 1.0
        return int(kept.sum()) + math.ceil(max(rest, 0) * share)

    @property
    def total(self) -> int:
        """Tokens of all samples."""
        return int(self.tokens.sum())

    def members(self) -> dict[int, np.ndarray]:
        """Samples of each joinable group."""
        usable = (self.tokens > 0) & (self.group > ALONE)
        return {int(g): np.flatnonzero(usable & (self.group == g)) for g in np.unique(self.group[usable])}


def clip_tokens(processor: WeftProcessor, samples: int) -> int:
    """Tokens that a clip of ``samples`` takes, boundaries included."""
    return sum(slot_tokens(processor, "audio", w.tokens) for w in processor.sounds.windows(samples))


def slot_tokens(processor: WeftProcessor, modality: Modality, embeddings: int) -> int:
    """Tokens of a medium that is encoded as so many embeddings, boundaries included."""
    return embeddings + len(processor.dialect.edges(modality))


def measure(
    source: Source,
    processor: WeftProcessor,
    *,
    row_tokens: int,
    on_bad_sample: Literal["fail", "skip"] = "fail",
    keep: Keep | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Lengths:
    """The lengths of a source; a sample that breaks the format, or is longer than a row, is an error or is left out.

    ``keep``: those of an earlier call are taken where they still hold, and are kept for a later one (`kept_lengths`).
    """
    kept = keep(source, processor) if keep else None
    lengths = (
        kept.read(Lengths, lambda which: measure_some(source, processor, "skip", which=which)[0]) if kept else None
    )
    if lengths is None:
        lengths, media = measure_some(source, processor, on_bad_sample, progress)
        if kept:
            kept.write(lengths, media)
    if on_bad_sample == "fail" and lengths.problems:
        raise WeftError(f"{lengths.problems[0]}; {ADVICE}")
    long = np.flatnonzero(lengths.tokens > row_tokens)
    if len(long):
        worst = int(long[np.argmax(lengths.tokens[long])])
        if on_bad_sample == "fail":
            raise WeftError(
                f"{source.where(worst)}: {lengths.tokens[worst]} tokens do not fit a row of {row_tokens}"
                f" ({len(long)} such samples in this file); raise row_tokens to {lengths.tokens[worst]} or more,"
                " or leave them out with --on-bad-sample skip"
            )
        told = tuple(
            f"{source.where(int(i))}: {lengths.tokens[i]} tokens do not fit a row of {row_tokens}" for i in long
        )
        tokens = np.where(lengths.tokens > row_tokens, 0, lengths.tokens)
        lengths = replace(lengths, tokens=tokens, problems=(*lengths.problems, *told))
    if not lengths.tokens.any():
        first = f" (the first: {lengths.problems[0]})" if lengths.problems else ""
        raise WeftError(f"{source.path}: every sample was left out{first}; nothing is left to train on")
    return lengths


def lengths_of(
    source: Source,
    processor: WeftProcessor,
    *,
    row_tokens: int,
    on_bad_sample: Literal["fail", "skip"],
    keep: Keep | None,
    whole: bool,
    progress: Callable[[int, int], None] | None,
) -> Any:
    """The `Lengths` of a source where it is small, or the plan needs all of them (``whole``); else each as it comes."""
    if whole or len(source) < MANY:
        bad: Any = on_bad_sample
        return measure(source, processor, row_tokens=row_tokens, on_bad_sample=bad, keep=keep, progress=progress)
    return LARGE["along"](source, processor, row_tokens, on_bad_sample, keep)


def measure_some(
    source: Source,
    processor: WeftProcessor,
    on_bad_sample: str,
    progress: Callable[[int, int], None] | None = None,
    which: Sequence[int] | None = None,
) -> tuple[Lengths, list[str]]:
    """Of all samples or some, and the paths of their media."""
    which = range(len(source)) if which is None else which
    n = len(which)
    tokens, clips = np.zeros(n, np.int32), np.zeros(n, np.int64)
    in_clip, group = np.zeros(n, np.int32), np.full(n, NOT_EDITABLE, np.int32)
    words, shared, embedded = np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros((n, 2), np.int32)
    first_word, ends, word_tokens = np.zeros(n, np.int64), list[int](), list[int]()
    tokens_of = lru_cache(1 << 17)(lambda text: len(processor.tokenizer.encode(text, add_special_tokens=False)))
    groups: dict[str, tuple[int, int]] = {}
    problems: list[str] = []
    media: dict[str, None] = {}
    for i, index in enumerate(which):
        if progress and i % 1000 == 0:
            progress(i, n)
        try:
            conversation = source[index]
            media |= dict.fromkeys(media_of(conversation))
            if problem := nothing_to_learn(conversation):
                raise WeftError(problem)
            rendered = processor.render(conversation)
            tokens[i] = len(rendered.ids)
            for span in rendered.spans:
                embedded[i, int(span.modality == "audio")] += span.length
            if len(conversation.audios) == 1:
                spoken = spoken_part(conversation)
                clips[i], in_clip[i], group[i], shared[i] = _clip(conversation, processor, groups)
                timed = spoken.words if isinstance(spoken, Words) else ()
                points = cut_points(timed, int(clips[i]), processor.sounds.section.sample_rate)[1:]
                if 1 < len(points) == len(timed):
                    words[i], first_word[i] = len(points), len(ends)
                    ends += points
                    word_tokens += [tokens_of(word.text) for word in timed]
            if conversation.audios:
                _check_times(conversation, processor.sounds.section.sample_rate)
        except WeftError as error:
            if isinstance(error, SampleError) and error.file and error.line is None:
                raise  # it is about the whole file
            problem, where = str(error), source.where(index)
            if not (isinstance(error, SampleError) and error.line) and not problem.startswith(where):
                problem = f"{where}: {problem}"
            if on_bad_sample == "fail":
                raise WeftError(f"{problem}; {ADVICE}") from None
            problems.append(problem)
            tokens[i] = 0
    flat = np.array(ends, np.int64), np.array(word_tokens, np.int32)
    found = Lengths(tokens, clips, in_clip, group, words, first_word, *flat, shared, embedded, tuple(problems))
    return found, list(media)


def media_of(conversation: Conversation) -> list[str]:
    """Paths of its media."""
    named = [*(image.source for image in conversation.images), *(clip.source for clip in conversation.audios)]
    return [os.fspath(n) for n in named if isinstance(n, str | os.PathLike) and not str(n).startswith("data:")]


def nothing_to_learn(conversation: Conversation) -> str | None:
    """Why training has no use for a conversation, or None."""
    if conversation.learned:
        return None
    if any(m.role == "assistant" for m in conversation.messages):
        return 'there is nothing to learn: every answer says "learn": false'
    return "there is no answer (an assistant message) to learn from"


def _clip(
    conversation: Conversation, processor: WeftProcessor, groups: dict[str, tuple[int, int]]
) -> tuple[int, int, int, int]:
    samples = audio_samples(conversation.audios[0].source, processor.sounds.section.sample_rate)
    tokens = clip_tokens(processor, samples)
    key = join_key(conversation)
    group, shared = (NOT_EDITABLE if spoken_part(conversation) is None else ALONE), 0
    if key is not None:
        if key not in groups:
            groups[key] = len(groups) + 1, _prompt_tokens(conversation, processor, tokens)
        group, shared = groups[key]
    return samples, tokens, group, shared


def _check_times(conversation: Conversation, rate: int) -> None:
    for where, number, last in last_words(conversation):
        if problem := end_problem(last, audio_samples(conversation.audios[number].source, rate) / rate):
            raise WeftError(f"{where}: {problem}")


def _prompt_tokens(conversation: Conversation, processor: WeftProcessor, clip: int) -> int:
    """Tokens of a sample with nothing in its answer and no clip."""
    empty = Conversation((*conversation.prompt().messages, Message("assistant", (Text(""),))))
    try:
        return processor.length(empty) - clip
    except WeftError:
        return 0  # a dialect that cannot write it: rows are planned a little too empty
