"""Connectors: encoder features [N, T, D] to embeddings of the language model [N, t, W].

Every connector is called with features and, for sound, the length of each item; it gives embeddings and their lengths
(None for images, which are all alike). `connector_tokens` says t. Features beyond an item's length are zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from weft.conversation import WeftError
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
    if section.kind == "none":
        return features
    if section.grid and grid is not None:
        rows, columns = merged_grid(section, grid)
        return rows * columns
    return -(-features // section.group)


def merged_grid(section: config.Connector, grid: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the embeddings of an image with that grid of patches; an error where they lie on none."""
    rows, columns = grid
    if section.kind == "queries":
        raise WeftError("vision.connector: what queries give lies on no grid, so none of it has a place; take another")
    if section.grid:
        side = grid_side(section)
        return -(-rows // side), -(-columns // side)
    if columns % section.group:
        raise WeftError(
            f"vision.connector: places need whole rows, and merge {section.group} does not divide a row of {columns} "
            "patches; set grid"
        )
    return rows, columns // section.group


def grid_side(section: config.Connector) -> int:
    side = math.isqrt(section.group)
    if side * side != section.group:
        raise WeftError(
            f"connector: with grid=true, merge must be a square number, and {section.group} is not; take 4 or 9"
        )
    return side


def merged_lengths(lengths_N: Lengths, merge: int) -> Lengths:
    return None if lengths_N is None else (lengths_N + merge - 1) // merge


def merge_neighbours(features_NTD: torch.Tensor, merge: int, grid: Grid = None) -> torch.Tensor:
    """[N, T, D] -> [N, ceil(T/merge), merge, D]; the last group is filled up with zeros.

    With ``grid`` (rows, columns) the groups are square blocks of patches instead, themselves in raster order.
    """
    n, t, d = features_NTD.shape
    if grid is None:
        return F.pad(features_NTD, (0, 0, 0, -t % merge)).reshape(n, -1, merge, d)
    side, (rows, columns) = round(merge**0.5), grid
    blocks = F.pad(features_NTD.reshape(n, rows, columns, d), (0, 0, 0, -columns % side, 0, -rows % side))
    rows, columns = blocks.shape[1] // side, blocks.shape[2] // side
    blocks = blocks.reshape(n, rows, side, columns, side, d).transpose(2, 3)
    return blocks.reshape(n, rows * columns, merge, d)


class Merging(nn.Module):
    """What linear, MLP and pool share: which neighbours make one token."""

    def __init__(self, section: config.Connector, width: int, grid: Grid) -> None:
        super().__init__()
        self.merge, self.scale = section.group, section.scale
        self.norm = nn.LayerNorm(width * section.group) if section.norm else nn.Identity()
        self.grid = grid if section.grid and grid is not None else None
        if self.grid is not None:
            grid_side(section)  # complains where merge is not a square

    def joined(self, features_NTD: torch.Tensor, lengths_N: Lengths) -> tuple[torch.Tensor, Lengths]:
        groups_NtmD, lengths_N = self.groups(features_NTD, lengths_N)
        return self.norm(groups_NtmD.flatten(2)), lengths_N

    def groups(self, features_NTD: torch.Tensor, lengths_N: Lengths) -> tuple[torch.Tensor, Lengths]:
        return merge_neighbours(features_NTD, self.merge, self.grid), merged_lengths(lengths_N, self.merge)


class Linear(Merging):
    """Concatenate ``merge`` neighbours and project (MiniGPT-v2: 4 patches of a row; LLaSM, Qwen-Audio: 1)."""

    def __init__(self, section: config.Connector, width: int, language_width: int, grid: Grid) -> None:
        super().__init__(section, width, grid)
        self.proj = nn.Linear(width * self.merge, language_width, bias=section.bias)

    def forward(self, features_NTD: torch.Tensor, lengths_N: Lengths = None) -> tuple[torch.Tensor, Lengths]:
        joined_NtC, lengths_N = self.joined(features_NTD, lengths_N)
        return self.scale * self.proj(joined_NtC), lengths_N
