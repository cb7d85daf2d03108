"""Connectors: encoder features [N, T, D] to embeddings of the language model [N, t, W].

Every connector is called with features and, for sound, the length of each item; it gives embeddings and their lengths
(None for images, which are all alike). `connector_tokens` says t. Features beyond an item's length are zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from weft.models import config
from weft.named import Named

Lengths = torch.Tensor | None
Grid = tuple[int, int] | None


CONNECTORS = Named[Callable[[config.Connector, int, int, Grid], nn.Module]](
    {
        "linear": "weft.models.connectors:Linear",
        "mlp": "weft.models.more_connectors:MLP",
        "pool": "weft.models.more_connectors:Pool",
        "queries": "weft.models.more_connectors:Queries",
        "transformer": "weft.models.more_connectors:Transformer",
        "transcript": "weft.models.transcript:Transcript",
        "detector": "weft.models.detector:Detector",
        "none": "weft.models.more_connectors:Pass",
    }
)


# What a connector with ``places`` adds, by modality.
PLACES = Named[Any]({"image": "weft.models.places:ImagePlaces", "audio": "weft.models.places:SoundPlaces"})


def build_connector(section: config.Connector, width: int, language_width: int, grid: Grid = None) -> nn.Module:
    """``width`` of the features, ``language_width`` of the embeddings, ``grid`` of an image's patches (or None)."""
    return CONNECTORS[section.kind](section, width, language_width, grid)


def connector_tokens(section: config.Connector, features: int, grid: Grid = None) -> int:
    """Embeddings that so many features give; ``grid`` is that of an image's patches, where there is nothing else."""
    if section.kind == "queries":
        return section.queries
    return features if section.kind == "none" else neighbours(section, grid).tokens(features) + section.written


class InOrder:
    """Which features make one token: ``merge`` neighbours in their order; the last group is filled up with zeros."""

    def __init__(self, merge: int) -> None:
        self.merge = merge

    def tokens(self, features: int) -> int:
        return -(-features // self.merge)

    def groups(self, features_NTD: torch.Tensor) -> torch.Tensor:
        """[N, T, D] -> [N, t, merge, D]."""
        n, t, d = features_NTD.shape
        return F.pad(features_NTD, (0, 0, 0, -t % self.merge)).reshape(n, -1, self.merge, d)


BLOCKS = Named[Callable[..., InOrder]]({"square": "weft.models.blocks:Blocks"})  # of the patches of a picture


def neighbours(section: config.Connector, grid: Grid) -> InOrder:
    return InOrder(section.group) if grid is None or not section.grid else BLOCKS["square"](section.group, grid)


class Merging(nn.Module):
    """What linear, MLP and pool share: which neighbours make one token."""

    def __init__(self, section: config.Connector, width: int, grid: Grid) -> None:
        super().__init__()
        self.merge, self.scale, self.neighbours = section.group, section.scale, neighbours(section, grid)
        self.norm = nn.LayerNorm(width * section.group) if section.norm else nn.Identity()

    def joined(self, features_NTD: torch.Tensor, lengths_N: Lengths) -> tuple[torch.Tensor, Lengths]:
        return self.norm(self.neighbours.groups(features_NTD).flatten(2)), self.merged(lengths_N)

    def merged(self, lengths_N: Lengths) -> Lengths:
        return None if lengths_N is None else (lengths_N + self.merge - 1) // self.merge


class Linear(Merging):
    """Concatenate ``merge`` neighbours and project (MiniGPT-v2: 4 patches of a row; LLaSM, Qwen-Audio: 1)."""

    def __init__(self, section: config.Connector, width: int, language_width: int, grid: Grid) -> None:
        super().__init__(section, width, grid)
        self.proj = nn.Linear(width * self.merge, language_width, bias=section.bias)

    def forward(self, features_NTD: torch.Tensor, lengths_N: Lengths = None) -> tuple[torch.Tensor, Lengths]:
        joined_NtC, lengths_N = self.joined(features_NTD, lengths_N)
        return self.scale * self.proj(joined_NtC), lengths_N
