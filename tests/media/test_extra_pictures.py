"""Pictures of telephones and of newer formats: turned once, whatever the reader does on its own, and measured before
they are decoded."""

import io
import struct
import sys

import numpy as np
import pytest
from media_files import encode_image, exif, photo
from PIL import Image, ImageOps

from weft.media import MediaError, image_size, load_image
from weft.media.notes import image_notes

pillow_heif = pytest.importorskip("pillow_heif", reason="the extra media is not installed")
pytest.importorskip("pillow_jxl", reason="the extra media is not installed")
pytest.importorskip("PIL.AvifImagePlugin", reason="the extra media is not installed")
pillow_heif.register_heif_opener()  # for writing; weft registers nothing

LOSSY = {"HEIF": {"quality": 90}, "AVIF": {"quality": 90}, "JXL": {"lossless": True}, "JPEG2000": {}}


def difference(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    return float(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).mean())


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("format", ["HEIF", "AVIF"])
def test_a_picture_is_turned_exactly_once(format, turn):
    tags = exif(turn).tobytes() if format == "HEIF" else exif(turn)
    data = encode_image(photo(), format, exif=tags, **LOSSY[format])
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encode_image(photo(), "PNG", exif=exif(turn)))))
    for source in (data, Image.open(io.BytesIO(data))):
        assert image_size(source) == upright.size
        assert difference(load_image(source), upright) < 8


def test_a_jpeg_inside_of_a_jpeg_xl_is_turned_once_and_exif_beside_pixels_not_at_all(tmp_path):
    data = encode_image(photo(), "JXL", lossless=True, exif=exif(6).tobytes())
    assert image_size(data) == (40, 30) and difference(load_image(data), photo()) == 0
    (tmp_path / "a.jpg").write_bytes(encode_image(photo(), "JPEG", quality=95, exif=exif(6)))
    Image.open(tmp_path / "a.jpg").save(tmp_path / "a.jxl", lossless_jpeg=True)
    assert image_size(tmp_path / "a.jxl") == (30, 40)
    assert difference(load_image(tmp_path / "a.jxl"), load_image(tmp_path / "a.jpg")) == 0


@pytest.mark.parametrize("format", LOSSY)
def test_transparency_lies_over_white_and_deep_grey_keeps_its_white(format):
    clear = photo()
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    data = encode_image(clear, format, **LOSSY[format])
    assert difference(load_image(data), load_image(clear)) < 5
    if format != "AVIF":
        deep = np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50
        grey = load_image(encode_image(Image.fromarray(deep), format, **LOSSY[format]))
        assert np.abs(np.asarray(grey)[..., 0] - deep / 257).max() < (6 if format == "HEIF" else 0.6)


def test_a_ppm_is_read_with_the_white_that_it_states():
    for white in (255, 1023, 65535):
        values = (np.arange(1200).reshape(30, 40) * 50 % (white + 1)).astype(">u2" if white > 255 else "u1")
        for kind, body in ((5, values), (6, np.stack([values] * 3, -1).astype(values.dtype))):
            data = b"P%d\n40 30\n%d\n" % (kind, white) + body.tobytes()
            assert np.abs(np.asarray(load_image(data))[..., 0] - values * (255 / white)).max() < 0.6
            assert image_notes(data) == ()


def test_of_several_pictures_the_first_is_read_and_the_note_counts_them():
    for format in ("HEIF", "AVIF"):
        buffer = io.BytesIO()
        photo().save(buffer, format, save_all=True, append_images=[photo(seed=1)])
        assert difference(load_image(buffer.getvalue()), photo()) < 6
        assert "holds 2 pictures" in image_notes(buffer.getvalue())[0]


def test_the_largest_picture_of_an_icon_is_read():
    for form in ("png", "bmp"):
        data = encode_image(photo(64, 64), "ICO", sizes=[(16, 16), (64, 64), (32, 32)], bitmap_format=form)
        assert image_size(data) == (64, 64) and difference(load_image(data), photo(64, 64)) < 1


def jxl(width: int, height: int) -> bytes:
    """The head of a bare JPEG XL: no small size, 30 bits a side, no ratio."""
    bits = 0 | 3 << 1 | height - 1 << 3 | 0 << 33 | 3 << 36 | width - 1 << 38
    return b"\xff\x0a" + bits.to_bytes(10, "little") + bytes(20)


def sized(format: str, width: int, height: int) -> bytes:
    """A small picture whose header says another size. (HEIC's is in its codec's own header.)"""
    data = encode_image(photo(64, 48), format)
    at = data.index(b"ispe") + 8 if format != "JPEG2000" else data.index(b"ihdr") + 4
    pair = struct.pack(">II", *((width, height) if format != "JPEG2000" else (height, width)))
    return data[:at] + pair + data[at + 8 :]


def icon(inside: tuple[int, int]) -> bytes:
    bitmap = struct.pack("<IiiHHIIIIII", 40, inside[0], 2 * inside[1], 1, 32, 0, 0, 0, 0, 0, 0)
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(bitmap), 22) + bitmap


@pytest.mark.parametrize(
    "data",
    [
        jxl(30000, 30000),
        b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl \0\0\0\0jxlc" + jxl(30000, 30000),
        sized("AVIF", 16000, 16000),
        sized("JPEG2000", 30000, 30000),
        b"P6\n30000 30000\n255\n" + bytes(99),
        b"P3\n3000 3000\n255\n" + b"0 " * 99,
        b"\0\0\x02" + bytes(9) + struct.pack("<HHBB", 60000, 60000, 24, 0) + bytes(99),
        icon((20000, 20000)),
    ],
    ids=["jxl", "jxl box", "avif", "jp2", "ppm", "ppm text", "tga", "ico"],
)
def test_the_header_of_a_bomb_is_believed_or_refused(data):
    for ask in (load_image, image_size):
        with pytest.raises(MediaError, match=r"to decode, over the limit of 550 MB|of more than 4 mega|damaged"):
            ask(data)


def test_what_the_readers_of_the_extra_decode_at_once_is_measured_before():
    for format in LOSSY:
        data = encode_image(photo(400, 300), format)
        assert load_image(data, 30 * 400 * 300).size == (400, 300)
        with pytest.raises(MediaError, match="over the limit"):
            load_image(data, 9 * 400 * 300)


@pytest.mark.parametrize(
    ("format", "module"),
    [("HEIF", "pillow_heif"), ("AVIF", "PIL.AvifImagePlugin"), ("JXL", "pillow_jxl.JpegXLImagePlugin")],
)
def test_without_the_extra_the_sentence_names_it(format, module, monkeypatch):
    data = encode_image(photo(), format)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MediaError, match=r'which is read with the extra "media": pip install "weftlm\[media\]"'):
        load_image(data)
