"""Where a picture shows something that is no drawing, and what the eye's own classifier calls it (`encoders.classes`).

The classifier is as sure of drawn shapes, which it takes for balloons and envelopes, as of what it was made for. So a
layer that was taught to tell photographs from drawings (`benchmarks/bundled_names.py`) says where it is asked, and
another whether a photograph fills the frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from weft.models import config

PIECES = 6  # tokens of a name: of ImageNet's thousand, 987 take no more, and of the others the first words go
SURE = 1.5  # of the surest place of a photograph: 1 drawn picture of 100 has one, and 98 of 100 photographs
GROWN = 1.15  # the layer was taught the middle of each photograph, so that neighbours stay apart


class Photographs(nn.Module):
    """What it knows is kept as buffers: nothing else teaches it. A new one finds no photographs."""

    spelling: torch.Tensor  # int64 [classes, PIECES] ids of the language model's tokens; -1: none
    looks: torch.Tensor  # [width]
    bias: torch.Tensor  # []
    fills: torch.Tensor  # [width], of the mean of all places
    fills_bias: torch.Tensor  # []
    beside: torch.Tensor  # int64 []: 1 where what a detector that was taught finds within a photograph is written, too

    def __init__(self, section: config.Connector, width: int) -> None:
        super().__init__()
        self.register_buffer("spelling", torch.full((section.classes, PIECES), -1))
        for name in ("looks", "fills"):
            self.register_buffer(name, torch.zeros(width))
        for name in ("bias", "fills_bias"):
            self.register_buffer(name, torch.tensor(-1.0))
        self.register_buffer("beside", torch.tensor(0))

    def initial(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A buffer that older folders lack, and its value then."""
        return self.beside, torch.tensor(0)

    @torch.no_grad()
    def learn(self, names: list[str], encode_text: Any) -> None:
        """How the language model spells the name of each class, the first of several with commas between."""
        for row, name in zip(self.spelling, names, strict=True):
            words, blank = name.split(",")[0].split(), encode_text(" ")
            while True:
                ids = encode_text(" " + " ".join(words))
                ids = ids[len(blank) :] if ids[: len(blank)] == blank else ids
                if len(ids) <= PIECES or len(words) == 1:
                    break
                words = words[1:]
            row[: len(ids[:PIECES])] = torch.tensor(ids[:PIECES])

    def scores(self, features_NTD: torch.Tensor) -> torch.Tensor:
        """[N, T]: above 0 within a photograph."""
        return features_NTD.float() @ self.looks.float() + self.bias.float()

    @torch.no_grad()
    def find(
        self, features_NTD: torch.Tensor, grid: tuple[int, int], classes: Any
    ) -> list[list[tuple[list[float], list[int]]]]:
        """Of each picture the photographs, the largest first: sides of a box in fractions, and tokens of a name."""
        scores_NT, logits_NTK = self.scores(features_NTD), classes(features_NTD)
        filled_N = (features_NTD.float().mean(1) @ self.fills.float() + self.fills_bias.float() > 0).tolist()
        found = []
        for score_T, logits_TK, filled in zip(scores_NT, logits_NTK, filled_N, strict=True):
            if filled:
                found.append([([0.0, 0.0, 1.0, 1.0], self.name(logits_TK.mean(0)))])
                continue
            seen = [np.asarray(r) for r in regions((score_T > 0).reshape(grid).cpu().numpy())]
            things = []
            for at_M2 in sorted(seen, key=len, reverse=True):
                at_M = torch.from_numpy(at_M2[:, 0] * grid[1] + at_M2[:, 1]).to(score_T.device)
                if float(score_T[at_M].max()) > SURE:
                    weight_M = score_T[at_M] / score_T[at_M].sum()
                    things.append((around(at_M2, grid), self.name(weight_M @ logits_TK[at_M])))
            found.append(things)
        return found

    def name(self, logits_K: torch.Tensor) -> list[int]:
        """Tokens of the likeliest class."""
        return [token for token in self.spelling[int(logits_K.argmax())].tolist() if token >= 0]


def regions(there_hw: np.ndarray) -> list[list[tuple[int, int]]]:
    """Rows and columns of places that hang together."""
    left, found = {(int(y), int(x)) for y, x in np.argwhere(there_hw)}, []
    while left:
        todo, region = [left.pop()], []
        while todo:
            y, x = todo.pop()
            region.append((y, x))
            near = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
            left -= near
            todo += near
        found.append(region)
    return found


def around(at_M2: np.ndarray, grid: tuple[int, int]) -> list[float]:
    """Left, top, right, bottom of the box around places, grown."""
    low, high = at_M2.min(0) / grid, (at_M2.max(0) + 1) / grid
    middle, half = (low + high) / 2, GROWN * (high - low) / 2
    (top, left), (bottom, right) = (middle - half).clip(0, 1), (middle + half).clip(0, 1)
    return [float(side) for side in (left, top, right, bottom)]
