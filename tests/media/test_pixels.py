"""Samples of every depth become the picture that was meant, or a sentence."""

import io
import zlib

import numpy as np
import pytest
from media_files import encode_image, photo, png_chunk, tiff, with_chunk
from PIL import Image

from weft.media import MediaError, load_image
from weft.media.notes import image_notes

RAMP = np.linspace(0, 1, 5)[None, :]
SHOWN = [0, 64, 128, 191, 255]
PACKBITS = 32773
LEAST, GREATEST, PHOTOMETRIC, BITS, SUBSAMPLING, PLANES = 340, 341, 262, 258, 530, 284


def _row(source) -> list[int]:
    return np.asarray(load_image(source))[0, :, 0].tolist()


def _ramp(dtype: str, white: float) -> np.ndarray:
    values = RAMP * white
    return values.astype(dtype) if dtype.startswith("f") else np.rint(values).astype(dtype)


def _packed(bits: int) -> bytes:
    """The ramp in rows of samples of ``bits`` bits, the highest first."""
    row = "".join(f"{round(v * (2**bits - 1)):0{bits}b}" for v in RAMP[0])
    row += "0" * (-len(row) % 8)
    return int(row, 2).to_bytes(len(row) // 8, "big")


def test_every_sixteen_bit_sample_is_rounded_to_the_nearest_level():
    values = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    wanted = (values.astype(int) + 128) // 257
    for data in (encode_image(Image.fromarray(values), "PNG"), tiff(values), tiff(values, order=">")):
        assert (np.asarray(load_image(data))[..., 0] == wanted).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 12])
def test_the_bits_that_a_tiff_states_say_what_is_white(bits):
    data = tiff(np.zeros((1, 5), np.uint8), {BITS: bits}, body=_packed(bits))
    levels = np.rint(RAMP[0] * (2**bits - 1)) / (2**bits - 1)
    assert _row(data) == np.rint(levels * 255).astype(int).tolist()
    assert not image_notes(data)
    packed = Image.open(io.BytesIO(data))
    assert _row(packed) == _row(data)


@pytest.mark.parametrize(
    ("dtype", "white"),
    [("u2", 4095), ("u2", 1023), ("u2", 16383), ("u4", 1000), ("u4", 4e9), ("i2", 4095), ("i4", 1e6), ("f4", 3.5)],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_that_states_the_range_of_its_samples_is_read_on_it(dtype, white, order):
    if (dtype, order) == ("u4", ">"):
        pytest.skip("Pillow does not read it")
    kind = float if dtype == "f4" else int
    half = np.append(_ramp(dtype, white)[:, :4], [[0]], axis=1).astype(dtype)  # its white does not occur
    data = tiff(half, {LEAST: kind(0), GREATEST: kind(white)}, order)
    assert np.abs(np.array(_row(data)) - [*SHOWN[:4], 0]).max() <= 1
    assert not image_notes(data)
    raised = tiff(_ramp(dtype, white), {LEAST: kind(white / 2), GREATEST: kind(white)}, order)
    assert np.abs(np.array(_row(raised)) - [0, 0, 0, 128, 255]).max() <= 1


@pytest.mark.parametrize(("dtype", "white"), [("u2", 65535), ("i2", 32767), ("i1", 127), ("f4", 1)])
def test_samples_that_use_their_range_are_no_riddle(dtype, white):
    data = tiff(_ramp(dtype, white))
    assert np.abs(np.array(_row(data)) - SHOWN).max() <= 1
    assert not image_notes(data)


@pytest.mark.parametrize(
    ("dtype", "white", "sentence"),
    [
        ("u2", 4095, "0 to 4095 are read with black at 0 and white at 65535"),
        ("u2", 16383, "white at 65535"),
        ("i2", 4095, "white at 32767"),
        ("u4", 4095, "white at 65535"),
        ("u4", 4e9, "black at 0 and white at 4e+09"),
        ("f4", 200, "white at 255"),
        ("i4", -5, "-5 to 0 are read with black at -5 and white at 0"),
    ],
)
def test_samples_whose_white_is_nowhere_said_are_noted(dtype, white, sentence):
    data = tiff(_ramp(dtype, white))
    (note,) = image_notes(data)
    assert sentence in note


def test_unsigned_samples_of_32_bits_do_not_wrap():
    values = np.array([[0, 1 << 31, (1 << 32) - 1]], dtype=np.uint32)
    packed = tiff(values, {259: PACKBITS}, body=b"\x0b" + values.tobytes())
    for data in (tiff(values), packed):
        assert _row(data) == [0, 128, 255]


@pytest.mark.parametrize("order", ["<", ">"])
def test_white_is_zero_counts_at_any_depth(order):
    for dtype, white in (("u1", 255), ("f4", 1), ("f4", 65535)):
        shown = _row(tiff(_ramp(dtype, white)[:, ::-1], {PHOTOMETRIC: 0}, order))
        assert np.abs(np.array(shown) - SHOWN).max() <= 1
    nowhere = tiff(np.array([[0, np.nan, 1]], np.float32), {PHOTOMETRIC: 0}, order)
    assert _row(nowhere) == [255, 0, 0]
    assert _row(tiff(_ramp("u2", 65535)[:, ::-1], {PHOTOMETRIC: 0})) == [0, 64, 127, 191, 255]


@pytest.mark.parametrize(
    ("values", "tags", "order", "said"),
    [
        (np.zeros((1, 5), "u1"), {BITS: 14}, "<", "grey, 1 x 14-bit unsigned"),
        (np.zeros((1, 5), "u1"), {BITS: 12}, ">", "1 x 12-bit unsigned samples, big-endian"),
        (np.zeros((1, 5), "f8"), {}, "<", "64-bit float"),
        (np.zeros((1, 5), "u4"), {}, ">", "32-bit unsigned samples, big-endian"),
        (np.zeros((1, 5, 3), "f4"), {}, "<", "RGB, 3 x 32-bit float"),
        (np.zeros((3, 5, 3), "u2"), {PLANES: 2}, "<", "3 x 16-bit unsigned samples, in planes"),
        (np.zeros((1, 5, 3), "u2"), {GREATEST: 4095}, "<", "3 x 16-bit unsigned samples, white at 4095"),
        (np.zeros((2, 4, 3), "u1"), {PHOTOMETRIC: 6, SUBSAMPLING: 0x20002}, "<", "YCbCr, 3 x 8-bit"),
        (np.zeros((1, 5), "u1"), {PHOTOMETRIC: 34892}, "<", "other colours"),
    ],
)
def test_samples_that_would_be_read_wrong_are_refused_in_words(values, tags, order, said):
    with pytest.raises(MediaError, match=f"is a TIFF of .*{said}.* not read"):
        load_image(tiff(values, tags, order))


def test_compressed_samples_in_the_other_order_are_refused():
    """Pillow 13.0 gives them with their bytes swapped."""
    for dtype in ("<f4", "<i4"):
        data = tiff(
            _ramp(dtype, 1000),
            {259: PACKBITS},
            ">",
            body=b"\x13" + _ramp(dtype, 1000).astype(">" + dtype[1:]).tobytes(),
        )
        with pytest.raises(MediaError, match="big-endian, compressed"):
            load_image(data)


def test_dark_colours_of_sixteen_bits_are_noted():
    for greatest, notes in ((4095, 1), (16383, 1), (40000, 0)):
        values = np.full((4, 6, 3), greatest, np.uint16)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        header = b"\0\0\0\x06\0\0\0\x04\x10\x02\0\0\0"
        png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows))
        for data in (tiff(values), png + png_chunk(b"IEND", b"")):
            found = image_notes(data)
            assert len(found) == notes
            # A TIFF of colours that states its range is refused: nobody is sent there.
            assert all("its samples from 0 to" in note and note.endswith("save it with 8 bits") for note in found)
    assert not image_notes(tiff(np.full((4, 6, 3), 20, np.uint8)))


def test_the_significant_bits_of_a_png_say_where_they_stand():
    low = encode_image(Image.fromarray(_ramp("u2", 4095)), "PNG")
    assert len(image_notes(low)) == 1 and max(_row(low)) == 16
    low = with_chunk(low, b"sBIT", b"\x0c")
    assert _row(low) == SHOWN and not image_notes(low)
    high = np.rint(RAMP * 200).astype(np.uint16) * 16  # dark, and where PNG wants them
    high = with_chunk(encode_image(Image.fromarray(high), "PNG"), b"sBIT", b"\x0c")
    assert _row(high) == [0, 3, 6, 9, 12] and not image_notes(high)


def test_pictures_of_eight_bits_have_no_notes():
    for format in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"):
        assert image_notes(encode_image(photo(), format)) == ()
    assert image_notes(photo()) == image_notes(np.zeros((2, 2), np.uint16)) == ()
