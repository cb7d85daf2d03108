"""Encoded pictures and sounds that the tests make for themselves."""

import io
from typing import Any

import numpy as np
import soundfile
from PIL import Image


def tone(frames: int, channels: int = 1, rate: int = 16000, seed: int = 0) -> np.ndarray:
    """Float32 ``[frames, channels]``: a tone with noise, other in each channel."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames)[:, None] / rate
    pitch = 300 + 170 * np.arange(channels)
    return (0.3 * np.sin(2 * np.pi * pitch * time) + 0.02 * rng.standard_normal((frames, channels))).astype(np.float32)


def encode_sound(
    frames: int = 5000, rate: int = 16000, channels: int = 1, format: str = "WAV", subtype: str = "PCM_16", **more: Any
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(frames, channels, rate), rate, format=format, subtype=subtype, **more)
    return buffer.getvalue()


SOUND_FORMATS = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAV", "ULAW"),
    ("WAV", "IMA_ADPCM"),
    ("WAV", "GSM610"),
    ("WAVEX", "PCM_16"),
    ("RF64", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("MP3", "MPEG_LAYER_III"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
]


def photo(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    """A smooth RGB picture whose corners differ, so that turning it is seen."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def encode_image(image: Image.Image, format: str, **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **more)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags
