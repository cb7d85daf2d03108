"""Connectors beside the linear one: an MLP, a mean, learned queries, layers of attention, and none at all."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from weft.conversation import WeftError
from weft.models import config
from weft.models.attention import attend
from weft.models.blocks import merged_grid
from weft.models.connectors import Grid, Lengths, Merging
from weft.models.splice import full, inside


class Pass(nn.Module):
    """The features as they are."""

    def __init__(self, section: config.Connector, width: int, language_width: int, grid: Grid = None) -> None:
        super().__init__()
        if width != language_width:
            raise WeftError(
                f"connector kind 'none' needs an encoder as wide as the language model, and they have {width} and "
                f"{language_width}; take 'linear'"
            )
        self.scale = section.scale

    def forward(self, features_NTD: torch.Tensor, lengths_N: Lengths = None) -> tuple[torch.Tensor, Lengths]:
        return self.scale * features_NTD, lengths_N


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
        groups_NtmD, count_Ntm1 = self.neighbours.groups(features_NTD), self.neighbours.groups(there)
        mean_NtD = groups_NtmD.sum(2) / count_Ntm1.sum(2).clamp(min=1)
        return self.scale * self.proj(mean_NtD), self.merged(lengths_N)


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

    def __init__(self, section: config.Connector, width: int, language_width: int, grid: Grid = None) -> None:
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


class SelfLayer(nn.Module):
    """Pre-norm attention of an item's tokens to each other, then an MLP."""

    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width, bias=bias)
        self.up, self.down = nn.Linear(width, 4 * width, bias=bias), nn.Linear(4 * width, width, bias=bias)

    def forward(self, x_NtC: torch.Tensor, turns_tK: torch.Tensor, keys: torch.Tensor | None) -> torch.Tensor:
        q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in self.qkv(self.norm1(x_NtC)).chunk(3, -1))
        mixed = attend(turned(q, turns_tK), turned(k, turns_tK), v, keys).flatten(2)
        x_NtC = x_NtC + self.out(mixed)
        return x_NtC + self.down(F.gelu(self.up(self.norm2(x_NtC))))


class Transformer(Merging):
    """Concatenate ``merge`` neighbours, then layers in which an item's tokens attend to each other, then project.

    For encoders that stay frozen: what a moment or place is told by those around it, which a layer that sees one group
    of features alone cannot use. Positions are relative (rotary): of a clip the moments, of a picture's grid half of
    each head turns with the row and half with the column.
    """

    def __init__(self, section: config.Connector, width: int, language_width: int, grid: Grid) -> None:
        super().__init__(section, width, grid)
        inner = section.hidden or language_width
        if inner % (4 * section.heads):
            raise WeftError(
                f"connector of kind 'transformer': its width {inner} must be a multiple of four times its heads "
                f"({section.heads}); change connector.hidden or connector.heads"
            )
        self.places = None if grid is None else merged_grid(section, grid)
        self.heads = section.heads
        self.up = nn.Linear(width * self.merge, inner, bias=section.bias)
        self.layers = nn.ModuleList(
            SelfLayer(inner, section.heads, section.bias) for _ in range(section.attention_layers)
        )
        self.last_norm, self.down = nn.LayerNorm(inner), nn.Linear(inner, language_width, bias=section.bias)

    def forward(self, features_NTD: torch.Tensor, lengths_N: Lengths = None) -> tuple[torch.Tensor, Lengths]:
        x_NtC, lengths_N = self.inner(features_NTD, lengths_N)
        return self.scale * self.down(x_NtC), lengths_N

    def inner(self, features_NTD: torch.Tensor, lengths_N: Lengths = None) -> tuple[torch.Tensor, Lengths]:
        """What the layers say [N, t, C]."""
        joined_NtC, lengths_N = self.joined(features_NTD, lengths_N)
        x_NtC, tokens, keys = self.up(joined_NtC), joined_NtC.shape[1], None
        if lengths_N is not None and not full(lengths_N, tokens):
            keys = inside(lengths_N, tokens, x_NtC.device)[:, None, None]
        turns_tK = turns(self.places or (tokens,), x_NtC.shape[-1] // self.heads, x_NtC.device)
        for layer in self.layers:
            x_NtC = layer(x_NtC, turns_tK, keys)
        return self.last_norm(x_NtC), lengths_N


def turns(grid: tuple[int, ...], size: int, device: torch.device) -> torch.Tensor:
    """[t, size / 2]: by how much each pair of a head's numbers turns at each place of a clip (t,) or a grid (rows,
    columns): 1 to 1 / 1000 radians a step, as many pairs for each direction."""
    steps = torch.meshgrid(*(torch.arange(n, device=device, dtype=torch.float32) for n in grid), indexing="ij")
    pairs = size // (2 * len(grid))
    rates = 1000.0 ** (-torch.arange(pairs, device=device) / pairs)
    return torch.cat([s.flatten()[:, None] * rates for s in steps], -1)


def turned(x_NHtK: torch.Tensor, turns_tK: torch.Tensor) -> torch.Tensor:
    """Rotary positions (RoFormer, https://arxiv.org/abs/2104.09864), the first half of a head paired with the other."""
    cos, sin = turns_tK.cos().to(x_NHtK.dtype), turns_tK.sin().to(x_NHtK.dtype)
    a, b = x_NHtK.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
