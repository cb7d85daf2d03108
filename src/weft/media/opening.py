"""A picture's header, and how much memory its pixels will take: what is too large is read smaller, or not at all.

Everything is decided before a pixel is decoded. Shapes: ``HW`` pixels down and across.
"""

from __future__ import annotations

import contextlib
import io
import pkgutil
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import Image

from weft.kinds import HEAD, advice, sniff
from weft.media.containers import TooMany
from weft.media.pictures import STEPS, Costs, Format, own_bytes
from weft.media.source import MediaError, over_limit, without_extra
from weft.named import Named

KEPT_PIXELS = 1 << 26
"""Pixels of the largest picture that is given at its own size: 67 million, above any camera of the 35 mm format. Larger
ones are read at a half, a third, ... of their sides; no encoder sees a tenth of that."""

LARGE = 1 << 25
"""Pixels of pictures that are decoded one at a time."""

_one = threading.Lock()

_MORE = "weft.media.more_pictures:"
FORMATS = Named[type[Format]](
    {
        "a JPEG picture": "weft.media.pictures:Jpeg",
        "a PNG picture": "weft.media.pictures:Png",
        "a WebP picture": _MORE + "WebP",
        "a GIF picture": _MORE + "Gif",
        "a TIFF picture": _MORE + "Tiff",
        "a BMP picture": _MORE + "Bmp",
        "a JPEG 2000 picture": _MORE + "Jpeg2000",
        "a PPM picture": _MORE + "Ppm",
        "a TGA picture": _MORE + "Tga",
        "an ICO picture": _MORE + "Ico",
        "a HEIC picture": _MORE + "Heic",
        "an AVIF picture": _MORE + "Avif",
        "a JPEG XL picture": _MORE + "JpegXL",
    }
)
_KNOWN = "give JPEG, PNG, WebP, GIF, TIFF, BMP or, with weftlm[media], HEIC or AVIF"
ORIENTATION = 0x0112
# Whose pixels are turned by who decodes them, in ways of their own.
TURNED = Named[Callable[[Any], int]](
    {"HEIF": "weft.media.turned:heif", "JXL": "weft.media.turned:jxl", "TIFF": "weft.media.turned:tiff"}
)


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
    if kind not in FORMATS.places:
        raise MediaError(f"{name}: is {kind}, which is not read; {advice(kind) or _KNOWN}")
    form = FORMATS[kind]()
    try:
        read = pkgutil.resolve_name(form.reader)
    except ImportError:
        raise without_extra(name, kind) from None
    try:
        look = form.look(file, head)
        if (png := look.inside) is not None:
            return open_picture(io.BytesIO(png), name, png[:HEAD], held + len(png), limit)
        _reduction(look.size, dict.fromkeys(STEPS, form.opening), name, held + look.held, limit)
        with alone(look.size):
            image: Any = read(file)
        image.info = {**look.info, **image.info}
        if (unread := form.unread(image)) is None:
            size = seen_size(image)
            reduction = _reduction(image.size, form.costs(image, file, name), name, held + look.held, limit)
    except TooMany as error:
        raise MediaError(f"{name}: is {kind} in {error}; save it again") from None
    except MediaError:
        raise
    except Exception as error:  # Pillow's readers raise a dozen kinds of error on damaged data
        if (unread := form.unopened(file)) is None:
            raise MediaError(f"{name}: is {kind} that is damaged or cut short; save or download it again") from error
    if unread is not None:
        raise MediaError(f"{name}: is a TIFF of {unread}, which is not read; save it as PNG")
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
    own = own_bytes(image) if getattr(image, "tile", None) else 0  # what is decoded is its owner's
    return _reduction(image.size, dict.fromkeys(STEPS, (own, own)), name, 0, limit)


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
    form: Any = getattr(image, "format", None)
    if form in TURNED.places:
        return TURNED[form](image)  # type: ignore[no-any-return]
    return exif_orientation(image.info.get("exif"))


def exif_orientation(raw: Any) -> int:
    """The orientation in the first directory of an EXIF block (TIFF 6.0: byte order, offset, entries of 12 bytes)."""
    raw = raw.removeprefix(b"Exif\0\0") if isinstance(raw, bytes) else b""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(raw[:4])
    if order is None or len(raw) < 8:
        return 1
    (place,) = struct.unpack_from(order + "I", raw, 4)
    if place + 2 > len(raw):
        return 1
    (count,) = struct.unpack_from(order + "H", raw, place)
    for at in range(place + 2, min(place + 2 + 12 * count, len(raw) - 11), 12):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", raw, at)
        if tag == ORIENTATION and kind == 3:  # 3: SHORT
            return value if 1 <= value <= 8 else 1
    return 1
