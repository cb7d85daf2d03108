"""Decoded pixels of any kind to 8-bit RGB: palettes, transparency, LAB, and samples of more than 8 bits.

Shapes: ``HW`` pixels down and across.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

_TILE = 1 << 18  # pixels that are converted at a time, for the steps between take 20 bytes a pixel
_WIDTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANES = 256, 258, 259, 262, 277, 284
_FORMAT, _LEAST, _GREATEST, _SUBSAMPLING = 339, 340, 341, 530
_FORMATS = {1: "unsigned", 2: "signed", 3: "float"}
_COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "LAB"}


def to_rgb(image: Image.Image, reduction: int = 1) -> Image.Image:
    """Any mode to RGB, with transparency laid over white; its sides divided by ``reduction``, rounded up."""
    if image.mode == "RGB" and "transparency" not in image.info:
        if reduction > 1:
            return image.reduce(reduction)
        return image if type(image) is Image.Image else image.copy()  # not a file object that holds its data
    scale = levels(image)
    out = Image.new("RGB", (-(-image.width // reduction), -(-image.height // reduction)))
    for (left, top), tile in tiles(image, reduction):
        rgb = _tile_to_rgb(tile, scale)
        out.paste(rgb.reduce(reduction) if reduction > 1 else rgb, (left // reduction, top // reduction))
    return out


def tiles(image: Image.Image, step: int = 1) -> Iterator[tuple[tuple[int, int], Image.Image]]:
    """``((left, top), picture)`` of parts of a quarter of a million pixels, whose sides are multiples of ``step``."""
    width = max(min(image.width, _TILE) // step, 1) * step
    height = max(_TILE // width // step, 1) * step
    for top in range(0, image.height, height):
        for left in range(0, image.width, width):
            right, bottom = min(left + width, image.width), min(top + height, image.height)
            yield (left, top), image.crop((left, top, right, bottom))


def _tile_to_rgb(image: Image.Image, scale: Levels | None) -> Image.Image:
    if scale is not None:
        values = _values(image, scale.kind)
        grey = scale.grey(values)
        hidden = image.info.get("transparency")
        if image.mode.startswith("I;16") and isinstance(hidden, int):
            grey[values == hidden] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "LAB":
        converted = ImageCms.applyTransform(image, _lab_to_rgb())
        assert converted is not None
        return converted
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


@cache
def _lab_to_rgb() -> Any:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


# ------------------------------------------------------------------------------------ samples of more than 8 bits


@dataclass(frozen=True, slots=True)
class Levels:
    """How the samples of a deep grey picture are read: what is black, what is white, and who says so."""

    kind: npt.DTypeLike
    """The type that the file gives its samples, where Pillow's is another."""
    low: float
    high: float
    """The smallest and the largest sample that occurs."""
    black: float
    white: float
    sure: bool
    """Whether black and white follow from the file and its format, or are guessed from the samples."""
    inverted: bool = False

    def grey(self, values_HW: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        if self.kind is np.uint16 and values_HW.size > 1 << 16:  # there are 65,536 values: a table is faster
            return self.grey(np.arange(1 << 16, dtype=np.uint16))[values_HW]
        scaled = (values_HW.astype(np.float64) - self.black) / max(self.white - self.black, 1e-300)
        scaled = np.nan_to_num(1 - scaled if self.inverted else scaled, nan=0, posinf=0, neginf=0)
        return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def levels(image: Image.Image) -> Levels | None:
    """How a decoded picture of 16-bit, 32-bit or signed grey is read; None for every other one.

    1. A TIFF that states SMinSampleValue and SMaxSampleValue says what is black and white; so does a PPM.
    2. Samples of up to 16 bits, where they are not below 0: their type's range. BitsPerSample counts in a TIFF (12
       bits: white is 4095), and sBIT in a PNG that has its few bits at the lower end.
    3. The others have no agreed white. Values within 0..1 (floats), 0..255 or 0..65535 are read on that scale, others
       are stretched from the smallest to the largest; what is not finite is black.

    WhiteIsZero swaps black and white.
    """
    tags = getattr(image, "tag_v2", {})
    signed, bits = _first(tags.get(_FORMAT, 1)) == 2, int(_first(tags.get(_BITS, 16)))
    if not (image.mode.startswith("I") or image.mode == "F" or (image.mode == "L" and signed)):
        return None
    kind = {"F": np.float32, "L": np.int8}.get(image.mode, np.int32 if image.mode == "I" else np.uint16)
    if image.mode == "I" and tags and not signed:
        kind = np.uint32
    low, high, used = np.inf, -np.inf, 0
    for _, tile in tiles(image):
        values = _values(tile, kind)
        values = values[np.isfinite(values)] if kind is np.float32 else values
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
        used |= int(np.bitwise_or.reduce(values, axis=None)) if kind is np.uint16 else 0
    inverted = tags.get(_PHOTOMETRIC) == 0
    least, greatest = _first(tags.get(_LEAST, 0)), _first(tags.get(_GREATEST))
    if greatest is not None and greatest > least:
        return Levels(kind, low, high, float(least), float(greatest), True, inverted)
    if image.format == "PPM":  # it states its white, and Pillow brings that to 65535
        return Levels(kind, low, high, 0, 65535, True)
    if kind is np.uint16:
        said = image.info.get("sbit", 16)  # of the upper bits, says PNG; but some write them into the lower ones
        bits = said if used < 1 << said and used & (1 << 16 - said) - 1 else min(bits, 16)
        return Levels(kind, low, high, 0, 2**bits - 1, bits < 16 or said < 16 or high >= 1 << 14, inverted)
    if signed and bits <= 16 and low >= 0:
        return Levels(kind, low, high, 0, 2 ** (bits - 1) - 1, high >= 1 << bits - 3, inverted)
    if low >= 0 and high <= 1 and kind is np.float32:
        return Levels(kind, low, high, 0, 1, True, inverted)
    if low >= 0 and high <= 65535:
        return Levels(kind, low, high, 0, 255 if high <= 255 else 65535, False, inverted)
    return Levels(kind, low, high, low, high, False, inverted)


def _values(image: Image.Image, kind: npt.DTypeLike) -> npt.NDArray[Any]:
    values = np.asarray(image)
    return values.astype(np.uint16) if image.mode.startswith("I;16") else values.view(kind)


def _first(value: Any) -> Any:
    """A TIFF field of one value a channel: the first."""
    return value[0] if isinstance(value, tuple) else value


def unread_tiff(image: Image.Image | None, tags: Any) -> str | None:
    """The samples of a TIFF in words, where Pillow does not read them (``image`` is None) or reads them wrong."""
    bits, samples = _first(tags.get(_BITS, 1)), tags.get(_SAMPLES, 1)
    planes, plain = tags.get(_PLANES, 1) == 2 and samples > 1, tags.get(_COMPRESSION, 1) == 1
    if image is not None and not (
        # Each seen with Pillow 13.0 to give noise or another picture, without a word.
        (image.mode in ("I", "F") and tags.prefix == b"MM" and not plain)
        or (planes and (samples == 2 or (bits == 16 and plain)))
        or (tags.get(_PHOTOMETRIC) == 6 and plain and tags.get(_SUBSAMPLING, (1, 1)) != (1, 1))
        or (bits == 16 and samples > 2 and (_first(tags.get(_GREATEST)) or 65535) < 1 << 15)  # Pillow takes 8 bits
    ):
        return None
    kind = _FORMATS.get(_first(tags.get(_FORMAT, 1)), "other")
    facts = [_COLOURS.get(tags.get(_PHOTOMETRIC), "other colours"), f"{samples} x {bits}-bit {kind} samples"]
    facts += ["big-endian"] * (tags.prefix == b"MM") + ["in planes"] * planes + ["compressed"] * (not plain)
    greatest = tags.get(_GREATEST)
    return ", ".join(facts) + (f", white at {_first(greatest):g}" if greatest is not None else "")
