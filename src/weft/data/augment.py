"""Random changes to training media, with boxes and word times following.

What changes a clip's length (joining, cutting, speed, silence) is drawn first, from sample indices and clip lengths
alone, as a `ClipPlan`; so a pack can be planned before anything is decoded. The same numbers are drawn again when the
sample is made: every random number is a function of (seed, position), and there is no global state.

Changes keep the meaning. Time is edited only in speech whose words are the answer (a note's pitch or an event's
duration would change). A crop never cuts a box; a picture asked about without boxes is only made smaller on a plain
ground, so that all that can be counted stays in view. Left-right flips are for who asks for them, and skip samples
whose text says left or right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image as PILImage
from PIL import ImageEnhance
from pydantic import Field

from weft.conversation import Audio, Box, Conversation, Image, Part, Task, Text, Word, Words
from weft.frozen import Frozen

SPEECH = ("transcribe", "translate")
SPACELESS = ("zh", "yue", "ja", "th", "lo", "my", "km")  # languages whose sentences are joined without a space
SIDES = re.compile(r"\b(left|right|west|east)", re.IGNORECASE)
Corners = tuple[float, float, float, float]
Move = Callable[[Corners], Corners]
SHORTEST = 0.05  # seconds of the shortest piece that is cut out
FADE = 0.005  # seconds over which a cut clip fades in and out, so that the cut is no click to learn from


class Augment(Frozen):
    """Random changes to training media; boxes and word times follow. All off by default."""

    gain_db: float = Field(0.0, ge=0)  # uniform in +-; of the whole clip, and of each of the clips joined in it
    noise_db: tuple[float, float] | None = None  # signal-to-noise range of the noise added to half of the clips
    speed: float = Field(0.0, ge=0, lt=1)  # resampling factor between 1 / (1 + speed) and 1 + speed; times follow
    pad_seconds: float = Field(0.0, ge=0)  # up to this much silence before a clip, and after it, half of the time
    cut: float = Field(0.0, ge=0, le=1)  # chance that a clip with word times is cut to a random run of its words
    cut_words: float | None = Field(None, ge=0)  # such a run has at most so many words beside its first; None: any
    join: float = Field(0.0, ge=0, lt=1)  # chance of joining a clip with another of the same prompt, and again
    join_seconds: float = Field(10.0, gt=0)  # no joined clip is longer than this
    untimed: float = Field(0.0, ge=0, le=1)  # chance that a transcript with word times is asked for without them
    time_masks: int = Field(0, ge=0)  # SpecAugment, on half of the clips: at most so many stretches of time
    time_mask_frames: int = Field(0, ge=0)  # at most this long, and at most a quarter of the clip
    freq_masks: int = Field(0, ge=0)
    freq_mask_bands: int = Field(0, ge=0)
    color: float = Field(0.0, ge=0, lt=1)  # brightness, contrast and saturation factors in 1 +- color
    shift: float = Field(0.0, ge=0, le=1)  # translation in fractions of the image
    scale: float = Field(0.0, ge=0, le=2)  # zoom factor between 1 / (1 + scale) and 1 + scale
    flip: bool = False  # left-right, half of the time; never where text says left or right, or a clip might


# By the encoder that is given something else each time.
RANDOM = {
    "audio": ("gain_db", "noise_db", "speed", "pad_seconds", "cut", "join", "time_masks", "freq_masks"),
    "vision": ("color", "shift", "scale", "flip"),
}


def changed_at_random(augment: Augment | Callable[[int], Augment], part: str) -> list[str]:
    """The settings that change what an encoder is given; ``part`` is "vision" or "audio"."""
    if not isinstance(augment, Augment):
        return ["changes that grow"]
    return [name for name in RANDOM[part] if getattr(augment, name)]


# ------------------------------------------------------------------------------------------------ what may be changed


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


# ------------------------------------------------------------------------------------------------------ clips: the plan


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


def cut_points(words: Sequence[Word], samples: int, rate: int) -> list[int]:
    """Where a clip begins, can be cut between its words, and ends: [n + 1], in samples.

    Cuts are in the middle of gaps. Words that overlap leave no clean one: then [2], the clip as a whole.
    """
    points = [0, *(round((a.end + b.start) / 2 * rate) for a, b in pairwise(words)), samples]
    clean = all(a.end <= b.start for a, b in pairwise(words)) and all(a <= b for a, b in pairwise(points))
    return points if clean else [0, samples]


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


# --------------------------------------------------------------------------------------------------- clips: carried out


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


def color_sound(wave: np.ndarray, augment: Augment, rng: np.random.Generator) -> np.ndarray:
    """Gain on the whole clip, and noise on half of them: white, or softened to a random degree."""
    wave = wave * np.float32(10 ** (rng.uniform(-1, 1) * augment.gain_db / 20))
    if augment.noise_db is None or rng.random() < 0.5:
        return wave
    noise = rng.standard_normal(len(wave), dtype=np.float32)
    if rng.random() < 0.5 and len(wave) > 16:
        noise = np.convolve(noise, np.ones(int(rng.integers(2, 9)), np.float32), "same").astype(np.float32)
        noise /= max(float(noise.std()), 1e-6)
    power = float(np.mean(np.square(wave), dtype=np.float64)) + 1e-12
    return wave + noise * np.float32(np.sqrt(power) * 10 ** (-rng.uniform(*augment.noise_db) / 20))


def mask_features(features: Sequence[np.ndarray], augment: Augment, rng: np.random.Generator) -> list[np.ndarray]:
    """SpecAugment on log-mel windows [T, M]: stretches of time and bands set to the window's mean, on half of them."""
    masked = []
    for window in features:
        if (augment.time_masks or augment.freq_masks) and window.ndim == 2 and rng.random() < 0.5:
            window = window.copy()
            frames, bands = window.shape
            mean = window.mean()
            for _ in range(int(rng.integers(augment.time_masks + 1)) if augment.time_masks else 0):
                width = int(rng.integers(1, max(2, min(augment.time_mask_frames, frames // 4) + 1)))
                start = int(rng.integers(max(1, frames - width + 1)))
                window[start : start + width] = mean
            for _ in range(int(rng.integers(1, augment.freq_masks + 1)) if augment.freq_masks else 0):
                width = int(rng.integers(1, max(2, min(augment.freq_mask_bands, bands // 2) + 1)))
                start = int(rng.integers(max(1, bands - width + 1)))
                window[:, start : start + width] = mean
        masked.append(window)
    return masked


# ------------------------------------------------------------------------------------------------------------- pictures


def augment_images(
    conversation: Conversation, augment: Augment, rng: np.random.Generator, sized: bool = False
) -> Conversation:
    """Colour, crop and flip of every picture (sources are PIL images), its boxes moved along.

    ``sized``: a crop is brought back to the picture's size, where that says how many tokens it takes.
    """
    parts, made = list(conversation.parts()), []  # of each picture what it becomes, and how its boxes move
    last = len(conversation.images) - 1  # which a box that names none is in
    for number, part in enumerate(conversation.images):
        picture: PILImage.Image = part.source
        mine = [p for p in parts if isinstance(p, Box) and number == (last if p.image is None else p.image)]
        if augment.color:
            picture = _recolor(picture, augment.color, rng)
        moves: Move = _stay
        if augment.shift or augment.scale:
            boxes = [b for p in mine for b in p.boxes] if _boxed_turns(conversation, mine) else []
            window = draw_crop(augment, rng, boxes, picture.size)
            if window is not None:
                picture, moves = crop(picture, window)
                picture = picture.resize(part.source.size) if sized else picture
        if augment.flip and rng.random() < 0.5 and not _names_sides(parts) and not conversation.audios:
            picture, moves = picture.transpose(PILImage.Transpose.FLIP_LEFT_RIGHT), _flipped(moves)
        made.append((picture, moves))
    pictures = iter(made)

    def change(part: Part) -> Part:
        if isinstance(part, Image):
            return Image(next(pictures)[0])
        if isinstance(part, Box):
            move = made[last if part.image is None else part.image][1]
            return replace(part, boxes=tuple(map(move, part.boxes)))
        return part

    return conversation.changed(change)


def _boxed_turns(conversation: Conversation, boxes: Sequence[Box]) -> bool:
    """Whether every question or its answer has one of ``boxes``: a count is of the whole picture."""
    turns = list(zip(conversation.messages, conversation.messages[1:], strict=False))
    return all(
        any(p is b for p in (*asked.parts, *answer.parts) for b in boxes)
        for asked, answer in turns
        if answer.role == "assistant"
    )


def draw_crop(
    augment: Augment, rng: np.random.Generator, boxes: Sequence[Sequence[float]], size: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """A crop window in pixels (left, top, right, bottom; it may reach beyond the picture), or None where none is safe.

    With boxes every one of them stays inside the picture whole. Without boxes all of the picture stays in view.
    """
    zoom = float(np.exp(rng.uniform(-1, 1) * np.log1p(augment.scale)))
    shift = rng.uniform(-1, 1, size=2) * augment.shift
    window = []
    for axis, pixels in enumerate(size):
        low = min((b[axis] for b in boxes), default=0.0)
        high = max((b[axis + 2] for b in boxes), default=1.0)
        extent = max(zoom, high - low)  # a window narrower than what must stay in view is widened to it
        start = (1 - extent) / 2 + shift[axis]
        start = min(max(start, high - extent), low)
        left, right = int(np.floor(start * pixels)), int(np.ceil((start + extent) * pixels))
        if right - left < 8 or right - left > 4 * pixels + 8:
            return None
        window.append((left, right))
    (left, right), (top, bottom) = window
    return left, top, right, bottom


def crop(picture: PILImage.Image, window: tuple[int, int, int, int]) -> tuple[PILImage.Image, Move]:
    """The window of the picture, its mean colour where there is none; and how boxes move with it."""
    left, top, right, bottom = window
    width, height = picture.size
    if left < 0 or top < 0 or right > width or bottom > height:
        mean = picture.resize((1, 1), PILImage.Resampling.BOX).getpixel((0, 0))
        canvas = PILImage.new(picture.mode, (right - left, bottom - top), mean)
        canvas.paste(picture, (-left, -top))
    else:
        canvas = picture.crop(window)

    def move(box: Corners) -> Corners:
        scaled = (box[0] * width - left, box[1] * height - top, box[2] * width - left, box[3] * height - top)
        spans = (right - left, bottom - top) * 2
        x0, y0, x1, y1 = (min(max(v / s, 0.0), 1.0) for v, s in zip(scaled, spans, strict=True))
        return x0, y0, x1, y1

    return canvas, move


def _flipped(before: Move) -> Move:
    def move(box: Corners) -> Corners:
        left, top, right, bottom = before(box)
        return 1 - right, top, 1 - left, bottom

    return move


def _stay(box: Corners) -> Corners:
    return box


def _recolor(picture: PILImage.Image, amount: float, rng: np.random.Generator) -> PILImage.Image:
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhance(picture).enhance(float(rng.uniform(1 - amount, 1 + amount)))
    return picture


def _names_sides(parts: Sequence[Part]) -> bool:
    texts = [p.text for p in parts if isinstance(p, Text)] + [p.label or "" for p in parts if isinstance(p, Box)]
    return any(SIDES.search(t) for t in texts)
