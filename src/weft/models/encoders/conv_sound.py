"""weft's own small sound tower, for training from scratch on little data.

Two-dimensional convolutions over the log-mel (a sound is the same a little higher, lower, earlier or later, which a
small data set cannot teach Whisper's first layer), then convolutional blocks along time, then transformer blocks. On
the same 20 CPU seconds of spoken digits, frames of unheard recordings were told apart at 52 %, and at 17 % with three
of Whisper's layers of the same width.

What lies beyond a clip's own end is zeroed before every convolution, so a short clip in a batch equals the clip alone.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from weft.conversation import WeftError
from weft.frozen import Frozen
from weft.media.mel import HOP
from weft.models.encoders.base import SoundKind, halved
from weft.models.encoders.conv import Block
from weft.models.splice import full, inside

POSITION_SCALE = 0.3  # sinusoids smaller than the sound they are added to, or position drowns it at the start


class ConvSoundConfig(Frozen):
    """``channels``: width of each 3x3 convolution, which halves time and bands; ``width``: the features'."""

    num_mel_bins: int = 80
    channels: tuple[int, ...] = Field((32, 64), min_length=1)
    width: int = Field(192, multiple_of=2)
    conv_layers: int = Field(3, ge=0)
    kernel: int = 9  # positions along time that a convolutional block sees; odd
    layers: int = Field(1, ge=0)
    heads: int = Field(3, ge=1)
    mlp_ratio: float = 3.0


class TimeBlock(nn.Module):
    """Depthwise convolution along time, then an MLP, beside a residual."""

    def __init__(self, width: int, kernel: int, hidden: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x_NTD: torch.Tensor, inside_NT1: torch.Tensor) -> torch.Tensor:
        mixed_NTD = self.mix((x_NTD * inside_NT1).transpose(1, 2)).transpose(1, 2)
        return x_NTD + self.down(F.gelu(self.up(self.norm(mixed_NTD))))


class ConvSoundTower(nn.Module):
    """log-mel [N, T, M] and lengths [N] -> features [N, T', D], T halved (rounded up) by each of ``channels``."""

    def __init__(self, kind: ConvSound) -> None:
        super().__init__()
        config = kind.config
        if config.width % config.heads or config.kernel % 2 == 0:
            raise WeftError(
                f"audio.config: width {config.width} must be a multiple of heads {config.heads}, and kernel "
                f"{config.kernel} must be odd"
            )
        self.width = config.width
        self.stem = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1)
            for before, after in zip((1, *config.channels), config.channels, strict=False)
        )
        bands = config.num_mel_bins
        for _ in config.channels:
            bands = halved(bands)
        self.project = nn.Linear(config.channels[-1] * bands, config.width)
        self.stem_norm = nn.LayerNorm(config.width)
        hidden = int(config.width * config.mlp_ratio)
        self.blocks = nn.ModuleList(
            [TimeBlock(config.width, config.kernel, hidden) for _ in range(config.conv_layers)]
            + [Block(config.width, config.heads, config.mlp_ratio) for _ in range(config.layers)]
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(self, mel_NTM: torch.Tensor, lengths_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps_NCTM = mel_NTM.to(self.project.weight.dtype)[:, None]
        for convolution in self.stem:
            maps_NCTM = F.gelu(convolution(maps_NCTM * _inside(lengths_N, maps_NCTM)[:, None]))
            lengths_N = halved(lengths_N)
        x_NTD = self.stem_norm(self.project(maps_NCTM.permute(0, 2, 1, 3).flatten(2)))
        x_NTD = x_NTD + POSITION_SCALE * sinusoids(x_NTD.shape[1], self.width, x_NTD)
        inside_NT1 = _inside(lengths_N, x_NTD[:, None])
        keys_N11T = None if full(lengths_N, x_NTD.shape[1]) else inside_NT1[:, None, None, :, 0].bool()
        for block in self.blocks:
            x_NTD = block(x_NTD, keys_N11T if isinstance(block, Block) else inside_NT1)
        return self.norm(x_NTD) * inside_NT1, lengths_N


def _inside(lengths_N: torch.Tensor, maps_NCTX: torch.Tensor) -> torch.Tensor:
    """[N, T, 1]: one where a position lies within its clip, zero beyond."""
    return inside(lengths_N, maps_NCTX.shape[2], maps_NCTX.device)[..., None].to(maps_NCTX.dtype)


def sinusoids(length: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Whisper's positions [length, width]: sines, then cosines, of angles from 1 to 1/10000 a position."""
    rates = torch.exp(-math.log(10000.0) * torch.arange(width // 2, device=like.device) / (width // 2 - 1))
    angles = torch.arange(length, device=like.device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1).to(like.dtype)


class ConvSound(SoundKind):
    tower, config_class, fixed = ConvSoundTower, ConvSoundConfig, {}
    # A CPU's kernels are made anew for each shape: few shapes made an update of spoken digits a fifth faster, more
    # frames and all, and kept a GB of kernels out of memory.
    batch_frames = 128

    @property
    def seconds(self) -> float:
        return HOP / self.section.sample_rate * 2 ** len(self.config.channels)

    def features(self, frames: int) -> int:
        for _ in self.config.channels:
            frames = halved(frames)
        return frames
