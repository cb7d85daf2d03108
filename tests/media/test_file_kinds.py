"""A file that is not read is called by what it is, and the sentence says what to do with it."""

import io

import numpy as np
import pytest
from media_files import encode_sound, tone
from PIL import Image, TiffImagePlugin

from weft.kinds import advice, sniff
from weft.media import MediaError, image_size, load_audio, load_image

OGG = b"OggS\0\2" + bytes(20) + b"\1\x13"
GSM = (b"\xd2" + bytes(32)) * 10
WAV = encode_sound()
SOUNDS = [
    (OGG + b"\x7fFLAC\1\0" + bytes(20), "is an OGG of FLAC, which is not read; make a sound of it"),
    (OGG + b"Speex   1.2rc1" + bytes(60), "is an OGG of Speex, which is not read; make a sound of it"),
    (OGG + b"\x80theora" + bytes(20), "is an OGG video, which is not read; make a sound"),
    (WAV[:20] + b"\x8f\2" + WAV[22:], r"is a WAV sound in a codec that is not read; save it again as WAV or FLAC"),
    (WAV[:50], "is a WAV sound that is damaged|is cut short"),
    (GSM, "is a GSM sound without a header, which is not read"),
    (encode_sound(format="AU", subtype="G721_32"), r"is AU \(G721_32\), which is not read"),
    (encode_sound(format="VOC"), r"is VOC \(PCM_16\), which is not read"),
    (b"MThd" + bytes(40), "is a MIDI file, which is not read; make a sound of it with a synthesizer"),
    (b"0&\xb2u\x8ef\xcf\x11" + bytes(40), "is a Windows Media file, which is not read; make a sound"),
    (b"TTA1\1\0" + bytes(40), "is a True Audio sound, which is not read; make a sound of it"),
    (b"\x0bw" + bytes(40), "is an AC-3 sound, which is not read; make a sound of it"),
    (b"#!SILK_V3" + bytes(40), "is a SILK sound, which is not read; make a sound of it"),
    (b"Creative Voice File\x1a" + bytes(40), "is a Creative Voice sound, which is not read; make a sound of it"),
    ((b"G@" + bytes(186)) * 4, "is an MPEG transport stream, which is not read; make a sound of it"),
    ((b"\xff\xfd\xe4\xc4" + bytes(1148)) * 4, r"is MPEG \(MPEG_LAYER_II\), which is not read; save it again as WAV"),
]
PICTURES = [
    (b"qoif" + bytes(30), "is a QOI picture, which is not read; save it as PNG"),
    (b"DDS |" + bytes(130), "is a DDS texture, which is not read; save it as PNG"),
    (b"8BPS\0\1" + bytes(30), "is a Photoshop document, which is not read; save it as PNG"),
    (b"%PDF-1.7", "is a PDF document, which is not read; save its pages as pictures"),
    (b"PAR1" + bytes(30), "is a Parquet table, which is not read; weft data convert parquet"),
    (b"PK\3\4" + bytes(30), "is a zip archive, which is not read; unpack it"),
    (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer .*; run git lfs pull"),
    (
        b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
        "is an SVG drawing, which is not read; save it",
    ),
    (b"II*\0\x10\0\0\0CR\2\0" + bytes(90), "is a camera's raw picture, which is not read; develop it"),
    (b"\0\0\0\x18ftypcrx \0\0\0\1" + bytes(90), "is a camera's raw picture, which is not read; develop it"),
    (b"\n\5\1\x08" + bytes(124), "is a PCX picture, which is not read; save it as PNG"),
    (WAV, "is a WAV sound, which is not read; give JPEG"),
    (b"\0\0\0\x20ftypisom" + bytes(40), "is an MP4 file, which is not read; give JPEG"),
]


@pytest.mark.parametrize(("data", "said"), SOUNDS, ids=[said[:30] for _, said in SOUNDS])
def test_a_sound_that_is_not_read_is_named(data, said):
    with pytest.raises(MediaError, match=said):
        load_audio(data)


@pytest.mark.parametrize(("data", "said"), PICTURES, ids=[said[:30] for _, said in PICTURES])
def test_a_picture_that_is_not_read_is_named(data, said):
    for ask in (load_image, image_size):
        with pytest.raises(MediaError, match=said):
            ask(data)


@pytest.mark.parametrize("tags", [{254: 1, 330: 8}, {50706: b"\1\4\0\0"}], ids=["NEF", "DNG"])
def test_the_thumbnail_of_a_raw_picture_is_not_taken_for_it(tags):
    buffer, directory = io.BytesIO(), TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        directory.tagtype[tag] = 4 if isinstance(value, int) else 1
        directory[tag] = value
    Image.new("RGB", (16, 12)).save(buffer, "TIFF", tiffinfo=directory)
    for ask in (load_image, image_size):
        with pytest.raises(MediaError, match="is a TIFF of a camera's raw samples, which is not read; save it as PNG"):
            ask(buffer.getvalue())


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "TGA", "ICO", "JPEG2000"])
def test_what_pillow_writes_is_told_by_its_bytes_and_read(format):
    for mode in ("RGB", "L", "1") if format not in ("ICO", "JPEG2000") else ("RGB",):
        buffer = io.BytesIO()
        Image.new(mode, (40, 30)).save(buffer, format)
        assert sniff(buffer.getvalue()) is not None
        assert load_image(buffer.getvalue()).size == image_size(buffer.getvalue())


def test_text_and_noise_are_taken_for_nothing():
    noise = np.random.default_rng(0).integers(0, 256, 64 * 2000, dtype=np.uint8).tobytes()
    assert sum(sniff(noise[at : at + 64]) is not None for at in range(0, len(noise), 64)) < 20
    for text in (b"hello there", b'"a","b"\n1,2\n', "größe".encode(), tone(100).tobytes(), bytes(200)):
        assert sniff(text) is None
    assert advice("a JPEG picture") == advice(None) == ""
