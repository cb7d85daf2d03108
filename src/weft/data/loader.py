"""From sources to micro-steps of tensors: decode, change, encode, pack; by grain, in threads or worker processes.

What a micro-step holds depends only on (files, recipe, seed, number of the micro-step): not on workers, not on what ran
before. So the loader's whole state is the number of the next micro-step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Protocol

import numpy as np
import torch

from weft.conversation import Audio, Conversation, Image, WeftError
from weft.data.augment import Augment, color_sound, mask_features
from weft.data.lengths import ADVICE, Keep, Lengths, lengths_of
from weft.data.mixture import FAR, Mixture, grain
from weft.data.packing import PackingPlan, PlanEnds, micro_step_rows
from weft.data.source import open_source
from weft.media import Stored, load_audio, load_image
from weft.models.encoding import Encoded
from weft.models.processing import WeftProcessor
from weft.named import Named

CACHE_BYTES = 1 << 30  # decoded media kept in memory (by each worker); small sets are decoded once
# What changes samples before they are encoded, beside what is done to sound alone: clips in time, and pictures.
CHANGES = Named[Callable[..., Any]](
    {"clips": "weft.data.clips:ClipEdits", "pictures": "weft.data.augment_pictures:augment_images"}
)


@dataclass
class Batch:
    """One micro-step: what the model's forward takes, and what the log tells of it."""

    inputs: dict[str, torch.Tensor]
    tokens: int  # in the samples, media and text
    places: int  # token places the micro-step has: tokens / places is how full it is
    labels: int  # tokens that are learned
    samples: list[str]  # file:line of each
    extra: Any = None  # what `Annotate.join` made of the samples, where the loader was handed one
    skipped: list[str] = field(default_factory=list)  # one sentence for each sample left out while decoding


class Annotate(Protocol):
    """What a loader can be handed, to ask of each sample what else is to be learned from it."""

    def __call__(self, conversation: Conversation, encoded: Encoded) -> Any:
        """Of a sample as it is learned, its media decoded, and of what the processor made of it."""

    def join(self, samples: Sequence[Any], starts: Sequence[tuple[int, int]]) -> Any:
        """Those of a batch as one, picklable; ``starts`` are the row and the first place of each sample in it."""


class Edits(Protocol):
    """What changes samples of a source before their media are decoded, and how many tokens they take."""

    def draw(self, augment: Augment, index: int, rng: Callable[[int], np.random.Generator]) -> Any:
        """What becomes of sample ``index``, drawn with `rng(purpose)`; None where it stays as it is."""

    def tokens(self, plan: Any) -> int:
        """The most that it takes then."""

    def embedded(self, plan: Any) -> tuple[int, int]:
        """Embeddings of its pictures and of its sound, about."""

    def make(
        self, plan: Any, sample: Callable[[int], Conversation], wave: Callable[[Conversation], Any]
    ) -> Conversation:
        """It, of samples by their numbers and of the sound of their clips."""


class MediaCache:
    """Decoded media by path, up to a number of bytes; first come, first kept (evicting would not help)."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self._kept: dict[Any, Any] = {}
        self._lock = Lock()

    def get(self, key: Any, load: Any) -> Any:
        if not isinstance(key[1], (str, Path, Stored)):
            return load()
        if key not in self._kept:
            value = load()
            size = value.nbytes if isinstance(value, np.ndarray) else 3 * value.width * value.height
            with self._lock:
                if self.bytes + size > self.max_bytes or key in self._kept:
                    return value
                self._kept[key] = value
                self.bytes += size
        return self._kept[key]

    def __reduce__(self) -> tuple[type[MediaCache], tuple[int]]:
        return MediaCache, (self.max_bytes,)  # a worker process fills its own


@dataclass(frozen=True)
class SourceSpec:
    path: str | Path
    weight: float = 1.0
    augment: Augment | Callable[[int], Augment] = Augment()  # or what it is at a position of the stream
    name: str | None = None
    media_root: str | None = None  # the folder that media lie in, links followed; None: anywhere
    company: Callable[..., Edits] | None = None  # made of the source, its `Lengths`, the processor and a row's tokens

    @property
    def edited(self) -> bool:
        """Whether its clips are edited in time."""
        return not isinstance(self.augment, Augment) or self.augment.edits


class TrainingData:
    """Everything that decides what micro-step ``n`` of a rank is.

    ``row_tokens`` bounds a packed row (``rows`` rows a micro-step, laid end to end); with ``packing`` off a micro-step
    is a padded batch of ``rows`` samples. ``in_order`` (evaluation): each sample once, in file order, ``limit`` at
    most. ``even_rows``: packed rows have like shares of pictures and of sound. ``first_row`` is where a resumed run
    goes on in the plan (micro-step 0 begins there), on any number of ranks;
    ``anchor`` is what ``plan.anchor(first_row)`` gave, and spares planning what came before.
    ``progress(source, done, samples)`` is told how far measuring the samples has come.
    """

    def __init__(
        self,
        specs: Sequence[SourceSpec],
        processor: WeftProcessor,
        *,
        row_tokens: int,
        rows: int = 1,
        packing: bool = True,
        even_rows: bool = True,
        annotate: Annotate | None = None,
        seed: int = 0,
        on_bad_sample: Literal["fail", "skip"] = "fail",
        rank: int = 0,
        world: int = 1,
        keep_lengths: Keep | None = None,
        cache_bytes: int = CACHE_BYTES,
        in_order: bool = False,
        limit: int | None = None,
        first_row: int = 0,
        anchor: tuple[int, int] | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        if not specs:
            raise WeftError(
                "no training data: name at least one JSON Lines file, or shards, in the mixture (--data FILE)"
            )
        self.processor, self.row_tokens, self.rows, self.packing = processor, row_tokens, rows, packing
        self.seed, self.on_bad_sample, self.rank, self.world = seed, on_bad_sample, rank, world
        self.specs = list(specs)
        self.sources = [open_source(s.path, s.name, s.media_root) for s in specs]
        self.lengths = [
            lengths_of(
                source,
                processor,
                row_tokens=row_tokens,
                on_bad_sample=on_bad_sample,
                keep=keep_lengths,
                edited=spec.edited,
                whole=spec.company is not None or not isinstance(spec.augment, Augment) or spec.augment.join > 0,
                progress=partial(progress, source.name) if progress else None,
            )
            for source, spec in zip(self.sources, specs, strict=True)
        ]
        self.edits: list[list[Edits]] = [[] for _ in specs]
        for edits, spec, source, lengths in zip(self.edits, specs, self.sources, self.lengths, strict=True):
            if spec.edited:
                edits.append(CHANGES["clips"](lengths, processor, row_tokens))
            if spec.company and isinstance(lengths, Lengths):
                edits.append(spec.company(source, lengths, processor, row_tokens))
        self.annotate, self.in_order, self.first_row = annotate, in_order, first_row
        self.mixture = Mixture([len(s) for s in self.sources], [s.weight for s in specs], seed)
        total = sum(len(s) for s in self.sources)
        self.end = min(limit or total, total) if in_order else None
        options: dict[str, Any] = {"seed": seed, "packing": packing, "shuffle": not in_order, "end": self.end}
        media = self.media if even_rows and not in_order else None
        self.plan = PackingPlan(self.length, row_tokens, anchor=anchor, media=media, **options)
        self.cache = MediaCache(cache_bytes)

    @property
    def problems(self) -> list[str]:
        """One sentence for each sample that was left out before training began."""
        return [p for lengths in self.lengths for p in lengths.problems]

    @property
    def along(self) -> list[str]:
        """Names of the sources whose samples are measured when their turn comes."""
        return [s.name for s, each in zip(self.sources, self.lengths, strict=True) if not isinstance(each, Lengths)]

    def _left_out(self, row: int) -> list[str]:
        """What is left out in planning up to a row, of which nothing was told before; of the ranks, one reads a row."""
        opened = ((self.lengths[n], index) for n, index in map(self.pick, self.plan.opened(row) if self.along else ()))
        late = [(each, index) for each, index in opened if not isinstance(each, Lengths)]
        return [str(each.problem(index)) for each, index in late if not each.tokens[index]]

    @cached_property
    def rate(self) -> int:
        return self.processor.audio.sample_rate if self.processor.audio else 16000

    # ------------------------------------------------------------------------------------------- one position

    def pick(self, position: int) -> tuple[int, int]:
        """``(source, index)`` of a position of the stream."""
        if not self.in_order:
            return self.mixture[position]
        for number, source in enumerate(self.sources):
            if position < len(source):
                return number, position
            position -= len(source)
        raise IndexError(position)

    def length(self, position: int) -> int:
        """Tokens of the sample at a position, as planned; 0 where it is left out."""
        number, index = self.pick(position)
        edited = self._edited(position, number, index)
        return edited[0].tokens(edited[1]) if edited else int(self.lengths[number].tokens[index])

    def media(self, position: int) -> tuple[int, int]:
        """Embeddings of pictures and of sound in the sample at a position, about."""
        number, index = self.pick(position)
        if edited := self._edited(position, number, index):
            return edited[0].embedded(edited[1])
        images, sounds = map(int, self.lengths[number].embedded[index])
        return images, sounds

    def _edited(self, position: int, number: int, index: int) -> tuple[Edits, Any] | None:
        """What edits a sample, and how; None where it stays as it is, or is left out."""
        if self.edits[number] and self.lengths[number].tokens[index]:
            augment, rng = self._augment(position, number), partial(self._rng, position)
            plans = ((edits, edits.draw(augment, index, rng)) for edits in self.edits[number])
            return next(((edits, plan) for edits, plan in plans if plan is not None), None)
        return None

    def _augment(self, position: int, number: int) -> Augment:
        given = self.specs[number].augment
        return given if isinstance(given, Augment) else given(position)

    def _rng(self, position: int, purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed, 4 * position + purpose]))

    def conversation(self, position: int) -> Conversation:
        """The sample at a position with its media decoded and changed."""
        number, index = self.pick(position)
        source, augment = self.sources[number], self._augment(position, number)
        edited = self._edited(position, number, index)
        conversation = edited[0].make(edited[1], source.__getitem__, self._wave) if edited else source[index]
        rng = self._rng(position, 1)

        def change(part: Any) -> Any:
            if isinstance(part, Audio):
                wave = part.source[0] if isinstance(part.source, tuple) else self._load_audio(part.source)
                return replace(part, source=(color_sound(wave, augment, rng), self.rate))
            return Image(self._load_image(part.source)) if isinstance(part, Image) else part

        conversation = conversation.changed(change)
        if not augment.pictures:
            return conversation
        kind = self.processor.image_kind
        sized = kind is not None and kind.by_size
        return CHANGES["pictures"](conversation, augment, rng, sized)

    def encode(self, position: int) -> tuple[Any, Any]:
        """The sample at a position as the processor makes it (`Encoded`), and what `annotate` says of it."""
        conversation = self.conversation(position)
        encoded = self.processor.encode(conversation)
        extra = self.annotate(conversation, encoded) if self.annotate else None
        augment = self._augment(position, self.pick(position)[0])
        encoded.features = mask_features(encoded.features, augment, self._rng(position, 2))
        return encoded, extra

    def _wave(self, conversation: Conversation) -> np.ndarray:
        return self._load_audio(conversation.audios[0].source)

    def _load_audio(self, source: Any) -> np.ndarray:
        return self.cache.get(("audio", source), lambda: load_audio(source, self.rate))

    def _load_image(self, source: Any) -> Any:
        return self.cache.get(("image", source), lambda: load_image(source))

    # ----------------------------------------------------------------------------------------- micro-steps

    def batch(self, step: int) -> dict[str, Any]:
        """Micro-step number ``step`` of this rank, as numpy (what travels between processes)."""
        samples, where, skipped = [], [], []
        for row in micro_step_rows(step, self.rows, self.rank, self.world):
            try:
                positions = self.plan[self.first_row + row]
                skipped += self._left_out(self.first_row + row)
            except PlanEnds:
                break  # of an evaluation
            for position in positions:
                number, index = self.pick(position)
                name = self.sources[number].where(index)
                try:
                    samples.append(self.encode(position))
                    where.append(name)
                except WeftError as error:
                    problem = str(error) if str(error).startswith(name) else f"{name}: {error}"
                    if self.on_bad_sample == "fail":
                        raise WeftError(f"{problem}; {ADVICE}") from None
                    skipped.append(problem)
        encoded = [sample for sample, _ in samples]
        lengths = [len(e.input_ids) for e in encoded]
        tokens = sum(lengths)
        firsts = list(accumulate(lengths, initial=0))[:-1]
        starts = [(0, first) if self.packing else (row, 0) for row, first in enumerate(firsts)]
        inputs: dict[str, Any] = {}
        if encoded:
            inputs = self.processor.pack(encoded) if self.packing else self.processor.collate(encoded)
        places = self.row_tokens * self.rows if self.packing else inputs["input_ids"].numel() if encoded else 0
        return {
            "inputs": {k: np.asarray(v) for k, v in inputs.items()},
            "tokens": tokens,
            "places": max(places, tokens),
            "labels": sum(int(e.loss_mask[1:].sum()) for e in encoded),
            "extra": self.annotate.join([extra for _, extra in samples], starts) if self.annotate else None,
            "samples": where,
            "skipped": skipped,
        }

    def batches(self, start: int = 0, *, workers: int = 0, ahead: int = 4) -> Iterator[Batch]:
        """Micro-steps from ``start`` on. ``workers`` processes decode, or one thread, up to ``ahead``."""
        data = grain.MapDataset.range(start, FAR).map(_Make(self))
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=ahead)
        iterable = data.to_iter_dataset(options)
        if workers:
            each = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=ahead)
            iterable = iterable.mp_prefetch(each)
        iterator = iter(iterable)
        try:
            for value in iterator:
                if "error" in value:
                    raise WeftError(value["error"])
                if self.end is not None and not value["samples"] and not value["skipped"]:
                    return
                yield Batch(**{**value, "inputs": {k: torch.from_numpy(v) for k, v in value["inputs"].items()}})
        finally:
            close = getattr(iterator, "close", None)
            if close:
                close()


class _Make(grain.transforms.Map):
    """`TrainingData.batch` as a step of the pipeline. A user's mistake travels as a value: grain would wrap it."""

    def __init__(self, data: TrainingData) -> None:
        self.data = data

    def map(self, element: int) -> dict[str, Any]:
        try:
            return self.data.batch(int(element))
        except WeftError as error:
            return {"error": str(error)}
