"""Wav2Vec2 and its kin: waveform to features, one per 20 ms with the usual configuration.

Weights lie under ``audio.tower.`` with the names of transformers' `Wav2Vec2Model`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from weft.models.encoders.base import Length, SoundKind, Window
from weft.models.encoders.whisper import blank
from weft.models.loss import sent
from weft.models.splice import full, inside


class WaveformTower(nn.Module):
    """samples [N, S] and lengths [N] -> features [N, T, D] and their lengths.

    Some checkpoints (``feat_extract_norm="group"``) normalise over a clip's whole length inside the first convolution,
    padding included, so clips of different lengths cannot share a batch there: those run one length at a time. So do
    those with an adapter, whose convolutions look beyond a clip's end.
    """

    def __init__(self, kind: Waveform) -> None:
        super().__init__()
        config, self.normalize, self.lengths = kind.config, kind.section.normalize, kind.features
        self.width = int(config.output_hidden_size or config.hidden_size) if config.add_adapter else config.hidden_size
        self.alone = config.feat_extract_norm == "group" or config.add_adapter
        self.tower = Wav2Vec2Model(config)

    def forward(self, samples_NS: torch.Tensor, lengths_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        samples_NS = samples_NS.to(next(self.tower.parameters()).dtype)
        if self.normalize:
            samples_NS = normalized(samples_NS, lengths_N)
        samples_NS = blank(samples_NS[..., None], lengths_N)[..., 0]
        features_N = self.lengths(lengths_N)
        whole = full(lengths_N, samples_NS.shape[1])
        if not self.alone or whole:
            mask = None if whole else inside(lengths_N, samples_NS.shape[1], samples_NS.device).long()
            features_NTD = self.tower(samples_NS, attention_mask=mask).last_hidden_state
            return blank(features_NTD, features_N), features_N
        out_NTD = samples_NS.new_zeros(len(samples_NS), int(features_N.max()), self.width)
        for length in lengths_N.unique().tolist():
            rows = sent((lengths_N == length).nonzero()[:, 0], samples_NS.device)
            features = self.tower(samples_NS[rows, :length]).last_hidden_state
            padded = nn.functional.pad(features, (0, 0, 0, out_NTD.shape[1] - features.shape[1]))
            out_NTD = out_NTD.index_add(0, rows, padded.to(out_NTD.dtype))
        return out_NTD, features_N


def normalized(samples_NS: torch.Tensor, lengths_N: torch.Tensor) -> torch.Tensor:
    """Each clip with zero mean and unit variance over its own length (transformers' Wav2Vec2FeatureExtractor)."""
    inside_NS = inside(lengths_N, samples_NS.shape[1], samples_NS.device)
    count_N1 = sent(lengths_N[:, None], samples_NS.device)
    mean_N1 = samples_NS.masked_fill(~inside_NS, 0.0).sum(1, keepdim=True) / count_N1
    centred_NS = (samples_NS - mean_N1).masked_fill(~inside_NS, 0.0)
    return centred_NS / (centred_NS.square().sum(1, keepdim=True) / count_N1 + 1e-7).sqrt()


class Waveform(SoundKind):
    sources: ClassVar = {"wav2vec2": None}
    source_class, tower, config_class = Wav2Vec2Model, WaveformTower, Wav2Vec2Config
    # weft's own augmentation is on the data, where answers can follow it; nor the masking vector, which would never
    # be used
    fixed: ClassVar = {**SoundKind.fixed, "apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    bands = None

    @staticmethod
    def published(config: Mapping[str, Any], prepared: Mapping[str, Any] | None) -> dict[str, Any]:
        if prepared is None:
            return {}
        rate = prepared.get("sampling_rate", 16000)
        return {"normalize": bool(prepared.get("do_normalize", True)), "sample_rate": rate}

    @property
    def seconds(self) -> float:
        c = self.config
        stride = math.prod(c.conv_stride) * (c.adapter_stride**c.num_adapter_layers if c.add_adapter else 1)
        return stride / self.section.sample_rate

    def features(self, frames: Length) -> Length:
        """Features that the convolutions make of so many samples (0 or less where they are too few)."""
        c = self.config
        for kernel, stride in zip(c.conv_kernel, c.conv_stride, strict=True):
            frames = (frames - kernel) // stride + 1
        for _ in range(c.num_adapter_layers if c.add_adapter else 0):
            frames = (frames - 1) // c.adapter_stride + 1
        return frames

    def frames(self, samples: int) -> int:
        samples = self.window_samples if self.section.pad_to_window else samples
        while self.features(samples) < 1:
            samples += 1
        return samples

    def window(self, start: int, end: int) -> Window:
        fed = self.frames(end - start)
        return Window(start, end, fed, self.tokens(fed), fed)

    def prepare(self, wave: np.ndarray, window: Window) -> np.ndarray:
        return np.pad(wave, (0, window.padded - len(wave)))
