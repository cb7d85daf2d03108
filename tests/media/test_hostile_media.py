"""Whatever the bytes: either a ``MediaError`` or a result of the right shape, never another error or a wrong size.

The same examples each time: what a library does with others is not for the change that is being tested to answer for.
`WEFT_FUZZ=1 pytest tests/media/test_hostile_media.py` draws new ones.
"""

import importlib.util
import os
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_files import AMR_WB, SOUND_FORMATS, encode_av, encode_image, encode_sound, exif, photo, tone

from examples import examples
from weft.media import MediaError, audio_samples, image_size, load_audio, load_image

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow warns of odd tags and of large pictures

MORE = bool(os.environ.get("WEFT_FUZZ"))
SOUNDS = [encode_sound(3000, 16000, 1, format, subtype) for format, subtype in SOUND_FORMATS]
PICTURES = [
    encode_image(photo(), "JPEG", exif=exif(6)),
    encode_image(photo(), "JPEG", progressive=True),
    encode_image(photo().convert("CMYK"), "JPEG"),
    encode_image(photo(), "PNG", exif=exif(8)),
    encode_image(photo().quantize(8), "PNG", transparency=1),
    encode_image(photo().convert("RGBA"), "PNG"),
    encode_image(photo(), "GIF"),
    encode_image(photo(), "WEBP", exif=exif(3)),
    encode_image(photo().convert("RGBA"), "WEBP", lossless=True),
    encode_image(photo(), "TIFF", exif=exif(6)),
    encode_image(photo().convert("F"), "TIFF"),
    encode_image(photo(), "TIFF", compression="tiff_lzw"),
    encode_image(photo().convert("1"), "TIFF", compression="group4"),
]
PICTURES += [
    encode_image(photo(), "JPEG2000"),
    encode_image(photo(), "PPM"),
    encode_image(photo(), "TGA", compression="tga_rle"),
    encode_image(photo(), "ICO", sizes=[(40, 30)]),
    encode_image(photo(), "ICO", sizes=[(40, 30)], bitmap_format="bmp"),
]
if importlib.util.find_spec("av"):
    WAVE = tone(4000)[:, 0]
    SOUNDS += [
        encode_av("mp4", "aac", WAVE, 16000, video=True),
        encode_av("mp4", "aac", WAVE, 16000, movflags="frag_keyframe+empty_moov"),
        encode_av("webm", "libopus", WAVE, 16000),
        encode_av("adts", "aac", WAVE, 16000),
        AMR_WB,
        encode_av("caf", "alac", WAVE, 16000),
    ]
if all(map(importlib.util.find_spec, ("pillow_heif", "pillow_jxl"))):
    import pillow_heif
    import pillow_jxl  # noqa: F401

    pillow_heif.register_heif_opener()  # for writing
    PICTURES += [
        encode_image(photo(), "HEIF", exif=exif(6).tobytes()),
        encode_image(photo(), "AVIF", exif=exif(6)),
        encode_image(photo(), "JXL"),
    ]
MAGICS = [b"RIFF\x40\0\0\0WAVEfmt ", b"fLaC\0\0\0\x22", b"OggS\0\2", b"ID3\3\0\0\0\0\0\0", b"\xff\xfb\x90\x64"]
MAGICS += [
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"\xff\xd8\xff\xe0",
    b"GIF89a",
    b"II*\0\x08\0\0\0",
    b"RIFF\x40\0\0\0WEBPVP8 ",
]


def _hear(data: bytes) -> None:
    promised = None
    try:
        promised = audio_samples(data)
        wave = load_audio(data)
    except MediaError as error:
        assert "\n" not in str(error)
        return
    assert wave.dtype == np.float32 and wave.ndim == 1 and np.isfinite(wave).all()
    assert len(wave) == promised


def _see(data: bytes) -> None:
    try:
        size = image_size(data)
        image = load_image(data)
    except MediaError as error:
        assert "\n" not in str(error)
        return
    assert image.mode == "RGB" and image.size == size


def _damaged(data: bytes, seed: int, truncate: bool) -> bytes:
    """Cut short, or a few bytes changed (half of the time among the first, where headers are)."""
    rng = random.Random(seed)
    if truncate:
        return data[: rng.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        at = rng.randrange(min(len(data), 120) if rng.random() < 0.5 else len(data))
        changed[at : at + 1] = rng.choice((b"\xff", b"\0", b"\x7f", rng.randbytes(1)))
    return bytes(changed)


@given(st.binary(max_size=300), st.sampled_from([b"", *MAGICS]))
@examples(200, derandomize=not MORE)
def test_random_bytes(data, magic):
    _see(magic + data)
    _hear(magic + data)


@given(st.sampled_from(PICTURES), st.integers(0, 2**32), st.booleans())
@examples(300, derandomize=not MORE)
def test_damaged_pictures(data, seed, truncate):
    _see(_damaged(data, seed, truncate))


@given(st.sampled_from(SOUNDS), st.integers(0, 2**32), st.booleans())
@examples(300, derandomize=not MORE)
def test_damaged_sounds(data, seed, truncate):
    _hear(_damaged(data, seed, truncate))
