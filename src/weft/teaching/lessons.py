"""What a stage of a recipe can ask for under ``lessons``, and what is handed to the loader and the update for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from weft.conversation import WeftError
from weft.data.augment import Augment
from weft.data.loader import SourceSpec
from weft.frozen import Frozen
from weft.models.processing import WeftProcessor
from weft.teaching.keeping import AsBefore
from weft.teaching.labels import Labels
from weft.teaching.losses import Answers, Detected, Gazing, Heard, Seen
from weft.teaching.samples import Conversing, Easing

L = TypeVar("L", bound="SourceLessons")


class Listen(Frozen):
    """A loss on the media themselves, where word times or boxes are known: what the connector gives at a moment or a
    place is to be the embedding of the word that sounds or is seen there, and to name that word's times or that box's
    sides (`media`). For encoders that start from nothing."""

    weight: float = Field(0.0, ge=0)  # beside the loss on answers; 0: off
    # Logits of the media's own embeddings are so many times those that the head makes of them. A trained language model
    # reads embeddings as short as its own; without this the loss makes them long (SmolLM2: 5 times, so take 5).
    sharpness: float = Field(1.0, gt=0)
    sides: float = Field(0.5, ge=0)  # what naming the sides of what is heard or seen counts, beside naming it
    detect: float = Field(0.0, ge=0)  # weight of what a connector of kind detector writes of a picture; 0: off
    first: int = Field(0, ge=0)  # so many updates at the beginning learn this alone, and cost no language model
    # Weight of guided attention: while it writes a box or a timed word, half of the heads of two layers of the language
    # model are to attend, of all media, to what is in that box or sounds in that word (`gaze`); 0: off.
    guide: float = Field(0.0, ge=0)


class SourceLessons(Frozen):
    """What one source of a mixture may have of its own."""

    ease: int = Field(0, ge=0)  # over this many samples of a run, clips grow from single words to what `augment` says
    converse: float = Field(0.0, ge=0, le=1)  # chance of going on with another question about the picture, and again


class StageLessons(SourceLessons):
    listen: Listen = Listen()
    # Weight of saying of text alone, and of spoken prompts whose words are known (``transcript``), beside the label,
    # what was said without LoRA of the same typed (`keeping`); 0: off.
    keep: float = Field(0.0, ge=0)
    balance: float = Field(0.0, ge=0, le=1)  # 0: labels count alike; 1: answers; 0.5: between (square averaging)
    # Coordinates and times: width, in steps of their finest scale, of the bell that stands for the right one; 0: none.
    near: float = Field(0.0, ge=0)


class Taught:
    """What is handed of a stage's lessons (`training.handed.Lessons`)."""

    def __init__(self, stage: Any, place: str = "stages.0") -> None:
        """``stage``: a recipe's; ``place``: its path in it. Raises `WeftError` where there is no such lesson."""
        self.stage, self.place = stage, place
        self.lessons = lessons = _read(StageLessons, stage.lessons, f"{place}.lessons")
        alike = SourceLessons(ease=lessons.ease, converse=lessons.converse)
        self.of_sources = [
            alike if own.lessons is None else _read(SourceLessons, own.lessons, f"{place}.mixture.{number}.lessons")
            for number, own in enumerate(stage.mixture)
        ]

    def sources(self, specs: Sequence[SourceSpec]) -> list[SourceSpec]:
        """The sources of the mixture, with what changes or joins their samples."""
        found = list(specs)
        for number, own in enumerate(self.of_sources):
            if own.ease and isinstance(augment := specs[number].augment, Augment):
                found[number] = replace(found[number], augment=Easing(augment, own.ease))
            if own.converse:
                found[number] = replace(found[number], company=partial(Conversing, own.converse))
        return found

    def annotate(self, processor: WeftProcessor) -> Labels | None:
        """What the loader is to ask of each sample; None where nothing but its answers is learned."""
        listen = self.lessons.listen
        asked = bool(listen.weight or listen.detect), listen.guide > 0, self.lessons.keep > 0
        return Labels(processor, *asked) if any(asked) else None

    def objectives(self, done: int) -> list[Any]:
        """What update number ``done`` is to learn."""
        listen, near = self.lessons.listen, self.lessons.near
        alone = bool(listen.weight) and done < listen.first
        found: list[Any] = [Answers(self.stage.label_smoothing, near, self.lessons.balance, alone)]
        if listen.guide:
            found.append(Gazing(listen.guide, alone))
        if listen.weight:
            how = listen.weight, near, listen.sharpness, listen.sides
            found += [Heard(*how), Seen(*how)]
        if self.lessons.keep:
            found.append(AsBefore(self.lessons.keep))
        if listen.detect:
            found.append(Detected(listen.detect, near))
        return found

    def notes(self, planned: int) -> list[str]:
        """What to tell who starts the stage with so many updates."""
        listen = self.lessons.listen
        if not listen.weight or listen.first < planned:
            return []
        return [
            f"its {planned:,} updates only listen and look, and learn no answers: fewer do with "
            f"--set {self.place}.lessons.listen.first=N, {listen.first:,} now"
        ]


teach = Taught


def _read(kind: type[L], given: dict[str, Any], path: str) -> L:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, (path, *first["loc"])))
        if first["type"] == "extra_forbidden":
            raise WeftError(f"{name}: no such lesson; there are {', '.join(kind.model_fields)}") from None
        raise WeftError(f"{name}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None
