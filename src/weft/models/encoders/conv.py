"""weft's own small image tower, for training from scratch on little data.

A stack of strided convolutions (their locality is what a small data set cannot teach a plain patch embedding) makes one
vector per 2^n x 2^n pixels, 2-D positions are added, and a few pre-norm transformer blocks mix them.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from weft.conversation import WeftError
from weft.frozen import Frozen
from weft.models.attention import attend
from weft.models.encoders.base import ImageKind, halved


class ConvTowerConfig(Frozen):
    """``channels``: width of each stride-2 convolution; the last is the tower's width. Head size is width / heads."""

    channels: tuple[int, ...] = Field((24, 48, 96, 192), min_length=1)
    layers: int = Field(4, ge=0)
    heads: int = Field(3, ge=1)
    mlp_ratio: float = 4.0
    dropout: float = 0.0


class Block(nn.Module):
    """Pre-norm transformer block in which every patch, or moment of a clip, sees every other."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, int(width * mlp_ratio)), nn.Linear(int(width * mlp_ratio), width)

    def forward(self, x_NTD: torch.Tensor, keys_N11T: torch.Tensor | None = None) -> torch.Tensor:
        n, t, d = x_NTD.shape
        q, k, v = self.qkv(self.norm1(x_NTD)).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = attend(q, k, v, keys_N11T).reshape(n, t, d)
        x_NTD = x_NTD + F.dropout(self.out(mixed), self.dropout, self.training)
        return x_NTD + F.dropout(self.down(F.gelu(self.up(self.norm2(x_NTD)))), self.dropout, self.training)


class ConvTower(nn.Module):
    """pixels [N, 3, H, W] -> features [N, T, D], T = rows * columns in raster order."""

    def __init__(self, kind: Conv) -> None:
        super().__init__()
        config, section, self.grid = kind.config, kind.section, kind.grid
        self.width = width = config.channels[-1]
        if width % config.heads or width % 4:
            raise WeftError(
                f"vision.config: the last of channels, {width}, must be a multiple of 4 and of heads, {config.heads}"
            )
        if section.layer != -1:
            raise WeftError(
                f"vision.layer {section.layer}: the conv encoder gives its last layer only; use fewer layers"
            )
        stem: list[nn.Module] = []
        for before, after in zip((3, *config.channels), config.channels, strict=False):
            stem += [
                nn.Conv2d(before, after, 3, stride=2, padding=1),
                nn.GroupNorm(math.gcd(8, after), after),
                nn.GELU(),
            ]
        self.stem = nn.Sequential(*stem)
        self.mix = nn.Conv2d(width, width, 1)
        self.positions = nn.Parameter(torch.empty(self.grid[0] * self.grid[1], width))  # filled by `initial`
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp_ratio, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width) if section.final_norm else nn.Identity()
        self.extra_norm = nn.LayerNorm(width, eps=section.extra_norm) if section.extra_norm is not None else None

    def initial(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions and how they begin: sinusoids of row and column, half the width each, [rows * columns, D], so that
        distances are there from step one."""
        rows, columns = self.grid
        quarter = self.width // 4
        rate = torch.exp(-math.log(100.0) * torch.arange(quarter) / max(quarter - 1, 1))

        def waves(n: int) -> torch.Tensor:
            angle = torch.arange(n)[:, None] * rate
            return torch.cat([angle.sin(), angle.cos()], 1)  # [n, D/2]

        row = waves(rows)[:, None].expand(rows, columns, -1)
        column = waves(columns)[None].expand(rows, columns, -1)
        return self.positions, 0.5 * torch.cat([row, column], -1).reshape(rows * columns, self.width)

    def forward(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        maps_NDhw = self.mix(self.stem(pixels_NCHW.to(self.mix.weight.dtype)))
        x_NTD = maps_NDhw.flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x_NTD = block(x_NTD)
        x_NTD = self.norm(x_NTD)
        return self.extra_norm(x_NTD) if self.extra_norm is not None else x_NTD


class Conv(ImageKind):
    tower, config_class, fixed = ConvTower, ConvTowerConfig, {}

    @cached_property
    def grid(self) -> tuple[int, int]:
        height, width = self.section.size
        for _ in self.config.channels:
            height, width = halved(height), halved(width)
        return height, width
