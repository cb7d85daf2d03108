"""Formats of pictures beside JPEG and PNG.

Their headers are read by hand where Pillow would make room for the pixels on opening, or walk for long. Sources of the
layouts: GIF89a, TIFF 6.0 and BigTIFF, WebP's container, ISO 18181-1 (JPEG XL).
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO, ClassVar

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from weft.media.containers import MOST_BLOCKS, TooMany
from weft.media.levels import BITS, FORMAT, GREATEST, PHOTOMETRIC, first
from weft.media.opening import orientation
from weft.media.pictures import STEPS, Costs, Format, Look, own_bytes
from weft.media.source import MediaError

_COMPRESSION, _SAMPLES, _PLANES, _SUBSAMPLING = 259, 277, 284, 530
_SMALLER, _BELOW, _DNG = 254, 330, 50706  # what kind of page it is; pages below it; TIFF/EP and DNG
_FORMATS = {1: "unsigned", 2: "signed", 3: "float"}
_COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "LAB"}
_LARGEST_SLOW = 1 << 22  # Pillow's readers of run-length BMP and of PPM in text are loops in Python: seconds for more


class Whole(Format):
    """Decoded at its full size, at a known price."""

    price: ClassVar[tuple[float, float]]

    def costs(self, image: Any, file: BinaryIO, name: str) -> Costs:
        return dict.fromkeys(STEPS, self.price)


class Gif(Whole):
    reader = "PIL.GifImagePlugin:GifImageFile"
    price = opening = (2, 1)  # the second is what a next frame would restore

    def look(self, file: BinaryIO, head: bytes) -> Look:
        return Look(gif_size(file, head))


class WebP(Whole):
    reader = "PIL.WebPImagePlugin:WebPImageFile"
    price = opening = (16, 12)  # libwebp keeps two canvases; decoding ends in a third and Pillow's own

    def look(self, file: BinaryIO, head: bytes) -> Look:
        return Look(webp_size(head))


# The three that come with the extra: measured, and a third more.


class Heic(Whole):
    reader, price = "pillow_heif:HeifImageFile", (10, 5)


class Avif(Whole):
    reader, price = "PIL.AvifImagePlugin:AvifImageFile", (16, 10)  # Pillow 11.3


class JpegXL(Whole):
    reader = "pillow_jxl.JpegXLImagePlugin:JXLImageFile"
    price = opening = (14, 10)

    def look(self, file: BinaryIO, head: bytes) -> Look:
        return Look(jxl_size(file))


class Jpeg2000(Format):
    reader = "PIL.Jpeg2KImagePlugin:Jpeg2KImageFile"

    def costs(self, image: Any, file: BinaryIO, name: str) -> Costs:
        own = own_bytes(image)  # a tile as 32-bit numbers, and most pictures are one tile
        return dict.fromkeys(STEPS, (own + 5.5 * len(image.getbands()) + 1, own))


class Slow(Format):
    """What Pillow has a loop in Python for."""

    slow: ClassVar[dict[str, str]]

    def costs(self, image: Any, file: BinaryIO, name: str) -> Costs:
        said, own = self.slow.get(image.tile[0][0]), own_bytes(image)
        if said and image.width * image.height > _LARGEST_SLOW:
            raise MediaError(f"{name}: is {said} of more than 4 megapixels; save it as PNG")
        return dict.fromkeys(STEPS, (own + (2.0 if said else 0.0), own))


class Bmp(Slow):
    reader, slow = "PIL.BmpImagePlugin:BmpImageFile", {"bmp_rle": "a BMP in run lengths"}


class Ppm(Slow):
    reader = "PIL.PpmImagePlugin:PpmImageFile"
    slow = {"ppm_plain": "a PPM in text", "ppm": "a PPM of an odd white"}


class Tga(Format):
    reader = "PIL.TgaImagePlugin:TgaImageFile"


class Ico(Format):
    reader = "PIL.IcoImagePlugin:IcoImageFile"

    def look(self, file: BinaryIO, head: bytes) -> Look:
        return Look(inside=ico_png(file))


class Tiff(Format):
    reader = "PIL.TiffImagePlugin:TiffImageFile"

    def look(self, file: BinaryIO, head: bytes) -> Look:
        """Raises ``TooMany`` where Pillow would walk for long."""
        order, big = ("<" if head[:2] == b"II" else ">"), 43 in head[2:4]
        file.seek(struct.unpack_from(order + "Q", head, 8)[0] if big else struct.unpack_from(order + "I", head, 4)[0])
        (entries,) = struct.unpack(order + "Q" if big else order + "H", file.read(8 if big else 2))
        for _ in range(min(entries, MOST_BLOCKS)):
            entry = file.read(20 if big else 12)
            tag, _, count = struct.unpack_from(order + ("HHQ" if big else "HHI"), entry)
            if tag in (273, 324) and count > MOST_BLOCKS:  # StripOffsets, TileOffsets
                raise TooMany(f"{count:,} strips")
        file.seek(0)
        return Look()

    def costs(self, image: Any, file: BinaryIO, name: str) -> Costs:
        own = own_bytes(image) * (1 + (orientation(image) > 1))  # Pillow turns it itself
        return dict.fromkeys(STEPS, (own + _strip_bytes(image.tag_v2) / (image.width * image.height), own))

    def unread(self, image: Any) -> str | None:
        return unread_tiff(image, image.tag_v2)

    def unopened(self, file: BinaryIO) -> str | None:
        try:
            file.seek(0)
            head = file.read(8)
            tags = ImageFileDirectory_v2(head + file.read(8) if head[2] == 43 else head)
            file.seek(tags.next)
            tags.load(file)
            return unread_tiff(None, tags) if tags[256] and tags[257] and (273 in tags or 324 in tags) else None
        except (
            Exception
        ):  # a damaged directory raises whatever Pillow's reader meets: what Pillow says of the file stands
            return None


def _strip_bytes(tags: Any) -> float:
    """What libtiff decodes at once: a strip or tile, and where that is a JPEG its coefficients."""
    if tags.get(259, 1) == 1:
        return 0
    width, rows = tags.get(322, tags[256]), tags.get(323, min(tags.get(278, tags[257]), tags[257]))
    samples, bits = tags.get(277, 1), max(tags.get(258, (1,)))
    jpeg = 6 * samples if tags[259] in (6, 7) else 0
    window = 1 << 27 if tags[259] == 50000 else 0  # the largest of zstd
    return width * rows * ((4 if tags.get(262) == 6 else samples * bits / 8) + jpeg) + window


def unread_tiff(image: Image.Image | None, tags: Any) -> str | None:
    """The samples of a TIFF in words, where Pillow does not read them (``image`` is None) or reads them wrong."""
    if _DNG in tags or (
        tags.get(_SMALLER, 0) & 1 and _BELOW in tags
    ):  # DNG, NEF, ARW: what Pillow reads is a thumbnail
        return "a camera's raw samples"
    bits, samples = first(tags.get(BITS, 1)), tags.get(_SAMPLES, 1)
    planes, plain = tags.get(_PLANES, 1) == 2 and samples > 1, tags.get(_COMPRESSION, 1) == 1
    if image is not None and not (
        # Each seen with Pillow 13.0 to give noise or another picture, without a word.
        (image.mode in ("I", "F") and tags.prefix == b"MM" and not plain)
        or (planes and (samples == 2 or (bits == 16 and plain)))
        or (tags.get(PHOTOMETRIC) == 6 and plain and tags.get(_SUBSAMPLING, (1, 1)) != (1, 1))
        or (bits == 16 and samples > 2 and (first(tags.get(GREATEST)) or 65535) < 1 << 15)  # Pillow takes 8 bits
    ):
        return None
    kind = _FORMATS.get(first(tags.get(FORMAT, 1)), "other")
    facts = [_COLOURS.get(tags.get(PHOTOMETRIC), "other colours"), f"{samples} x {bits}-bit {kind} samples"]
    facts += ["big-endian"] * (tags.prefix == b"MM") + ["in planes"] * planes + ["compressed"] * (not plain)
    greatest = tags.get(GREATEST)
    return ", ".join(facts) + (f", white at {first(greatest):g}" if greatest is not None else "")


def webp_size(head: bytes) -> tuple[int, int]:
    """Width and height of a WebP from its first 30 bytes: libwebp makes room for the picture when it opens one."""
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def gif_size(file: BinaryIO, head: bytes) -> tuple[int, int]:
    """Width and height of a GIF: of its screen, or of a first image that goes beyond. Pillow makes room on opening.

    Raises ``TooMany`` where too many blocks come before that image. ``file`` is put to its start.
    """
    width, height = struct.unpack_from("<HH", head, 6)
    file.seek(13 + colour_bytes(head[10]))
    left = MOST_BLOCKS
    while (mark := file.read(1)) == b"!":
        file.seek(1, 1)
        while (length := file.read(1)) not in (b"\0", b""):
            file.seek(length[0], 1)
            left -= 1
            if left <= 0:
                break
        left -= 1
        if left <= 0:
            raise TooMany(f"more than {MOST_BLOCKS:,} blocks")
    if mark == b",":
        x, y, across, down = struct.unpack("<HHHH", file.read(8))
        width, height = max(width, x + across), max(height, y + down)
    file.seek(0)
    return width, height


def jxl_size(file: BinaryIO) -> tuple[int, int]:
    """Width and height of a JPEG XL (ISO 18181-1, SizeHeader); ``ValueError`` where there is none. Its reader decodes
    all of it on opening."""
    place, skip = 0, 0
    for _ in range(MOST_BLOCKS):
        file.seek(place)
        head = file.read(16)
        if head[:2] == b"\xff\x0a" or head[4:8] in (b"jxlc", b"jxlp"):  # bare, or in a box; of a part its number first
            skip = 0 if head[:2] == b"\xff\x0a" else 12 if head[4:8] == b"jxlp" else 8
            break
        length = int.from_bytes(head[8:] if head[:4] == b"\0\0\0\1" else head[:4], "big")
        if length < 8:
            raise ValueError("no codestream")
        place += length
    file.seek(place + skip + 2)
    bits = int.from_bytes(file.read(16), "little")
    file.seek(0)

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & (1 << count) - 1, bits >> count
        return value

    def side() -> int:
        return 8 * (take(5) + 1) if small else 1 + take((9, 13, 18, 30)[take(2)])

    small, height = take(1), 0
    height = side()
    over, under = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[take(3)]
    return height * over // under or side(), height


def ico_png(file: BinaryIO) -> bytes | None:
    """The largest picture of an ICO where that is a PNG; None where it is a bitmap, which has at most 256x256 pixels.

    Raises ``ValueError`` where a bitmap has another size than the directory says: Pillow makes room for it. ``file`` is
    put to its start."""
    file.seek(4)
    best: tuple[int, int, int, int, bool] = (0, 0, 0, 0, False)
    for i in range(int.from_bytes(file.read(2), "little")):
        file.seek(6 + 16 * i)
        across, down, bits, length, place = struct.unpack("<BB4xHII", file.read(16))
        file.seek(place)
        head = file.read(24)
        png = head.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", head[16:]) if png else struct.unpack("<ii", head[4:12])
        if not png and (width, height // 2) != (across or 256, down or 256):
            raise ValueError("a bitmap of another size")
        best = max(best, (width * height // (1 if png else 2), bits, place, length, png))
    file.seek(best[2])
    data = file.read(best[3]) if best[4] else None
    file.seek(0)
    return data


def colour_bytes(flags: int) -> int:
    """Bytes of the colour table that the flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
