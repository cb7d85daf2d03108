"""What decoding may take: memory follows the limit and not the file; the header is believed before a body is read."""

import importlib.util
import io
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from media_files import encode_av, encode_image, encode_sound, exif, photo, png_chunk, tiff, with_chunk
from PIL import Image

from weft.cli import run
from weft.media import (
    DECODED_BYTES,
    MediaError,
    audio_samples,
    image_size,
    load_audio,
    load_image,
    set_decoded_bytes,
)
from weft.media.containers import MOST_BLOCKS
from weft.media.notes import image_notes
from weft.media.opening import open_picture

WIDE = (403, 301)
LIMIT = 4 * 403 * 301 + 100_000  # enough for the pixels that Pillow decodes and a copy of a third of the sides


def _mean(image: Image.Image, step: int) -> np.ndarray:
    """``[H, W, 3]``: each ``step`` by ``step`` pixels as one, those at the edges what is left of them."""
    pixels = np.asarray(image, dtype=np.float64)
    rows, columns = (np.arange(0, n, step) for n in pixels.shape[:2])
    summed, counted = (
        np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)
        for values in (pixels, np.ones_like(pixels))
    )
    return summed / counted


KINDS = {
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "TIFF": ("RGB", "RGBA", "L", "P", "1", "I;16", "CMYK"),
    "JPEG": ("RGB", "L", "CMYK"),
    "BMP": ("RGB", "L", "P"),
    "GIF": ("L", "P"),
}
FILES = [(f, mode, turn) for f, modes in KINDS.items() for mode in modes for turn in (1, 6)]


@pytest.mark.parametrize(("format", "mode", "turn"), [x for x in FILES if x[2] == 1 or x[0] not in ("BMP", "GIF")])
def test_what_is_too_large_is_given_smaller_and_is_otherwise_the_same(format: str, mode: str, turn: int) -> None:
    image = photo(*WIDE)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode in ("RGBA", "LA"):
        image.putalpha(Image.linear_gradient("L").resize(WIDE))
        image = image.convert(mode)
    else:
        image = image.quantize(64) if mode == "P" else image.convert(mode)
    more = {"quality": 95} if format == "JPEG" else {}
    data = encode_image(image, format, **more, **({"exif": exif(turn)} if turn > 1 else {}))
    whole = load_image(data)
    own = 1 if mode in ("1", "L", "P") else 2 if mode == "I;16" else 4
    limit = len(data) + int(WIDE[0] * WIDE[1] * (own + (format == "GIF") + own * (turn > 1 and format == "TIFF") + 0.5))
    small = load_image(data, limit)
    step = -(-whole.width // small.width)
    assert 1 < step <= 4 and small.mode == "RGB"
    assert image_size(data, limit) == image_size(data) == image_size(small) == whole.size
    assert image_size(small.crop((0, 0, 5, 3))) == (5, 3)
    if turn == 1:
        assert small.size == (-(-whole.width // step), -(-whole.height // step))
        assert np.abs(np.asarray(small) - _mean(whole, step)).max() <= (12 if format == "JPEG" else 1)
    else:
        upright = np.asarray(small.resize((30, 40), Image.Resampling.BOX)).astype(int)
        assert np.abs(upright - np.asarray(whole.resize((30, 40), Image.Resampling.BOX))).mean() < 4


def test_a_picture_or_array_in_memory_is_given_smaller_where_its_rgb_would_be_too_large() -> None:
    image = photo(*WIDE)
    for source in (image, image.convert("CMYK"), np.asarray(image), np.asarray(image) / 255):
        assert load_image(source, 500_000).size == (202, 151)
        assert load_image(source).size == WIDE


def test_the_sentence_names_the_limit_and_how_to_raise_it() -> None:
    data = encode_image(Image.new("RGB", (1000, 1000)), "PNG")
    for ask in (load_image, image_size, image_notes):
        with pytest.raises(
            MediaError, match=r"1000x1000 pixels take 4 MB .* limit of 1 MB; .*--media-mb N.*max_bytes="
        ):
            ask(data, max_bytes=1_000_000)
    sound = encode_sound(16000)
    for hear in (load_audio, audio_samples):
        with pytest.raises(
            MediaError, match=r"0\.0 hours at 8,000 Hz take .*; split the recording, or raise it \(weft"
        ):
            hear(sound, 8000, max_bytes=31_999)
        assert hear(sound, 8000, max_bytes=32_000 + len(sound)) is not None


def test_the_limit_of_a_process_is_set_by_a_call_or_on_the_command_line(tmp_path: Path, capsys) -> None:
    (tmp_path / "a.png").write_bytes(encode_image(Image.new("RGB", (900, 900)), "PNG"))
    (tmp_path / "s.jsonl").write_text(
        '{"messages": [{"role": "user", "content": [{"type": "image", "image": "a.png"}]},'
        ' {"role": "assistant", "content": "x"}]}\n'
    )
    try:
        set_decoded_bytes(1000)
        with pytest.raises(MediaError, match="limit"):
            load_image(tmp_path / "a.png")
        assert run(["--media-mb", "1", "data", "validate", "--deep", str(tmp_path / "s.jsonl")]) == 2
        assert "a.png: 900x900 pixels take 3 MB to decode, over the limit of 1 MB" in capsys.readouterr().err
        assert run(["--media-mb", "20", "data", "validate", "--deep", str(tmp_path / "s.jsonl")]) == 0
    finally:
        set_decoded_bytes(DECODED_BYTES)


def _png(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG whose body is missing."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")


def _jpeg(width: int, height: int, **more: object) -> bytes:
    """A JPEG of another size than its body's."""
    numbers = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return encode_image(photo(8, 8), "JPEG", **more).replace(b"\0\x08\0\x08\3", numbers + b"\3")


def _gif(width: int, height: int, *blocks: bytes) -> bytes:
    size = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return b"GIF89a" + size + b"\x80\0\0" + bytes(6) + b"".join(blocks) + b";"


def _webp(width: int, height: int) -> bytes:
    data = bytearray(encode_image(Image.new("RGB", (2, 2)), "WEBP", lossless=True))
    data[21:25] = (int.from_bytes(data[21:25], "little") & ~0xFFFFFFF | height - 1 << 14 | width - 1).to_bytes(
        4, "little"
    )
    return bytes(data)


FRAME = b",\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0"


@pytest.mark.parametrize(
    "data",
    [
        _png(60000, 60000),
        _png(12000, 12000),
        _png(30000, 30000, 8, 0),
        _gif(65535, 65535, FRAME),
        _gif(1, 1, b",\xff\x7f\xff\x7f\xff\x7f\xff\x7f\0\x02\x02\x44\x01\0"),
        _webp(16383, 16383),
        _webp(8000, 6000),
        tiff(np.zeros((1, 1), np.uint8), {256: 50000, 257: 50000, 278: 50000}),
        tiff(np.zeros((1, 1, 4), np.uint16), {256: 8000, 257: 8000, 278: 8000, 259: 8}),
        b"BM" + bytes(12) + b"\x28\0\0\0" + b"\0\0\1\0" * 2 + b"\1\0\x08\0" + bytes(1100),
        _jpeg(65535, 65535, progressive=True, subsampling=0),
    ],
    ids=["png", "png rgb", "png grey", "gif", "gif frame", "webp", "webp 48", "tiff", "tiff strip", "bmp", "jpeg"],
)
def test_the_header_of_a_bomb_is_believed(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ask in (load_image, image_size):
            with pytest.raises(MediaError, match=r"to decode, over the limit of 550 MB|more than"):
                ask(data)


def test_photographs_are_read_at_their_own_size_and_larger_ones_smaller() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size, reduction, drafted in (
            ((9504, 6336), 1, 1),  # the largest cameras of the 35 mm format
            ((9248, 6936), 1, 1),  # telephones
            ((12000, 9000), 1, 2),
            ((16320, 12240), 1, 2),
            ((65535, 65535), 2, 8),
        ):
            for data in (_jpeg(*size), _jpeg(*size, exif=exif(6))):
                opened = open_picture(io.BytesIO(data), "photograph", data[:64], 30_000_000, DECODED_BYTES)
                assert (opened.reduction, -(-size[0] // opened.image.width)) == (reduction, drafted)
                assert opened.size == image_size(data) == (size if b"Exif" not in data else size[::-1])
        for size, reduction in (((8000, 8000), 1), ((10000, 10000), 2), ((11500, 11500), 6)):
            data = _png(*size)
            assert open_picture(io.BytesIO(data), "scan", data[:64], 1_000_000, DECODED_BYTES).reduction == reduction


def test_pillows_own_limit_neither_warns_nor_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for format in ("PNG", "TIFF", "JPEG", "GIF", "WEBP", "BMP"):
            data = encode_image(photo(), format)
            assert load_image(data).size == image_size(data) == (40, 30)
    assert Image.MAX_IMAGE_PIXELS == 100


EMPTY = png_chunk(b"teSt", b"")
SMALL_PNG, SMALL_JPEG = encode_image(photo(4, 4), "PNG"), encode_image(photo(4, 4), "JPEG")


@pytest.mark.parametrize(
    "data",
    [
        SMALL_PNG[:33] + EMPTY * MOST_BLOCKS + SMALL_PNG[33:],
        SMALL_PNG[:-12] + EMPTY * MOST_BLOCKS + SMALL_PNG[-12:],
        SMALL_PNG[:33] + png_chunk(b"IDAT", b"") * MOST_BLOCKS + SMALL_PNG[33:],
        SMALL_JPEG[:2] + b"\xff\xee\0\2" * MOST_BLOCKS + SMALL_JPEG[2:],
        SMALL_JPEG[:2] + b"\xff" * MOST_BLOCKS + SMALL_JPEG[2:],
        SMALL_JPEG[:3] + b"\0" * MOST_BLOCKS + SMALL_JPEG[2:],
        _gif(4, 4, b"!\xfe" + b"\1a" * MOST_BLOCKS + b"\0", FRAME),
        _gif(4, 4, b"!\xf9\0" * MOST_BLOCKS, FRAME),
        tiff(np.zeros((1, 1), np.uint8)).replace(b"\x11\1\4\0\1\0\0\0", b"\x11\1\4\0\0\0\x80\0"),
    ],
    ids=["png", "png end", "idat", "jpeg", "fill", "stray", "gif", "gif extensions", "tiff strips"],
)
def test_millions_of_blocks_are_not_walked(data: bytes) -> None:
    for ask in (load_image, image_size, image_notes):
        with pytest.raises(MediaError, match=r"picture in (more than 65,536|8,388,608) .*; save it again"):
            ask(data)


def test_a_jpeg_in_hundreds_of_scans_is_refused() -> None:
    data = encode_image(photo(8, 8), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert load_image(data).size == (8, 8)
    with pytest.raises(MediaError, match="in 210 scans"):
        load_image(data[:-2] + scan * 200 + data[-2:])


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfb\x90\x64" * 100_000,
        b"\xff\xfb\x90\x65\0" * 100_000,
        b"ID3\3\0\0\0\0\0\0" * 100_000,
        encode_sound(5000, format="MP3", subtype="MPEG_LAYER_III") + b"\xff\xfb\x90\x65\0" * 100_000,
    ],
    ids=["sync", "sync and more", "id3", "sound before"],
)
def test_what_looks_like_frames_is_not_searched_for_ever(data: bytes) -> None:
    with pytest.raises(MediaError, match=r"is no MP3, though|without a single whole frame"):
        audio_samples(data)


def test_texts_of_a_png_count_for_the_limit() -> None:
    data = encode_image(photo(*WIDE), "PNG")
    limit = len(data) + 8 * WIDE[0] * WIDE[1] + 20_000
    assert load_image(data, limit).size == WIDE
    assert load_image(with_chunk(data, b"zTXt", b"a\0\0" + bytes(100)), limit).size < WIDE


HOLD = """
import re, sys
from pathlib import Path
from weft.media import MediaError, load_audio, load_image, resize_normalize
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
for first in folder.glob("0.*"):  # brings in the libraries
    (load_audio if first.suffix in (".wav", ".m4a") else load_image)(first)
def peak():  # ru_maxrss begins with what the parent held when it forked
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before, refused = peak(), 0
for path in sorted(folder.iterdir()):
    at = peak()
    try:
        if path.suffix in (".wav", ".flac", ".mp3", ".ogg", ".m4a"):
            load_audio(path, max_bytes=limit)
        else:
            image = load_image(path, limit)
            for fit in ("stretch", "pad", "crop"):
                resize_normalize(image, (64, 64), (0, 0, 0), (1, 1, 1), fit=fit)
    except MediaError as error:
        assert "limit" in str(error), error
        refused += 1
    assert peak() - before <= limit + (18 << 20), f"{path.name}: {(peak() - before) >> 20} MB"
print(refused)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_file_takes_more_memory_than_the_limit(tmp_path: Path) -> None:
    """In a process of its own, for the peak of a process never falls; hence some seconds."""
    (tmp_path / "0.png").write_bytes(SMALL_PNG)
    (tmp_path / "0.wav").write_bytes(encode_sound(100))
    limit, side = 32 << 20, 2600
    turned = {"exif": exif(6)}
    for name, mode, format, more in (
        ("l.png", "L", "PNG", {}),
        ("rgb.png", "RGB", "PNG", turned),
        ("rgba.png", "RGBA", "PNG", {"compress_level": 1}),
        ("deep.png", "I;16", "PNG", {"compress_level": 1}),
        ("p.gif", "P", "GIF", {"transparency": 0}),
        ("strips.tif", "RGBA", "TIFF", {"compression": "tiff_lzw"}),
        ("strip.tif", "F", "TIFF", {"compression": "packbits", "tiffinfo": {278: side}}),
        ("turned.tif", "L", "TIFF", {"compression": "tiff_lzw", **turned}),
        ("baseline.jpg", "RGB", "JPEG", turned),
        ("progressive.jpg", "RGB", "JPEG", {"progressive": True, "subsampling": 0}),
        ("cmyk.jpg", "CMYK", "JPEG", {"progressive": True}),
        ("1.bmp", "1", "BMP", {}),
    ):
        (tmp_path / name).write_bytes(encode_image(Image.new(mode, (side, side)), format, **more))
    small = Image.new("RGB", (2040, 2040))  # at its own size, and there twice while it is turned
    (tmp_path / "whole.jpg").write_bytes(encode_image(small, "JPEG", **turned))
    (tmp_path / "small.webp").write_bytes(encode_image(Image.new("RGB", (1300, 1300)), "WEBP", method=0))
    (tmp_path / "one.jp2").write_bytes(encode_image(Image.new("RGB", (1150, 1150)), "JPEG2000"))
    if (
        importlib.util.find_spec("av")
        and importlib.util.find_spec("pillow_heif")
        and importlib.util.find_spec("pillow_jxl")
    ):
        import pillow_heif
        import pillow_jxl  # noqa: F401

        pillow_heif.register_heif_opener()  # for writing
        for format, side, more in (("HEIF", 1400, {}), ("AVIF", 1300, {"speed": 10}), ("JXL", 1400, {"effort": 1})):
            (tmp_path / f"0.{format}").write_bytes(encode_image(photo(), format, **more))
            (tmp_path / f"new.{format}").write_bytes(encode_image(Image.new("RGB", (side, side)), format, **more))
        (tmp_path / "0.m4a").write_bytes(encode_av("ipod", "aac", np.zeros(8000, np.float32), 8000))
        (tmp_path / "a.m4a").write_bytes(encode_av("ipod", "aac", np.zeros(8000 * 120, np.float32), 8000))
    for seconds in (500, 700):
        silence = np.zeros(1000 * seconds, np.int16)
        for ending, subtype in (("wav", "PCM_U8"), ("flac", "PCM_16")):
            soundfile.write(tmp_path / f"{seconds}.{ending}", silence, 1000, subtype=subtype)
        second = encode_sound(8000, 8000, format="MP3", subtype="MPEG_LAYER_III")
        (tmp_path / f"{seconds}.mp3").write_bytes(second * seconds)
    soundfile.write(tmp_path / "a.wav", np.zeros(2_000_000, np.int16), 2000, subtype="IMA_ADPCM")
    done = subprocess.run([sys.executable, "-c", HOLD, tmp_path, str(limit)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 4 <= int(done.stdout) <= 9
