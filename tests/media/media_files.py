"""Encoded pictures and sounds that the tests make for themselves."""

import io
import struct
import zlib
from fractions import Fraction
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
    ("AIFF", "PCM_16"),
    ("AIFF", "ULAW"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("NIST", "PCM_16"),
    ("W64", "PCM_16"),
]


def click(frames: int, at: int, rate: int) -> np.ndarray:
    """Float32 ``[frames]``: silence, and a short wave whose highest sample is at ``at``."""
    wave = np.zeros(frames, np.float32)
    time = np.arange(-64, 64)
    wave[at - 64 : at + 64] = 0.8 * np.hanning(129)[:128] * np.cos(2 * np.pi * 1200 / rate * time)
    return wave


def encode_av(container: str, codec: str, wave: np.ndarray, rate: int, video: bool = False, **options: str) -> bytes:
    """A mono sound ``[frames]`` as FFmpeg writes it; ``options`` of its muxer."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=options) as out:
        if video:
            picture = out.add_stream("mpeg4", rate=5, width=32, height=32, pix_fmt="yuv420p")
        stream = out.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        fifo = av.AudioFifo()
        for block in av.AudioResampler(format=stream.codec_context.codec.audio_formats[0], rate=rate).resample(frame):
            fifo.write(block)
        if video:
            for _ in range(5):
                out.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
            out.mux(picture.encode())
        while (block := fifo.read(stream.codec_context.frame_size or 1024, partial=True)) is not None:
            out.mux(stream.encode(block))
        out.mux(stream.encode())
    return buffer.getvalue()


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


def tiff(values: np.ndarray, tags: dict[int, int | float] | None = None, order: str = "<", body: bytes = b"") -> bytes:
    """A TIFF of ``[H, W]`` or ``[H, W, C]`` samples as they are, in one strip; ``tags`` before those that it needs.

    Floats become FLOAT, whole numbers LONG or, up to 16 bits, SHORT. ``body``: the strip, where it is none of these.
    """
    height, width, *channels = values.shape
    body = body or values.astype(values.dtype.newbyteorder(order)).tobytes()
    count = channels[0] if channels else 1
    fields: dict[int, int | float] = {
        256: width,
        257: height,
        258: 8 * values.itemsize,
        259: 1,
        262: 2 if channels else 1,
    }
    fields |= {273: 8, 277: count, 278: height, 279: len(body), 339: {"u": 1, "i": 2, "f": 3}[values.dtype.kind]}
    fields |= tags or {}
    entries = b""
    for tag, value in sorted(fields.items()):
        kind, form = (11, "f") if isinstance(value, float) else (4, "I") if value > 65535 or tag == 273 else (3, "Hxx")
        entries += struct.pack(order + "HHI" + form, tag, kind, 1, value)
    body += b"\0" * (len(body) % 2)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(body))
    return head + body + struct.pack(order + "H", len(fields)) + entries + bytes(4)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes, before: bytes = b"IDAT") -> bytes:
    """A PNG with one more chunk, before the first of the kind ``before``."""
    at = png.index(before) - 4
    return png[:at] + png_chunk(kind, data) + png[at:]
