"""How many tokens a picture or a clip becomes: arithmetic on the configuration alone, no weights, no tensors.

The encoders compute the same lengths from the same functions, so what the processor writes and what the model splices
cannot differ. ``conv_length`` and the like take an int or an integer tensor.

Where the number of features is not a multiple of ``connector.merge``, the last group is filled up with zeros (for
"pool": is averaged over what is there), so the count is rounded *up*. Qwen-Audio's own halving happens inside its
encoder and rounds *down* (an odd last frame is dropped), as published.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

from weft.conversation import WeftError
from weft.models.config import AudioSection, Connector, VisionSection

HOP = 160  # samples of one mel frame (10 ms at 16 kHz)
QWEN_SHORTEST = 3  # mel frames: the shortest clip that Qwen-Audio's encoder gives one token for

Length = TypeVar("Length")  # int or integer tensor


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of a clip that is encoded on its own.

    ``start``, ``end``: samples of the clip. ``frames``: feature frames fed (mel frames; samples where the encoder takes
    the waveform). ``tokens``: embeddings it gives, start and end tokens not counted. ``padded``: the number of samples
    the stretch is filled up to with silence before its features are computed, so that the features are
    ``log_mel(stretch, pad_to=padded)[:frames]`` (or the padded samples themselves).
    """

    start: int
    end: int
    frames: int
    tokens: int
    padded: int


def connector_tokens(connector: Connector, features: int, grid: tuple[int, int] | None = None) -> int:
    """Tokens that ``features`` features give; ``grid`` is the patch grid of an image that has no other features."""
    if connector.kind == "queries":
        return connector.queries
    if connector.kind == "none":
        return features
    if connector.grid and grid is not None:
        side = grid_side(connector)
        return -(-grid[0] // side) * -(-grid[1] // side)
    return -(-features // connector.merge)


def grid_side(connector: Connector) -> int:
    side = math.isqrt(connector.merge)
    if side * side != connector.merge:
        raise WeftError(
            f"connector: with grid=true, merge must be a square number, and {connector.merge} is not; take 4 or 9"
        )
    return side


def image_grid(vision: VisionSection) -> tuple[int, int]:
    """Rows and columns of patches of one image."""
    height, width = vision.size
    if vision.kind == "conv":
        for _ in vision.config.get("channels", CONV_CHANNELS):
            height, width = conv_length(height), conv_length(width)
        return height, width
    patch = int(vision.config.get("patch_size", PATCH[vision.kind]))
    if height % patch or width % patch:
        raise WeftError(
            f"vision.size {height}x{width} is not a multiple of the encoder's patch size {patch}; change vision.size"
        )
    return height // patch, width // patch


def merged_grid(vision: VisionSection) -> tuple[int, int]:
    """Rows and columns of the embeddings of one image, where they lie on a grid."""
    rows, columns = image_grid(vision)
    merge = vision.connector.merge
    if vision.connector.kind == "queries" or not (vision.drop_cls or vision.kind in ("siglip", "conv")):
        raise WeftError(
            "vision.connector.places, listen and listen.guide need embeddings on a grid, and this encoder with its "
            "connector gives none; turn them off"
        )
    if vision.connector.grid:
        side = grid_side(vision.connector)
        return -(-rows // side), -(-columns // side)
    if columns % merge:
        raise WeftError(
            f"vision.connector: places need whole rows, and merge {merge} does not divide a row of {columns} patches; "
            "set grid"
        )
    return rows, columns // merge


# What a configuration that does not name them means (transformers' defaults; `ConvTowerConfig`'s channels).
PATCH = {"clip": 32, "siglip": 16, "dinov2": 14, "eva": 14}
CONV_CHANNELS = (24, 48, 96, 192)
SOUND_CHANNELS = (32, 64)  # `ConvSoundConfig`'s


def image_features(vision: VisionSection) -> int:
    """Features of one image that reach the connector."""
    rows, columns = image_grid(vision)
    has_cls = vision.kind in ("clip", "dinov2", "eva") and not vision.drop_cls
    return rows * columns + has_cls


def image_tokens(vision: VisionSection) -> int:
    """Embeddings of one image, start and end tokens not counted."""
    features, grid = image_features(vision), image_grid(vision)
    return connector_tokens(vision.connector, features, grid if features == grid[0] * grid[1] else None)


def mel_bands(audio: AudioSection) -> int | None:
    """Bands of the log-mel that the encoder takes; None where it takes the waveform."""
    return None if audio.kind == "wav2vec2" else int(audio.config.get("num_mel_bins", 80))


def token_seconds(audio: AudioSection) -> float:
    """Seconds of sound in one embedding, where embeddings follow the sound."""
    if audio.kind == "whisper_decoder" or audio.connector.kind == "queries":
        raise WeftError(
            "audio.connector.places, listen and listen.guide need embeddings that follow the sound, and this encoder "
            "with its connector gives none; turn them off"
        )
    if audio.kind == "wav2vec2":
        stride = math.prod(audio.config.get("conv_stride", (5, 2, 2, 2, 2, 2, 2)))
        if audio.config.get("add_adapter"):
            stride *= audio.config.get("adapter_stride", 2) ** audio.config.get("num_adapter_layers", 3)
        return stride * audio.connector.merge / audio.sample_rate
    halvings = {"whisper": 1, "qwen_audio": 2, "conv": len(audio.config.get("channels", SOUND_CHANNELS))}
    return HOP / audio.sample_rate * 2 ** halvings[audio.kind] * audio.connector.merge


def conv_length(frames: Length) -> Length:
    """Length after a convolution of width 3, stride 2, padding 1."""
    return (frames + 1) // 2  # type: ignore[operator, return-value]


def wav2vec2_length(samples: Length, config: dict) -> Length:
    """Features that Wav2Vec2's convolutions make of a waveform (0 or less where it is too short)."""
    kernels = config.get("conv_kernel", (10, 3, 3, 3, 3, 2, 2))
    strides = config.get("conv_stride", (5, 2, 2, 2, 2, 2, 2))
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = (samples - kernel) // stride + 1  # type: ignore[operator]
    if config.get("add_adapter"):
        for _ in range(config.get("num_adapter_layers", 3)):
            samples = (samples - 1) // config.get("adapter_stride", 2) + 1  # type: ignore[operator]
    return samples


def window_samples(audio: AudioSection) -> int:
    return round(audio.window_seconds * audio.sample_rate)


def audio_windows(audio: AudioSection, n_samples: int) -> list[Window]:
    """The windows that a clip of ``n_samples`` samples (at the encoder's rate) is encoded in; all of it is covered.

    A rest too short to give a token is filled up with silence; a whole clip that is empty, or shorter than Qwen-Audio's
    encoder can take (30 ms), is an error.
    """
    if n_samples <= 0:
        raise WeftError("the audio clip is empty (0 samples); remove it or give a clip with sound in it")
    if audio.kind == "qwen_audio" and n_samples // HOP < QWEN_SHORTEST:
        ms = 1000 * n_samples / audio.sample_rate
        raise WeftError(
            f"the audio clip is too short for Qwen-Audio's encoder: {ms:.3g} ms gives {n_samples // HOP} frames of "
            f"10 ms and it needs {QWEN_SHORTEST}; give a clip of at least 30 ms"
        )
    size = window_samples(audio)
    return [_window(audio, start, min(start + size, n_samples)) for start in range(0, n_samples, size)]


def _window(audio: AudioSection, start: int, end: int) -> Window:
    samples, whole = end - start, window_samples(audio)
    if audio.kind == "wav2vec2":
        fed = whole if audio.pad_to_window else samples
        while wav2vec2_length(fed, audio.config) < 1:
            fed += 1
        features = wav2vec2_length(fed, audio.config)
        return Window(start, end, fed, connector_tokens(audio.connector, features), fed)
    if audio.kind == "qwen_audio":
        mel = max(samples // HOP, QWEN_SHORTEST)
        conv = conv_length(mel)
        frames, features = 2 * conv, conv // 2
        if audio.batch_leak:  # one frame more: what the original's first convolution sees of it in a batch
            frames = min(frames + 1, whole // HOP)
    elif audio.kind == "whisper_decoder":
        frames, features = whole // HOP, audio.decoder_tokens
    else:
        frames = whole // HOP if audio.pad_to_window else max(samples // HOP, 1)
        features = frames
        for _ in audio.config.get("channels", SOUND_CHANNELS) if audio.kind == "conv" else (None,):
            features = conv_length(features)
    # A frame looks 200 samples to each side, so with 3 frames of silence behind it the last one equals that of the
    # clip padded to a whole window, as does the loudest frame, which the floor of the log-mel hangs on.
    padded = max(whole if frames * HOP >= whole else (frames + 3) * HOP, samples)
    return Window(start, end, frames, connector_tokens(audio.connector, features), padded)
