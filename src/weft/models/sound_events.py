"""What is heard besides speech, written down as words are: "( bell, 1.5 seconds)" between the tokens of its moments.

An ear that transcribes writes something of every clip, of a bell too. So a layer on the states of its encoder says of
each moment whether there is speech, and which of the sounds that it was taught (sound event detection;
`benchmarks/bundled_sounds.py` fits it). A word that is written where nobody speaks is left out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

INNER, REACH = 96, 12  # channels, and states to each side of the one that is told of
PIECES, HALVES, BEHIND = 4, 60, 8  # tokens of a name; half seconds that can be named, and tokens that name them
SURE, BRIEF, GAP = 0.45, 12, 12  # of a sound; states that are too few for one, and that may be missing within one
WITHIN, SURER = 0.6, 0.85  # one that lies so far in a surer one is there only if it is so sure itself
AMONG = 0.3  # of a sound's moments, in which someone speaks: in people's noise a frail layer hears rain and knocks
SPOKEN, NEAR = 0.3, 15  # of speech, and how many states away from a word that was written


class Event(NamedTuple):
    start: int  # states
    end: int
    number: int  # of its name
    sure: float


class SoundEvents(nn.Module):
    """What it knows is kept as buffers: nothing else teaches it. A new one hears speech everywhere and nothing else."""

    spelling: torch.Tensor  # int64 [classes, PIECES] ids of the language model's tokens; -1: none
    before: torch.Tensor  # int64 [PIECES] of what stands before a name
    behind: torch.Tensor  # int64 [HALVES + 1, BEHIND] of what stands behind one that lasts so many half seconds
    inward: torch.Tensor  # [INNER, width]
    around: torch.Tensor  # [INNER, 1, 2 * REACH + 1]
    across: torch.Tensor  # [INNER, INNER]
    told: torch.Tensor  # [classes + 1, INNER], the last one speech
    shifts: torch.Tensor  # [3, INNER]
    bias: torch.Tensor  # [classes + 1]

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        texts: dict[str, tuple[int, ...]] = {
            "spelling": (classes, PIECES),
            "before": (PIECES,),
            "behind": (HALVES + 1, BEHIND),
        }
        for name, ids in texts.items():
            self.register_buffer(name, torch.full(ids, -1))
        for name, shape in self.shapes(classes, width).items():
            self.register_buffer(name, torch.zeros(shape))
        self.bias[:-1], self.bias[-1] = -1, 1

    @staticmethod
    def shapes(classes: int, width: int) -> dict[str, tuple[int, ...]]:
        """Of what is fitted."""
        inner = {"inward": (INNER, width), "around": (INNER, 1, 2 * REACH + 1), "across": (INNER, INNER)}
        return {**inner, "told": (classes + 1, INNER), "shifts": (3, INNER), "bias": (classes + 1,)}

    @torch.no_grad()
    def learn(self, names: list[str], encode_text: Any) -> None:
        """How the language model spells the name of each sound, and how long it lasts."""
        rows = [(row, f" {name}") for row, name in zip(self.spelling, names, strict=True)]
        rows += [
            (self.before, " ("),
            *((row, f", {n / 2:g} second{'s' * (n != 2)})") for n, row in enumerate(self.behind)),
        ]
        for row, text in rows:
            ids = encode_text(text)
            row[: len(ids)] = torch.tensor(ids[: len(row)])

    def scores(self, states_NTD: torch.Tensor) -> torch.Tensor:
        """[N, T, classes + 1]: above 0 where a sound is heard; in float32."""
        with torch.autocast(states_NTD.device.type, enabled=False):
            return told_of(states_NTD.float(), {name: getattr(self, name).float() for name in self.shapes(1, 1)})

    @torch.no_grad()
    def find(self, states_TD: torch.Tensor) -> tuple[list[tuple[int, int, list[int]]], np.ndarray]:
        """The sounds of a clip by their starts, each the state where it begins, the one that it ends before and the
        tokens that tell of it; and of each state, whether someone speaks near it."""
        chance_TK = self.scores(states_TD[None])[0].sigmoid().cpu().numpy()
        found: list[Event] = []
        for number, chance_T in enumerate(chance_TK.T[:-1]):
            found += [Event(a, z, number, float(chance_T[a:z].mean())) for a, z in runs(chance_T > SURE)]
        speech_T = np.convolve(chance_TK[:, -1] > SPOKEN, np.ones(2 * NEAR + 1), "same") > 0
        found = [event for event in found if chance_TK[event.start : event.end, -1].mean() < AMONG]
        return [(e.start, e.end, self.text(e)) for e in sorted(apart(found))], speech_T

    def text(self, event: Event) -> list[int]:
        halves = max(1, min(round((event.end - event.start) / 25), HALVES))  # of a second, which has 50 states
        ids = [*self.before.tolist(), *self.spelling[event.number].tolist(), *self.behind[halves].tolist()]
        return [token for token in ids if token >= 0]


def told_of(states_NTD: torch.Tensor, own: dict[str, torch.Tensor]) -> torch.Tensor:
    first, second, third = own["shifts"]
    inner_NCT = F.gelu(F.linear(states_NTD, own["inward"], first)).transpose(1, 2)
    near_NTC = F.conv1d(inner_NCT, own["around"], second, padding=REACH, groups=INNER).transpose(1, 2)
    return F.linear(F.gelu(F.linear(F.gelu(near_NTC), own["across"], third)), own["told"], own["bias"])


def runs(there_T: np.ndarray) -> list[tuple[int, int]]:
    """Beginnings and ends of what is there, short gaps filled and short runs left out."""
    edges = np.flatnonzero(np.diff(there_T.astype(np.int8), prepend=0, append=0)).reshape(-1, 2).tolist()
    joined: list[tuple[int, int]] = []
    for start, end in edges:
        if joined and start - joined[-1][1] <= GAP:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return [(start, end) for start, end in joined if end - start >= BRIEF]


def apart(found: list[Event]) -> list[Event]:
    """Those that are no second name of what a surer one is called already."""
    kept: list[Event] = []
    for one in sorted(found, key=lambda event: -event.sure):
        for other in kept:
            both = min(one.end, other.end) - max(one.start, other.start)
            shorter, either = min(one.end - one.start, other.end - other.start), max(one.end, other.end)
            either -= min(one.start, other.start)
            if both > either / 2 or (both > WITHIN * shorter and one.sure < SURER):
                break
        else:
            kept.append(one)
    return kept
