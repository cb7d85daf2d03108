"""Whisper's encoder, and what Qwen-Audio and LLaSM make of it.

The modules are transformers' own `WhisperEncoder` (weights under ``audio.tower.`` with its names), but the forward pass
here takes clips of any length up to the window, with their lengths: what lies beyond a clip's own end is zeroed before
each convolution, which is what the convolution's own padding would be, and masked as a key. A short clip in a batch
thus equals the clip alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import WhisperConfig, WhisperModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from weft.conversation import WeftError
from weft.media.mel import HOP
from weft.models import attention
from weft.models.encoders.base import SoundKind, Window, halved
from weft.models.splice import apart, end_to_end, full, inside


class WhisperTower(nn.Module):
    """log-mel [N, T, M] and lengths [N] -> features [N, ceil(T/2), D] (one per 20 ms) and their lengths."""

    def __init__(self, kind: Whisper) -> None:
        super().__init__()
        self.width: int = kind.config.d_model
        self.tower = self.build(kind.config)

    def build(self, config: WhisperConfig) -> Any:
        return WhisperEncoder(config)

    @property
    def encoder(self) -> Any:
        return self.tower

    @torch.no_grad()
    def start_well(self) -> None:
        """A better random start than transformers' own (weights of a source replace it anyway).

        Its own convolutions start so small that their output, 0.05 to 0.1, drowns in positions of 0.7: measured on
        spoken digits, one word was recognised in 57 % instead of 29 % after 50 steps.
        """
        for conv in (self.encoder.conv1, self.encoder.conv2):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        self.encoder.embed_positions.weight.mul_(0.3)

    def forward(self, mel_NTM: torch.Tensor, lengths_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden_NTD, lengths_N = self.encode(mel_NTM, lengths_N, lengths_N)
        return blank(self.encoder.layer_norm(hidden_NTD), lengths_N), lengths_N

    def encode(
        self, mel_NTM: torch.Tensor, fed_N: torch.Tensor, own_N: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The encoder up to, not including, its last norm; ``mel_NTM`` is zero beyond what is fed of each clip.

        ``own_N``: frames of the clips themselves, whose features go through the layers.
        """
        encoder = self.encoder
        mel_NTM = blank(mel_NTM.to(encoder.conv1.weight.dtype), fed_N)
        hidden_NDT = F.gelu(encoder.conv1(mel_NTM.transpose(1, 2)))
        hidden_NDT = blank(hidden_NDT.transpose(1, 2), fed_N).transpose(1, 2)
        return self.blocks(F.gelu(encoder.conv2(hidden_NDT)).transpose(1, 2), halved(own_N))

    def blocks(self, hidden_NTD: torch.Tensor, lengths_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions and transformer layers over the convolutions' output."""
        encoder, size = self.encoder, hidden_NTD.shape[1]
        hidden_NTD = hidden_NTD + encoder.embed_positions.weight[:size]
        hidden_NTD = F.dropout(blank(hidden_NTD, lengths_N), encoder.dropout, self.training)
        mask = None
        own = encoder.config._attn_implementation == attention.NAME and not torch.compiler.is_compiling()
        if packed := own and not full(lengths_N, size):
            # Clips of different lengths are packed into one row: no layer works on what lies between them.
            hidden_NTD, mask = end_to_end(hidden_NTD, lengths_N)[None], attention.segment_mask(lengths_N)
        elif not own:
            mask = create_bidirectional_mask(encoder.config, hidden_NTD, inside(lengths_N, size, hidden_NTD.device))
        for layer in encoder.layers:
            if not (self.training and encoder.layerdrop > 0 and torch.rand([]) < encoder.layerdrop):
                hidden_NTD = layer(hidden_NTD, mask)
        if packed:
            hidden_NTD = apart(hidden_NTD[0], lengths_N, size)
        return hidden_NTD, lengths_N


def blank(x_NTD: torch.Tensor, lengths_N: torch.Tensor) -> torch.Tensor:
    """``x_NTD`` with zeros beyond each item's length (whatever was there, not-a-number included)."""
    if full(lengths_N, x_NTD.shape[1]):
        return x_NTD
    return x_NTD.masked_fill(~inside(lengths_N, x_NTD.shape[1], x_NTD.device)[..., None], 0.0)


class Whisper(SoundKind):
    sources: ClassVar = {"whisper": None}
    source_class, source_prefix, config_class = WhisperModel, "encoder.", WhisperConfig
    tower: ClassVar[type[WhisperTower]] = WhisperTower

    @staticmethod
    def published(config: Mapping[str, Any], prepared: Mapping[str, Any] | None) -> dict[str, Any]:
        """Published weights have only seen clips padded to the whole window, and do without: 30 s of tokens for 2 s of
        speech are 5 times the cost, and a connector that is trained on clips as they are hears no worse."""
        positions = config.get("max_source_positions", None if prepared is None else 1500)
        return {} if positions is None else {"window_seconds": positions / 50}

    @property
    def seconds(self) -> float | None:
        return 2 * self.pooled * HOP / self.section.sample_rate

    def features(self, frames: int) -> int:
        return halved(frames)

    def build(self) -> nn.Module:
        frames, positions = self.window_samples // HOP, self.config.max_source_positions
        if frames > 2 * positions:
            raise WeftError(
                f"audio.window_seconds {self.section.window_seconds:g} makes {frames} frames, and the encoder has "
                f"positions for {2 * positions}; take at most {positions / 50:g} seconds"
            )
        return super().build()


class QwenAudioTower(WhisperTower):
    """Qwen-Audio's encoder: Whisper's, halved by averaging *before* the last norm; 25 features a second (audio.py).

    An odd last frame is one of the silence behind a clip, which its first convolution sees. With ``batch_leak`` only a
    clip next to a longer one sees it: as in the released code, mel is cut to the longest clip of the batch.
    """

    def __init__(self, kind: QwenAudio) -> None:
        super().__init__(kind)
        self.batch_leak = kind.section.batch_leak

    def forward(self, mel_NTM: torch.Tensor, lengths_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        own_N = lengths_N - lengths_N % 2
        if self.batch_leak:
            mel_NTM = mel_NTM[:, : int(own_N.max())]
            lengths_N = lengths_N.clamp(max=mel_NTM.shape[1])
        hidden_NTD, lengths_N = self.encode(mel_NTM, lengths_N, own_N)
        lengths_N = lengths_N // 2
        pooled_NtD = F.avg_pool1d(hidden_NTD.transpose(1, 2), 2, 2).transpose(1, 2)
        return blank(self.encoder.layer_norm(pooled_NtD), lengths_N), lengths_N


class QwenAudio(Whisper):
    sources: ClassVar = {}
    tower = QwenAudioTower
    leaks, pooled, shortest = True, 2, 3
    silence = False  # whether one frame of the silence behind a clip is heard

    def features(self, frames: int) -> int:
        return halved(frames - frames % 2) // 2  # an odd last one is dropped, as published

    def frames(self, samples: int) -> int:
        frames = 2 * halved(max(self.own(samples), self.shortest))
        # One frame more: what the original's first convolution sees of it in a batch.
        more = self.silence or self.section.batch_leak
        return min(frames + 1, self.window_samples // HOP) if more else frames

    def own(self, samples: int) -> int:
        """Frames of the clip itself."""
        return samples // HOP

    def windows(self, samples: int) -> list[Window]:
        if samples > 0 and self.own(samples) < self.shortest:
            ms = 1000 * samples / self.section.sample_rate
            raise WeftError(
                f"the audio clip is too short for Qwen-Audio's encoder: {ms:.3g} ms gives {self.own(samples)} frames "
                f"of 10 ms and it needs {self.shortest}; give a clip of at least {10 * self.shortest} ms"
            )
        return super().windows(samples)


class WholeTower(WhisperTower):
    """What has Whisper's decoder too: the tower is a whole `WhisperModel`."""

    def build(self, config: WhisperConfig) -> Any:
        return WhisperModel(config)

    @property
    def encoder(self) -> Any:
        return self.tower.encoder


class WhisperDecoderTower(WholeTower):
    """LLaSM's tower (llasm.py): a whole Whisper; its *decoder*, fed N start tokens, gives N states whatever the clip.

    Clips come padded to the whole window, as published; features are the decoder's last hidden states [N, tokens, D].
    """

    def __init__(self, kind: Whisper) -> None:
        super().__init__(kind)
        self.tokens, self.start = kind.section.decoder_tokens, self.tower.config.decoder_start_token_id
        if self.tokens > self.tower.config.max_target_positions:
            raise WeftError(
                f"audio.decoder_tokens {self.tokens} is more than the decoder's "
                f"{self.tower.config.max_target_positions} positions; take fewer"
            )

    def forward(self, mel_NTM: torch.Tensor, lengths_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        heard_NTD, _ = super().forward(mel_NTM, lengths_N)
        ids_NT = torch.full((len(mel_NTM), self.tokens), self.start, device=mel_NTM.device)
        # Without a mask, transformers would ask the device whether positions start anew in a row.
        given = {"input_ids": ids_NT, "attention_mask": torch.ones_like(ids_NT), "encoder_hidden_states": heard_NTD}
        states_NTD = self.tower.decoder(**given, use_cache=False).last_hidden_state
        return states_NTD, torch.full_like(lengths_N, self.tokens)


class WhisperDecoder(Whisper):
    sources: ClassVar = {}
    source_prefix = ""
    tower = WhisperDecoderTower

    @property
    def seconds(self) -> None:
        return None

    def features(self, frames: int) -> int:
        return self.section.decoder_tokens

    def frames(self, samples: int) -> int:
        return self.window_samples // HOP
