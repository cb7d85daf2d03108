"""Grey of more than 8 bits, and of signs: which sample is black and which is white."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from weft.media.pixels import tiles

BITS, PHOTOMETRIC, FORMAT, LEAST, GREATEST = 258, 262, 339, 340, 341  # of TIFF


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

    def to_rgb(self, tile: Image.Image) -> Image.Image:
        """A part of the picture in 8 bits."""
        values = _values(tile, self.kind)
        grey = self.grey(values)
        hidden = tile.info.get("transparency")
        if tile.mode.startswith("I;16") and isinstance(hidden, int):
            grey[values == hidden] = 255
        return Image.fromarray(grey).convert("RGB")


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
    signed, bits = first(tags.get(FORMAT, 1)) == 2, int(first(tags.get(BITS, 16)))
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
    inverted = tags.get(PHOTOMETRIC) == 0
    least, greatest = first(tags.get(LEAST, 0)), first(tags.get(GREATEST))
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


def first(value: Any) -> Any:
    """A TIFF field of one value a channel: the first."""
    return value[0] if isinstance(value, tuple) else value
