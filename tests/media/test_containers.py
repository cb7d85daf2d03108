"""How many pictures a file holds, and what is said of those that are not read."""

import struct

import numpy as np
import pytest
from media_files import encode_image, photo, tiff
from PIL import Image

from weft.media.notes import count_pictures, image_notes

FRAMES = [Image.new("RGB", (20, 10), color) for color in ("red", "lime", "blue")]


def _animation(format: str, count: int = 3) -> bytes:
    return encode_image(FRAMES[0], format, save_all=True, append_images=FRAMES[1:count])


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF", "PNG", "MPO"])
def test_pages_and_frames_that_are_not_read_are_counted_and_said(format):
    assert image_notes(_animation(format, 1)) == ()
    (note,) = image_notes(_animation(format))
    assert "holds 3 pictures" in note


def test_a_gif_with_remarks_and_tables_of_its_own_is_counted():
    data = _animation("GIF", 1)
    assert data[-1:] == b";"
    block = b"!\xfe\x03abc\x02de\0"
    frame = b",\0\0\0\0\x01\0\x01\0\x80" + bytes(6) + b"\x02\x02\x44\x01\0"
    assert count_pictures(data[:-1] + block + frame + block + frame + b";") == 3
    assert count_pictures(data[:-1] + frame[:14]) == 2  # cut in the second


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_smaller_version_of_a_page_is_no_page(order):
    first = tiff(np.zeros((2, 2), np.uint8), order=order)
    entry = first.rindex(bytes(4))
    for kind, pages in ((0, 2), (1, 1), (4, 2)):
        more = struct.pack(order + "HHHII", 1, 254, 4, 1, kind) + bytes(4)
        assert count_pictures(first[:entry] + struct.pack(order + "I", len(first)) + more) == pages


def test_a_big_tiff_is_counted_and_a_ring_of_pages_ends():
    page = struct.pack("<Q", 0)
    assert count_pictures(b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) + page + struct.pack("<Q", 32) + page + page) == 2
    assert count_pictures(b"II*\0" + struct.pack("<IHIHI", 8, 0, 14, 0, 8)) == 2


def test_the_thumbnail_behind_a_photograph_is_no_second_picture():
    data = encode_image(photo(), "MPO", save_all=True, append_images=[photo(8, 6)])
    assert len(image_notes(data)) == 1
    second = data.index(b"\0\0\x03\0", data.index(b"MPF\0") + 20) + 16  # entries of 16 bytes; each begins with its kind
    assert data[second : second + 4] == bytes(4)
    assert image_notes(data[:second] + b"\x01\0\x01\0" + data[second + 4 :]) == ()


def test_formats_of_one_picture_hold_one():
    for format in ("JPEG", "BMP", "PNG"):
        assert count_pictures(encode_image(photo(), format)) == 1
    for data in (b"", b"GIF8", b"\x89PNG", b"II*\0", b"II*\0\xff\xff\xff\xff", b"RIFF\0\0\0\0WEBP"):
        assert count_pictures(data) == 1
