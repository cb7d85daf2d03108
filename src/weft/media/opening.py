"""A picture's header, and how much memory its pixels will take: what is too large is read smaller, or not at all.

Everything is decided before a pixel is decoded. Shapes: ``HW`` pixels down and across.
"""

from __future__ import annotations

import contextlib
import io
import pkgutil
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from weft.kinds import HEAD, advice, sniff
from weft.media.containers import (
    TooMany,
    check_blocks,
    gif_size,
    ico_png,
    jpeg_segments,
    jxl_size,
    png_chunks,
    webp_size,
)
from weft.media.pixels import unread_tiff
from weft.media.source import MediaError, over_limit, without_extra

KEPT_PIXELS = 1 << 26
"""Pixels of the largest picture that is given at its own size: 67 million, above any camera of the 35 mm format. Larger
ones are read at a half, a third, ... of their sides; no encoder sees a tenth of that."""

LARGE = 1 << 25
"""Pixels of pictures that are decoded one at a time."""

_one = threading.Lock()

Costs = dict[int, tuple[float, float]]
"""For each possible reduction bytes a pixel of the full picture: while it is decoded, and when it was."""

_READERS = {
    "a JPEG picture": "PIL.JpegImagePlugin:jpeg_factory",
    "a PNG picture": "PIL.PngImagePlugin:PngImageFile",
    "a WebP picture": "PIL.WebPImagePlugin:WebPImageFile",
    "a GIF picture": "PIL.GifImagePlugin:GifImageFile",
    "a TIFF picture": "PIL.TiffImagePlugin:TiffImageFile",
    "a BMP picture": "PIL.BmpImagePlugin:BmpImageFile",
    "a JPEG 2000 picture": "PIL.Jpeg2KImagePlugin:Jpeg2KImageFile",
    "a PPM picture": "PIL.PpmImagePlugin:PpmImageFile",
    "a TGA picture": "PIL.TgaImagePlugin:TgaImageFile",
    "an ICO picture": "PIL.IcoImagePlugin:IcoImageFile",
    "a HEIC picture": "pillow_heif:HeifImageFile",  # with the extra, as the two below
    "an AVIF picture": "PIL.AvifImagePlugin:AvifImageFile",  # Pillow 11.3
    "a JPEG XL picture": "pillow_jxl.JpegXLImagePlugin:JXLImageFile",
}
_KNOWN = "give JPEG, PNG, WebP, GIF, TIFF, BMP or, with weftlm[media], HEIC or AVIF"
_ORIENTATION = 0x0112
_STEPS = range(1, 65)
_WEBP: Costs = dict.fromkeys(_STEPS, (16, 12))  # libwebp keeps two canvases; decoding ends in a third and Pillow's own
_GIF: Costs = dict.fromkeys(_STEPS, (2, 1))  # the second is what a next frame would restore
_HEIF: Costs = dict.fromkeys(_STEPS, (10, 5))  # this and those below: measured, and a third more
_AVIF: Costs = dict.fromkeys(_STEPS, (16, 10))
_JXL: Costs = dict.fromkeys(_STEPS, (14, 10))
_SLOW = {"bmp_rle": "a BMP in run lengths", "ppm_plain": "a PPM in text", "ppm": "a PPM of an odd white"}
_LARGEST_SLOW = 1 << 22  # Pillow's readers of run-length BMP and of PPM in text are loops in Python: seconds for more


@dataclass(frozen=True, slots=True)
class Opened:
    """A picture whose header was read and whose pixels fit the limit."""

    image: Any
    """Not decoded. A large JPEG is set to be decoded at a half, a quarter or an eighth of its sides."""
    size: tuple[int, int]
    """Width and height as a person sees it, at its full size."""
    reduction: int
    """By what its sides are to be divided when it is decoded; 1 for most."""


def open_picture(file: BinaryIO, name: str, head: bytes, held: int, limit: int) -> Opened:
    """Read the header. ``held``: bytes of the encoded file that stay in memory; they count for the ``limit``, too.

    Raises ``MediaError`` for what is no picture of a known format, is damaged, or cannot be decoded within the limit.
    """
    kind = sniff(head)
    if kind is None:
        raise MediaError(f"{name}: is not a picture; {_KNOWN}")
    if kind not in _READERS:
        raise MediaError(f"{name}: is {kind}, which is not read; {advice(kind) or _KNOWN}")
    try:
        read = pkgutil.resolve_name(_READERS[kind])
    except ImportError:
        raise without_extra(name, kind) from None
    samples = None
    try:
        check_blocks(file, head)
        size, chunks = (1, 1), {}
        if kind == "a GIF picture":
            size = gif_size(file, head)
        elif kind == "a WebP picture":
            size = webp_size(head)
        elif kind == "a JPEG XL picture":
            size = jxl_size(file)
        elif kind == "an ICO picture" and (png := ico_png(file)) is not None:
            return open_picture(io.BytesIO(png), name, png[:HEAD], held + len(png), limit)
        elif kind == "a PNG picture":
            chunks = _png_chunks(file)
            held += chunks.pop("texts")
        first = _WEBP if kind == "a WebP picture" else _JXL if kind == "a JPEG XL picture" else _GIF
        _reduction(size, first, name, held, limit)
        with alone(size):
            image: Any = read(file)
        image.info = {**chunks, **image.info}
        if image.format == "TIFF":
            samples = unread_tiff(image, image.tag_v2)
        if samples is None:
            size = seen_size(image)
            reduction = _reduction(image.size, _costs(image, file, name), name, held, limit)
    except TooMany as error:
        raise MediaError(f"{name}: is {kind} in {error}; save it again") from None
    except MediaError:
        raise
    except Exception as error:  # Pillow's readers raise a dozen kinds of error on damaged data
        samples = _tiff_samples(file) if kind == "a TIFF picture" else None
        if samples is None:
            raise MediaError(f"{name}: is {kind} that is damaged or cut short; save or download it again") from error
    if samples is not None:
        raise MediaError(f"{name}: is a TIFF of {samples}, which is not read; save it as PNG")
    if reduction > 1 and image.format in ("JPEG", "MPO"):
        here = min(reduction, 8)
        image.draft(None, (image.width // here, image.height // here))
        reduction //= here
    return Opened(image, size, reduction)


@contextlib.contextmanager
def alone(size: tuple[int, int]) -> Iterator[None]:
    """Large pictures are decoded one at a time, and without a word of Pillow's own limit: they have been measured."""
    if size[0] * size[1] <= min(LARGE, Image.MAX_IMAGE_PIXELS or LARGE):
        yield
        return
    with _one:
        most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = most


def reduction_of(image: Image.Image, name: str, limit: int) -> int:
    """By what the sides of a picture that somebody else opened are divided when it is converted."""
    own = _own_bytes(image) if getattr(image, "tile", None) else 0  # what is decoded is its owner's
    return _reduction(image.size, dict.fromkeys(_STEPS, (own, own)), name, 0, limit)


def _own_bytes(image: Image.Image) -> float:
    """Bytes a pixel of Pillow's."""
    return 1.0 if image.mode in ("1", "L", "P") else 2.0 if image.mode.startswith("I;16") else 4.0


def _costs(image: Any, file: BinaryIO, name: str) -> Costs:
    own, more = _own_bytes(image), 0.0
    if whole := {"WEBP": _WEBP, "HEIF": _HEIF, "AVIF": _AVIF, "JXL": _JXL}.get(image.format):
        return whole
    if image.format == "JPEG2000":
        more = 5.5 * len(image.getbands()) + 1  # a tile as 32-bit numbers, and most pictures are one tile
    if image.format in ("JPEG", "MPO"):
        # libjpeg keeps the coefficients of a picture in several scans: 2 bytes each, at the channels' own sampling.
        areas = [h * v for _, h, v, _ in image.layer]
        large = image.width * image.height > 1 << 22  # else it fits in any case
        several = image.info.get("progressive") or (large and _first_scan(file) < len(areas))
        more = 2 * sum(areas) / max(areas) if several else 0.0
        return {step: (own / min(step, 8) ** 2 + more, own / min(step, 8) ** 2) for step in (1, 2, 4, 8, 16, 32, 64)}
    if image.format == "TIFF":
        more = _strip_bytes(image.tag_v2) / (image.width * image.height)
        own *= 1 + (orientation(image) > 1)  # Pillow turns it itself
    elif image.format == "GIF":
        return _GIF
    elif image.format in ("BMP", "PPM") and image.tile[0][0] in _SLOW:
        if image.width * image.height > _LARGEST_SLOW:
            raise MediaError(f"{name}: is {_SLOW[image.tile[0][0]]} of more than 4 megapixels; save it as PNG")
        more = 2.0
    return dict.fromkeys(_STEPS, (own + more, own))


def _reduction(size: tuple[int, int], costs: Costs, name: str, held: int, limit: int) -> int:
    """The smallest reduction that fits; or ``MediaError``."""
    if min(size) < 1:
        raise MediaError(f"{name}: is {size[0]}x{size[1]} pixels; a picture needs at least 1x1")
    pixels, least = size[0] * size[1], float("inf")
    held += 12 * size[0] + 16 * size[1]  # rows that decoders keep, and Pillow's pointers to rows
    for step, (decoding, decoded) in costs.items():
        rgb = 4 / step**2  # beside what was decoded, and a second time where the picture is turned
        needed = held + pixels * max(decoding, decoded + rgb, 2 * rgb)
        least = min(least, needed)
        if pixels <= KEPT_PIXELS * step**2 and needed <= limit:
            return step
    raise over_limit(f"{name}: {size[0]}x{size[1]} pixels", least, limit, "make it smaller")


def _first_scan(file: BinaryIO) -> int:
    """Channels in the first scan of a JPEG."""
    place, channels = file.tell(), 0
    for kind in jpeg_segments(file):
        if kind == 0xDA:
            channels = int.from_bytes(file.read(1), "big")
    file.seek(place)
    return channels


def _strip_bytes(tags: Any) -> float:
    """What libtiff decodes at once: a strip or tile, and where that is a JPEG its coefficients."""
    if tags.get(259, 1) == 1:
        return 0
    width, rows = tags.get(322, tags[256]), tags.get(323, min(tags.get(278, tags[257]), tags[257]))
    samples, bits = tags.get(277, 1), max(tags.get(258, (1,)))
    jpeg = 6 * samples if tags[259] in (6, 7) else 0
    window = 1 << 27 if tags[259] == 50000 else 0  # the largest of zstd
    return width * rows * ((4 if tags.get(262) == 6 else samples * bits / 8) + jpeg) + window


def _tiff_samples(file: BinaryIO) -> str | None:
    """The samples of a TIFF that Pillow does not open, where its first directory is whole."""
    try:
        file.seek(0)
        head = file.read(8)
        tags = ImageFileDirectory_v2(head + file.read(8) if head[2] == 43 else head)
        file.seek(tags.next)
        tags.load(file)
        return unread_tiff(None, tags) if tags[256] and tags[257] and (273 in tags or 324 in tags) else None
    except Exception:  # a damaged directory raises whatever Pillow's reader meets: what Pillow says of the file stands
        return None


def _png_chunks(file: BinaryIO) -> dict[str, Any]:
    """What Pillow leaves of a PNG: sBIT, and an ``eXIf`` chunk behind the pixels, which it sees after decoding; and the
    bytes that its compressed texts may take."""
    found: dict[str, Any] = {"texts": 0}
    for kind, length in png_chunks(file):
        if kind == b"eXIf":
            found.setdefault("exif", b"Exif\0\0" + file.read(min(length, 1 << 16)))
        elif kind == b"sBIT":
            found["sbit"] = file.read(1)[0]
        elif kind in (b"zTXt", b"iTXt"):
            found["texts"] = min(found["texts"] + 1000 * length, 1 << 26)  # Pillow's own limit
    file.seek(0)
    return found


# ---------------------------------------------------------------------------------------------------------- EXIF


def seen_size(image: Any) -> tuple[int, int]:
    """Width and height as a person sees a picture, from its header."""
    size = image.size
    if image.format == "TIFF":  # Pillow turns a TIFF itself, and its `size` before loading varies by version
        size = int(image.tag_v2[256]), int(image.tag_v2[257])
    return (size[1], size[0]) if orientation(image) >= 5 else size


def orientation(image: Any) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or where it is nonsense, as picture viewers have it.

    Not ``image.getexif()``: on a PNG that decodes the whole picture, and it also takes XMP, which viewers ignore.
    """
    format = getattr(image, "format", None)
    if format == "HEIF" or (format == "JXL" and not getattr(image, "jpeg", False)):
        return 1  # turned by its decoder, whatever its EXIF says; but a JPEG inside of a JPEG XL is given as it is
    if format == "TIFF":
        # Pillow turns a TIFF on loading and then removes the tag from what getexif gives.
        value = image.getexif().get(_ORIENTATION, 1)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1
    raw = image.info.get("exif")
    return _exif_orientation(raw) if isinstance(raw, bytes) else 1


def _exif_orientation(raw: bytes) -> int:
    """The orientation in the first directory of an EXIF block (TIFF 6.0: byte order, offset, entries of 12 bytes)."""
    raw = raw.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(raw[:4])
    if order is None or len(raw) < 8:
        return 1
    (place,) = struct.unpack_from(order + "I", raw, 4)
    if place + 2 > len(raw):
        return 1
    (count,) = struct.unpack_from(order + "H", raw, place)
    for at in range(place + 2, min(place + 2 + 12 * count, len(raw) - 11), 12):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", raw, at)
        if tag == _ORIENTATION and kind == 3:  # 3: SHORT
            return value if 1 <= value <= 8 else 1
    return 1
