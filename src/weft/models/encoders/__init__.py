"""Encoders: pixels, log-mel or waveform to features [N, T, D]. Each file is one kind.

An image encoder is called with pixels [N, 3, H, W] and gives features [N, T, D]. A sound encoder is called with
features [N, T, M] (or samples [N, S]) and the length of each item [N] and gives ``(features [N, T', D], lengths [N])``;
what lies beyond an item's own length is zero, and never reaches the item itself. Both tell their ``width`` D.
"""

from __future__ import annotations

from torch import nn

from weft.models.config import AudioSection, VisionSection


def build_vision(section: VisionSection) -> nn.Module:
    if section.kind == "conv":
        from weft.models.encoders.conv import ConvTower

        return ConvTower(section)
    from weft.models.encoders.images import ImageTower

    return ImageTower(section)


def build_audio(section: AudioSection) -> nn.Module:
    if section.kind == "wav2vec2":
        from weft.models.encoders.wav2vec2 import WaveformTower

        return WaveformTower(section)
    if section.kind == "conv":
        from weft.models.encoders.conv_sound import ConvSoundTower

        return ConvSoundTower(section)
    from weft.models.encoders.whisper import QwenAudioTower, WhisperDecoderTower, WhisperTower

    if section.kind == "qwen_audio":
        return QwenAudioTower(section)
    return WhisperDecoderTower(section) if section.kind == "whisper_decoder" else WhisperTower(section)
