"""Encoders: pixels, log-mel or waveform to features [N, T, D]. Each file is one kind, or a family of them.

A kind knows all that is true of it (`base`): how many tokens an item gives, how items are prepared, what published
models call it, and how its tower is built. A further one is a file and a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from weft.conversation import WeftError
from weft.models.config import AudioSection, VisionSection
from weft.models.encoders.backbone import Backbone
from weft.models.encoders.base import ImageKind, SoundKind, Window
from weft.models.encoders.conv import Conv
from weft.models.encoders.conv_sound import ConvSound
from weft.models.encoders.images import Clip, Dinov2, Eva, InternViT, Siglip
from weft.models.encoders.wav2vec2 import Waveform
from weft.models.encoders.whisper import Qwen2Audio, QwenAudio, Whisper, WhisperDecoder

Kind = TypeVar("Kind", ImageKind, SoundKind)
IMAGES: dict[str, type[ImageKind]] = {
    "backbone": Backbone,  # first: of a model_type that a later one reads too, that one knows more
    "clip": Clip,
    "siglip": Siglip,
    "dinov2": Dinov2,
    "eva": Eva,
    "internvit": InternViT,
    "conv": Conv,
}
SOUNDS: dict[str, type[SoundKind]] = {
    "whisper": Whisper,
    "whisper_decoder": WhisperDecoder,
    "qwen_audio": QwenAudio,
    "qwen2_audio": Qwen2Audio,
    "wav2vec2": Waveform,
    "conv": ConvSound,
}
INPUTS = {"vision": "pixel_values", "audio": "input_features"}  # what a part of the model is given


def image_kind(section: VisionSection) -> ImageKind:
    return known(IMAGES, section.kind, "vision")(section)


def sound_kind(section: AudioSection) -> SoundKind:
    return known(SOUNDS, section.kind, "audio")(section)


def known(kinds: Mapping[str, type[Kind]], name: str, part: str) -> type[Kind]:
    if name not in kinds:
        raise WeftError(f"{part}: kind {name!r} is none that weft knows; it knows {', '.join(kinds)}")
    return kinds[name]


__all__ = ["IMAGES", "INPUTS", "SOUNDS", "ImageKind", "SoundKind", "Window", "image_kind", "known", "sound_kind"]
