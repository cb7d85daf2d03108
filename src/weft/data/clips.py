"""Edits that change how long clips are: joining, cutting, speed, silence; word times follow.

They are drawn for the samples of a source from sample indices and clip lengths alone, as a `ClipPlan`; so a pack can be
planned before anything is decoded. The same numbers are drawn again when the sample is made. Time is edited only in
speech whose words are the answer (a note's pitch or an event's duration would change).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from weft.conversation import Audio, Conversation, Part, Task, Text, Word, Words
from weft.data.augment import Augment
from weft.data.clip_lengths import NOT_EDITABLE, SPEECH, clip_tokens, spoken_part
from weft.models.processing import WeftProcessor

SPACELESS = ("zh", "yue", "ja", "th", "lo", "my", "km")  # languages whose sentences are joined without a space
SHORTEST = 0.05  # seconds of the shortest piece that is cut out
FADE = 0.005  # seconds over which a cut clip fades in and out, so that the cut is no click to learn from
SEAM = 2  # tokens more that a clip's edge may take: a pause and its time


@dataclass(frozen=True, slots=True)
class Take:
    """One clip's way into a sample: so much silence, then its samples from ``start`` to ``stop``, so much faster."""

    index: int  # sample in its source
    start: int
    stop: int
    speed: float = 1.0
    silence: int = 0
    gain_db: float = 0.0
    words: tuple[int, int] | None = None  # first and last word of the run that is kept; None: the whole clip

    @property
    def samples(self) -> int:
        """Samples this take gives."""
        return self.silence + _stretched(self.stop - self.start, self.speed)


@dataclass(frozen=True, slots=True)
class ClipPlan:
    takes: tuple[Take, ...]
    tail: int = 0  # samples of silence at the end
    untimed: bool = False  # the answer's word times are dropped and the task asks for none

    @property
    def samples(self) -> int:
        return sum(t.samples for t in self.takes) + self.tail


def _stretched(length: int, speed: float) -> int:
    return length if speed == 1.0 else max(1, round(length / speed))


def draw_clip(
    augment: Augment,
    rng: np.random.Generator,
    index: int,
    points: Callable[[int], Sequence[int] | np.ndarray],
    partners: np.ndarray,
    rate: int,
) -> ClipPlan:
    """A plan for one sample.

    ``points`` gives the `cut_points` of a sample's clip, ``partners`` are the samples that may be joined with it.
    """

    def take(i: int) -> Take:
        speed = float(np.exp(rng.uniform(-1, 1) * np.log1p(augment.speed)))
        silence = round(rng.uniform(0, augment.pad_seconds) * rate) if rng.random() < 0.5 else 0
        gain = float(rng.uniform(-1, 1) * augment.gain_db)
        at, run = points(i), None
        first, count = 0, len(at) - 1
        last = count - 1
        if rng.random() < augment.cut and count > 1:
            first = int(rng.integers(count))
            last = int(rng.integers(first, count))
            if augment.cut_words is not None:  # a fraction is a chance of one more
                last = min(last, first + int(augment.cut_words + rng.random()))
            if at[last + 1] - at[first] >= SHORTEST * rate:
                run = first, last
        start, stop = (at[first], at[last + 1]) if run else (at[0], at[-1])
        return Take(i, int(start), int(stop), speed, silence, gain, run)

    takes = [take(index)]
    total = takes[0].samples
    while len(partners) and rng.random() < augment.join:
        other = take(int(partners[rng.integers(len(partners))]))
        if total + other.samples > augment.join_seconds * rate:
            break
        takes.append(other)
        total += other.samples
    tail = round(rng.uniform(0, augment.pad_seconds) * rate) if rng.random() < 0.5 else 0
    return ClipPlan(tuple(takes), tail, bool(rng.random() < augment.untimed))


def make_clip(
    plan: ClipPlan,
    rate: int,
    conversation_of: Callable[[int], Conversation],
    wave_of: Callable[[Conversation], np.ndarray],
) -> Conversation:
    """The sample of a plan: its first take's conversation with the joined clip (array, rate) and the joined answer."""
    waves: list[np.ndarray] = []
    words: list[Word] = []
    texts: list[str] = []
    timed = False
    at = 0
    for take in plan.takes:
        conversation = conversation_of(take.index)
        wave = wave_of(conversation)
        part = spoken_part(conversation)
        spoken = list(part.words) if isinstance(part, Words) else []
        if take.words and spoken:
            wave, spoken = cut_words(wave, spoken, rate, take)
        wave = stretch(wave, take.speed) * np.float32(10 ** (take.gain_db / 20))
        at += take.silence
        if isinstance(part, Words):
            timed = True
            words += [Word(w.text, w.start / take.speed + at / rate, w.end / take.speed + at / rate) for w in spoken]
        elif part is not None:
            texts.append(part.text)
        waves += [np.zeros(take.silence, np.float32), wave]
        at += len(wave)
    waves.append(np.zeros(plan.tail, np.float32))
    first = conversation_of(plan.takes[0].index)
    task = next((p for p in first.parts() if isinstance(p, Task)), None)
    language = (task.get("to") or task.get("language")) if task else None
    space = "" if language in SPACELESS else " "
    # Others than speech are asked for times in one wording.
    untimed = timed and plan.untimed and task is not None and task.name in SPEECH
    old = spoken_part(first)
    answer: Part | None = None
    if untimed:
        answer = Text(space.join(w.text for w in words))
    elif timed:
        answer = Words(tuple(words), 0)
    elif texts:
        spoken_texts = [t.strip() for t in texts if t.strip()]  # where nothing is said there is nothing to join
        answer = Text(space.join(spoken_texts) if len(texts) > 1 else texts[0])

    def change(part: Part) -> Part:
        if isinstance(part, Audio):
            return Audio((np.concatenate(waves), rate))
        if untimed and isinstance(part, Task):
            return replace(part, fields={**part.fields, "timestamps": False})
        return answer if part is old and answer is not None else part

    return first.changed(change)


def cut_words(wave: np.ndarray, words: list[Word], rate: int, take: Take) -> tuple[np.ndarray, list[Word]]:
    """The run of words that a take keeps, with the silence around it; word times from the new start."""
    first, last = take.words or (0, len(words) - 1)
    piece = wave[take.start : take.stop].copy()
    fade = min(int(FADE * rate), len(piece) // 2)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    if first > 0:
        piece[:fade] *= ramp
    if last < len(words) - 1:
        piece[len(piece) - fade :] *= ramp[::-1]
    begin, end = take.start / rate, len(piece) / rate  # a gap of nothing is cut up to half a sample beside it
    run = words[first : last + 1]
    return piece, [Word(w.text, max(w.start - begin, 0.0), min(w.end - begin, end)) for w in run]


def stretch(wave: np.ndarray, speed: float) -> np.ndarray:
    """The clip played ``speed`` times as fast (pitch moves too), by linear interpolation: plenty for training."""
    if speed == 1.0:
        return wave
    n = _stretched(len(wave), speed)
    return np.interp(np.arange(n) * (len(wave) / n), np.arange(len(wave)), wave).astype(np.float32)


class ClipEdits:
    """The edits of one source's clips. A sample that would not fit a row of ``row_tokens`` stays as it is."""

    def __init__(self, lengths: Any, processor: WeftProcessor, row_tokens: int) -> None:
        """``lengths``: with `clips`."""
        self.whole, self.lengths = lengths, lengths.clips
        self.processor, self.row_tokens = processor, row_tokens

    @cached_property
    def members(self) -> dict[int, np.ndarray]:
        return self.lengths.members(self.whole.tokens)  # type: ignore[no-any-return]

    def draw(self, augment: Augment, index: int, rng: Callable[[int], np.random.Generator]) -> ClipPlan | None:
        """How the clip of a sample is edited in time; None where it is not."""
        group = int(self.lengths.group[index])
        if not augment.edits or group == NOT_EDITABLE or not self.lengths.clip_samples[index]:
            return None
        partners = self.members.get(group, np.zeros(0, np.int64))
        rate = self.processor.sounds.section.sample_rate
        plan = draw_clip(augment, rng(0), index, self.lengths.cut_points, partners, rate)
        return plan if self.tokens(plan) <= self.row_tokens else self._whole(index)

    def tokens(self, plan: ClipPlan) -> int:
        """The most that a sample can take: where a clip meets silence or another one, and where words reach into a
        further window of the encoder, dialects write a little more."""
        first = plan.takes[0].index
        if plan == self._whole(first):
            return int(self.whole.tokens[first])
        tokens = clip_tokens(self.processor, plan.samples) + int(self.lengths.shared[first])
        tokens += SEAM * len(plan.takes) + len(self.processor.sounds.windows(plan.samples)) - 1
        return tokens + sum(
            self.lengths.answer_tokens(self.whole.tokens, take.index, take.words) for take in plan.takes
        )

    def embedded(self, plan: ClipPlan) -> tuple[int, int]:
        index = plan.takes[0].index
        images, sounds = map(int, self.whole.embedded[index])
        return images, sounds * self.tokens(plan) // int(self.whole.tokens[index])

    def make(
        self,
        plan: ClipPlan,
        conversation_of: Callable[[int], Conversation],
        wave_of: Callable[[Conversation], np.ndarray],
    ) -> Conversation:
        """The sample of a plan (`make_clip`)."""
        return make_clip(plan, self.processor.sounds.section.sample_rate, conversation_of, wave_of)

    def _whole(self, index: int) -> ClipPlan:
        return ClipPlan((Take(index, 0, int(self.lengths.clip_samples[index])),))
