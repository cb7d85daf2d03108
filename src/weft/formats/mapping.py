"""Key maps of published weights as data: one table of rules a system, read here and written in `layouts`.

A rule has the name that others give a tensor and weft's. In both ``#`` stands for a number and ``*`` for any rest, the
same ones in the same order; None for weft's name is known surplus. Where tensors are not copied one to one, a side has
several names and ``how`` says what happens. Of rules with one name of weft's (layouts of several ages), that is read
whose tensors are there, and the first is written.

Which tensors there must be, and their shapes, is not in the tables: the model of the configuration says it, on the meta
device. All of it is read, and all that a file holds is used or is surplus; anything else is one sentence before a byte
is written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import starmap
from typing import Any

import torch
from torch import Tensor

from weft.formats.checkpoints import CheckpointError, Output, Shape, Tensors, said, some
from weft.models import doors
from weft.named import beside

Names = str | tuple[str, ...]


class How:
    """What a rule does with its tensors: copies them. Other ways derive from this."""

    def shapes(self, ours: Sequence[Shape]) -> Sequence[Shape | None]:
        """What theirs must be for ours to be so; None: any."""
        return ours

    def read(self, theirs: Sequence[Tensor], ours: Sequence[Shape]) -> Sequence[Tensor]:
        return theirs

    def write(self, ours: Sequence[Tensor]) -> Sequence[Tensor]:
        return ours


class Stacked(How):
    """Theirs is one tensor, ours are its parts from the first row on."""

    def shapes(self, ours: Sequence[Shape]) -> Sequence[Shape]:
        return [(sum(shape[0] for shape in ours), *ours[0][1:])]

    def read(self, theirs: Sequence[Tensor], ours: Sequence[Shape]) -> Sequence[Tensor]:
        return theirs[0].split([shape[0] for shape in ours])

    def write(self, ours: Sequence[Tensor]) -> Sequence[Tensor]:
        return [torch.cat(list(ours))]


@dataclass(frozen=True)
class Rule:
    theirs: Names
    ours: Names | None
    how: How = How()


def rules_beside(module: str) -> dict[str, tuple[Rule, ...]]:
    """The tables in the TOML file beside a module, as theirs = ours: "" is surplus, and several of ours lie stacked in
    theirs."""

    def rule(theirs: str, ours: str | list[str]) -> Rule:
        return Rule(theirs, ours or None) if isinstance(ours, str) else Rule(theirs, tuple(ours), Stacked())

    return {name: tuple(starmap(rule, table.items())) for name, table in beside(module).items()}


@dataclass(frozen=True)
class Place:
    """A rule with its numbers and rests filled in; ``at``: which of a side's names was looked for."""

    rule: Rule
    theirs: list[str]
    ours: list[str]
    at: int


def by_ours(rules: Iterable[Rule], name: str) -> list[Place]:
    """The rules that give weft's tensor ``name``, in their order."""
    return places(rules, name, lambda rule: sides(rule.ours))


def places(rules: Iterable[Rule], name: str, side: Any) -> list[Place]:
    found = []
    for rule in rules:
        for at, pattern in enumerate(side(rule)):
            if match := _compiled(pattern).fullmatch(name):
                theirs, ours = ([_filled(p, match.groups()) for p in sides(s)] for s in (rule.theirs, rule.ours))
                found.append(Place(rule, theirs, ours, at))
                break
    return found


def sides(side: Names | None) -> tuple[str, ...]:
    return () if side is None else (side,) if isinstance(side, str) else side


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    wild = {"#": r"(\d+)", "*": "(.*)"}
    return re.compile("".join(wild.get(piece, re.escape(piece)) for piece in re.split("([#*])", pattern)))


def _filled(pattern: str, words: Sequence[str]) -> str:
    rest = iter(words)
    return re.sub("[#*]", lambda _: next(rest), pattern)


class Input:
    """The published weights of one file or folder, and the rules for their names; all that is off is said at once."""

    def __init__(self, tensors: Tensors, rules: Sequence[Rule], surplus: Iterable[str] = ()) -> None:
        """``surplus``: further patterns (as a rule's) of what the released system leaves unused too."""
        self.tensors, self.rules = tensors, [*rules, *(Rule(pattern, None) for pattern in surplus)]
        self.missing: list[str] = []
        self.wrong: list[str] = []

    def holds(self, place: Place) -> bool:
        return all(name in self.tensors for name in place.theirs)

    def need(self, name: str, shape: Shape | None) -> str:
        """Marks a tensor as used, of ``shape`` (None: any)."""
        found = self.tensors.shapes.get(name)
        self.tensors.used.add(name)
        if found is None:
            self.missing.append(f"{name} {said(shape)}" if shape is not None else name)
        elif shape is not None and found != tuple(shape):
            self.wrong.append(f"{name} {said(found)} for {said(shape)}")
        return name

    def output(self, place: Place, wanted: Mapping[str, Shape]) -> Output:
        shapes = [wanted[name] for name in place.ours]
        for name, shape in zip(place.theirs, place.rule.how.shapes(shapes), strict=True):
            self.need(name, shape)

        def make() -> Tensor:
            return place.rule.how.read([self.tensors[name] for name in place.theirs], shapes)[place.at]

        kind = self.tensors.dtypes.get(place.theirs[0], torch.float32)  # numbers that count are not rounded
        return Output(place.ours[place.at], shapes[place.at], make, None if kind.is_floating_point else kind)

    def settle(self) -> None:
        """Raises `CheckpointError` unless every tensor was used or is surplus and nothing was missing or misshapen."""
        t = self.tensors
        known = [_compiled(pattern) for rule in self.rules if rule.ours is None for pattern in sides(rule.theirs)]
        t.surplus |= {n for n in t.shapes.keys() - t.used if any(pattern.fullmatch(n) for pattern in known)}
        unknown = [f"{n} {said(t.shapes[n])}" for n in t.shapes if n not in t.used and n not in t.surplus]
        problems = [("missing", self.missing), ("of another shape", self.wrong), ("unexpected", unknown)]
        told = [f"{len(names)} {what}: {some(names)}" for what, names in problems if names]
        if told:
            raise CheckpointError(f"{t.label}: the tensors do not fit the published layout; {'; '.join(told)}")


def wanted_by(config: Any, prefix: str = "") -> dict[str, Shape]:
    """Names and shapes of all that a model of ``config`` saves; it is made without weights."""
    import weft.models.modeling  # noqa: F401  which knows weft's classes

    with torch.device("meta"):
        model = doors.language_model(config)
    shapes = {prefix + name: tuple(value.shape) for name, value in model.state_dict().items()}
    if config.get_text_config().tie_word_embeddings:
        shapes = {name: shape for name, shape in shapes.items() if not name.endswith("lm_head.weight")}
    return shapes


def read(
    wanted: Mapping[str, Shape], inputs: Sequence[Input], made: Mapping[str, Tensor] | None = None
) -> list[Output]:
    """What becomes of the published weights: an output for each tensor that a model holds.

    ``made``: those that no file has. Raises `CheckpointError` where an input has too little or too much.
    """
    made = made or {}
    places = {name: [(i, p) for i in inputs for p in by_ours(i.rules, name)] for name in wanted if name not in made}
    layouts = Counter(p.rule for found in places.values() for i, p in found if i.holds(p))
    outputs = []
    for name, shape in wanted.items():
        if name in made:
            outputs.append(Output(name, shape, lambda value=made[name]: value))  # type: ignore[misc]
            continue
        if not places[name]:
            raise CheckpointError(f"no rule says where {name} comes from; this is a mistake in weft, please report it")
        there = [found for found in places[name] if found[0].holds(found[1])]
        source, place = there[0] if there else max(places[name], key=lambda found: layouts[found[1].rule])
        outputs.append(source.output(place, wanted))
    for source in inputs:
        source.settle()
    return outputs
