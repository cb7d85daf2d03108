"""Wav2Vec2 and its kin: waveform to features, one per 20 ms with the usual configuration.

Weights lie under ``audio.tower.`` with the names of transformers' `Wav2Vec2Model`.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from weft.models import attention
from weft.models.config import AudioSection
from weft.models.encoders.whisper import blank, within
from weft.models.layout import wav2vec2_length


class WaveformTower(nn.Module):
    """samples [N, S] and lengths [N] -> features [N, T, D] and their lengths.

    Some checkpoints (``feat_extract_norm="group"``) normalise over a clip's whole length inside the first convolution,
    padding included, so clips of different lengths cannot share a batch there: those run one length at a time. So do
    those with an adapter, whose convolutions look beyond a clip's end.
    """

    def __init__(self, section: AudioSection) -> None:
        super().__init__()
        drop = ("dtype", "torch_dtype", "model_type", "architectures")
        config = Wav2Vec2Config(**{k: v for k, v in section.config.items() if k not in drop})
        config._attn_implementation = attention.NAME
        config.apply_spec_augment = False  # weft's own augmentation is on the data, where answers can follow it
        config.mask_time_prob = config.mask_feature_prob = 0.0  # nor the masking vector, which would never be used
        self.fields, self.normalize = section.config, section.normalize
        self.width = int(config.output_hidden_size or config.hidden_size) if config.add_adapter else config.hidden_size
        self.alone = config.feat_extract_norm == "group" or config.add_adapter
        self.tower = Wav2Vec2Model(config)

    def forward(self, samples_NS: torch.Tensor, lengths_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        samples_NS = samples_NS.to(next(self.tower.parameters()).dtype)
        if self.normalize:
            samples_NS = normalized(samples_NS, lengths_N)
        samples_NS = blank(samples_NS[..., None], lengths_N)[..., 0]
        features_N = wav2vec2_length(lengths_N, self.fields)
        if not self.alone or int(lengths_N.min()) == samples_NS.shape[1]:
            mask = within(lengths_N, samples_NS.shape[1]).long() if int(lengths_N.min()) < samples_NS.shape[1] else None
            features_NTD = self.tower(samples_NS, attention_mask=mask).last_hidden_state
            return blank(features_NTD, features_N), features_N
        out_NTD = samples_NS.new_zeros(len(samples_NS), int(features_N.max()), self.width)
        for length in lengths_N.unique().tolist():
            rows = (lengths_N == length).nonzero()[:, 0]
            features = self.tower(samples_NS[rows, :length]).last_hidden_state
            padded = nn.functional.pad(features, (0, 0, 0, out_NTD.shape[1] - features.shape[1]))
            out_NTD = out_NTD.index_add(0, rows, padded.to(out_NTD.dtype))
        return out_NTD, features_N


def normalized(samples_NS: torch.Tensor, lengths_N: torch.Tensor) -> torch.Tensor:
    """Each clip with zero mean and unit variance over its own length (transformers' Wav2Vec2FeatureExtractor)."""
    inside_NS = within(lengths_N, samples_NS.shape[1])
    count_N1 = lengths_N[:, None]
    mean_N1 = samples_NS.masked_fill(~inside_NS, 0.0).sum(1, keepdim=True) / count_N1
    centred_NS = (samples_NS - mean_N1).masked_fill(~inside_NS, 0.0)
    return centred_NS / (centred_NS.square().sum(1, keepdim=True) / count_N1 + 1e-7).sqrt()
