"""Encoders: pixels, log-mel or waveform to features [N, T, D]. Each file is one kind, or a family of them.

A kind knows all that is true of it (`base`): how many tokens an item gives, how items are prepared, what published
models call it, and how its tower is built. A further one is a file and a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from weft.conversation import WeftError
from weft.models.config import AudioSection, VisionSection
from weft.models.encoders.base import ImageKind, SoundKind, Window
from weft.named import Named

Kind = TypeVar("Kind", ImageKind, SoundKind)
HERE = "weft.models.encoders."
IMAGES = Named[type[ImageKind]](
    {
        "backbone": HERE + "backbone:Backbone",  # first: of a model_type that a later one reads too, that knows more
        "clip": HERE + "more_images:Clip",
        "siglip": HERE + "more_images:Siglip",
        "dinov2": HERE + "more_images:Dinov2",
        "eva": HERE + "images:Eva",
        "internvit": HERE + "more_images:InternViT",
        "conv": HERE + "conv:Conv",
    }
)
SOUNDS = Named[type[SoundKind]](
    {
        "whisper": HERE + "whisper:Whisper",
        "whisper_decoder": HERE + "whisper:WhisperDecoder",
        "transcript": HERE + "transcript:Transcript",
        "qwen_audio": HERE + "whisper:QwenAudio",
        "qwen2_audio": HERE + "qwen2_audio:Qwen2Audio",
        "wav2vec2": HERE + "wav2vec2:Waveform",
        "conv": HERE + "conv_sound:ConvSound",
    }
)
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
