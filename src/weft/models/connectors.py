"""Connectors: encoder features [N, T, D] to embeddings of the language model [N, t, W].

Every connector is called with features and, for sound, the length of each item; it gives embeddings and their lengths
(None for images, which are all alike). `connector_tokens` says t. Features beyond an item's length are zero.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from weft.conversation import WeftError
from weft.models import config
from weft.models.attention import attend
from weft.models.splice import full, inside

Lengths = torch.Tensor | None
Grid = tuple[int, int] | None


def build_connector(section: config.Connector, width: int, language_width: int, grid: Grid = None) -> nn.Module:
    """``width`` of the features, ``language_width`` of the embeddings, ``grid`` of an image's patches (or None)."""
    if section.kind == "none":
        if width != language_width:
            raise WeftError(
                f"connector kind 'none' needs an encoder as wide as the language model, and they have {width} and "
                f"{language_width}; take 'linear'"
            )
        return Pass(section)
    if section.kind == "queries":
        return Queries(section, width, language_width)
    if section.kind == "pool":
        return Pool(section, width, language_width, grid)
    return (Linear if section.kind == "linear" else MLP)(section, width, language_width, grid)


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


class Pass(nn.Module):
    """The features as they are."""

    def __init__(self, section: config.Connector) -> None:
        super().__init__()
        self.scale = section.scale

    def forward(self, features_NTD: torch.Tensor, lengths_N: Lengths = None) -> tuple[torch.Tensor, Lengths]:
        return self.scale * features_NTD, lengths_N


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


class MLP(Merging):
    """Concatenate ``merge`` neighbours, then two linear layers with a GELU between (LLaVA-1.5)."""

    def __init__(self, section: config.Connector, width: int, language_width: int, grid: Grid) -> None:
        super().__init__(section, width, grid)
        hidden = section.hidden or language_width
        self.up = nn.Linear(width * self.merge, hidden, bias=section.bias)
        self.down = nn.Linear(hidden, language_width, bias=section.bias)

    def forward(self, features_NTD: torch.Tensor, lengths_N: Lengths = None) -> tuple[torch.Tensor, Lengths]:
        joined_NtC, lengths_N = self.joined(features_NTD, lengths_N)
        return self.scale * self.down(F.gelu(self.up(joined_NtC))), lengths_N


class Pool(Merging):
    """Average ``merge`` neighbours (fewer in the last group), then project."""

    def __init__(self, section: config.Connector, width: int, language_width: int, grid: Grid) -> None:
        super().__init__(section, width, grid)
        self.proj = nn.Linear(width, language_width, bias=section.bias)

    def forward(self, features_NTD: torch.Tensor, lengths_N: Lengths = None) -> tuple[torch.Tensor, Lengths]:
        there = features_NTD.new_ones(len(features_NTD), features_NTD.shape[1], 1)
        if lengths_N is not None:
            there = inside(lengths_N, there.shape[1], there.device)[..., None].to(there.dtype)
        count_Ntm1 = merge_neighbours(there, self.merge, self.grid)
        groups_NtmD, lengths_N = self.groups(features_NTD, lengths_N)
        mean_NtD = groups_NtmD.sum(2) / count_Ntm1.sum(2).clamp(min=1)
        return self.scale * self.proj(mean_NtD), lengths_N


class CrossLayer(nn.Module):
    """Pre-norm cross-attention of the queries to the features, then an MLP, all at the language model's width."""

    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        if width % heads:
            raise WeftError(f"connector.heads {heads} does not divide the language model's width {width}; change heads")
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=bias) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width, bias=bias), nn.Linear(4 * width, width, bias=bias)

    def forward(self, x_NQW: torch.Tensor, features_NTW: torch.Tensor, keys: torch.Tensor | None) -> torch.Tensor:
        q, k, v = (
            p.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for p in (self.q(self.norm1(x_NQW)), self.k(features_NTW), self.v(features_NTW))
        )
        mixed = attend(q, k, v, keys).flatten(2)
        x_NQW = x_NQW + self.out(mixed)
        return x_NQW + self.down(F.gelu(self.up(self.norm2(x_NQW))))


class Queries(nn.Module):
    """A fixed number of learned queries attend to the features: that many tokens, however long the item."""

    def __init__(self, section: config.Connector, width: int, language_width: int) -> None:
        super().__init__()
        self.scale = section.scale
        self.queries = nn.Embedding(section.queries, language_width)
        self.proj, self.norm = nn.Linear(width, language_width, bias=section.bias), nn.LayerNorm(language_width)
        self.layers = nn.ModuleList(
            CrossLayer(language_width, section.heads, section.bias) for _ in range(section.attention_layers)
        )

    def forward(self, features_NTD: torch.Tensor, lengths_N: Lengths = None) -> tuple[torch.Tensor, Lengths]:
        n, t = features_NTD.shape[:2]
        features_NTW = self.norm(self.proj(features_NTD))
        keys = None
        if lengths_N is not None and not full(lengths_N, t):
            keys = inside(lengths_N, t, features_NTD.device)[:, None, None]
        x_NQW = self.queries.weight.to(features_NTW.dtype).expand(n, -1, -1)
        for layer in self.layers:
            x_NQW = layer(x_NQW, features_NTW, keys)
        return self.scale * x_NQW, None if lengths_N is None else torch.full_like(lengths_N, x_NQW.shape[1])
