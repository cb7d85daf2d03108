"""What packing must know of every sample before it is decoded; what edits of clips must know is in `clip_lengths`.

Measured once per file from text and media headers, and kept for the runs that follow (`kept_lengths`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from weft.conversation import Conversation, SampleError, WeftError
from weft.conversation.grounding import end_problem, last_words
from weft.data.source import Source
from weft.dialects import Modality
from weft.media import audio_samples
from weft.models.processing import WeftProcessor
from weft.named import Named

ADVICE = "correct it, or leave such samples out with --on-bad-sample skip"
MANY = 500_000  # samples of a source, from which on they are not all measured before
LARGE = Named[Any]({"along": "weft.data.lengths_along:LengthsAlong"})
Keep = Callable[[Source, WeftProcessor], Any]  # to what keeps the lengths of a source, as `kept_lengths.KeptLengths`
EDITED = Named[Any]({"clips": "weft.data.clip_lengths:Measured"})


@dataclass(frozen=True)
class Lengths:
    """Arrays over the samples of one source."""

    tokens: np.ndarray  # [n] int32, in training form; 0: left out (see `problems`)
    embedded: np.ndarray  # [n, 2] int32: embeddings of its pictures and of its sound
    problems: tuple[str, ...] = ()  # one sentence for each sample that is left out
    clips: Any = None  # `clip_lengths.ClipLengths`, where clips are to be edited in time

    @property
    def total(self) -> int:
        """Tokens of all samples."""
        return int(self.tokens.sum())


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
    edited: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Lengths:
    """The lengths of a source; a sample that breaks the format, or is longer than a row, is an error or is left out.

    ``edited``: with `clips`. ``keep``: those of an earlier call are taken where they still hold, and are kept for a
    later one (`kept_lengths`).
    """
    kept = keep(source, processor) if keep else None
    again = partial(measure_some, source, processor, "skip", edited)
    lengths = kept.read(edited, lambda which: again(which=which)[0]) if kept else None
    if lengths is None:
        samples, counting = kept.sooner if kept else (source, processor)
        lengths, media = measure_some(samples, counting, on_bad_sample, edited, progress)
        if kept:
            kept.write(lengths, media)
    if on_bad_sample == "fail" and lengths.problems:
        raise WeftError(f"{lengths.problems[0]}; {ADVICE}")
    long = np.flatnonzero(lengths.tokens > row_tokens)
    if len(long):
        told = [f"{source.where(int(i))}: {lengths.tokens[i]} tokens do not fit a row of {row_tokens}" for i in long]
        if on_bad_sample == "fail":
            worst = int(np.argmax(lengths.tokens[long]))
            raise WeftError(
                f"{told[worst]} ({len(long)} such samples in this file); raise row_tokens to "
                f"{lengths.tokens[long[worst]]} or more, or leave them out with --on-bad-sample skip"
            )
        tokens = np.where(lengths.tokens > row_tokens, 0, lengths.tokens)
        lengths = replace(lengths, tokens=tokens, problems=(*lengths.problems, *told))
    if not lengths.tokens.any():
        first = f" (the first: {lengths.problems[0]})" if lengths.problems else ""
        raise WeftError(f"{source.path}: every sample was left out{first}; nothing is left to train on")
    return lengths


def lengths_of(source: Source, processor: WeftProcessor, *, whole: bool, **asked: Any) -> Any:
    """What `measure` gives, where a source is small or all of it is needed (``whole``); else of each as it comes."""
    if whole or len(source) < MANY:
        return measure(source, processor, **asked)
    return LARGE["along"](source, processor, *(asked[name] for name in ("row_tokens", "on_bad_sample", "keep")))


def measure_some(
    source: Source,
    processor: WeftProcessor,
    on_bad_sample: str,
    edited: bool = False,
    progress: Callable[[int, int], None] | None = None,
    which: Sequence[int] | None = None,
) -> tuple[Lengths, list[str]]:
    """Of all samples or some, and the paths of their media."""
    which = range(len(source)) if which is None else which
    n = len(which)
    tokens, embedded = np.zeros(n, np.int32), np.zeros((n, 2), np.int32)
    clips = EDITED["clips"](n, processor) if edited else None
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
            if clips is not None and len(conversation.audios) == 1:
                clips.add(i, conversation)
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
    return Lengths(tokens, embedded, tuple(problems), clips and clips.lengths()), list(media)


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


def _check_times(conversation: Conversation, rate: int) -> None:
    for where, number, last in last_words(conversation):
        if problem := end_problem(last, audio_samples(conversation.audios[number].source, rate) / rate):
            raise WeftError(f"{where}: {problem}")
