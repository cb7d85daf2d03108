"""Pictures brought to an encoder's size without being stretched: padded to a square, or their middle."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from weft.media.images import resized, shortened
from weft.media.opening import LARGE


def padded(
    image: Image.Image, size_hw: tuple[int, int], mean: Sequence[float], resample: Image.Resampling
) -> Image.Image:
    height, width = size_hw
    return resized(shortened(_squared(image, width, mean, resample), apart=False), (width, height), resample)


def cropped(
    image: Image.Image, size_hw: tuple[int, int], mean: Sequence[float], resample: Image.Resampling
) -> Image.Image:
    height, width = size_hw
    image = _middle(shortened(image, apart=False))
    scaled = _covering(image, height, width)
    image = resized(image, scaled, resample)
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    return image.crop((left, top, left + width, top + height)) if scaled != (width, height) else image


def _squared(image: Image.Image, width: int, mean: Sequence[float], resample: Image.Resampling) -> Image.Image:
    """The picture, halved while its square is over 134 megapixels, in the middle of a square of the mean colour.

    Where that square would be ``LARGE``, it is not made: each row is resized to ``width`` for itself. That is the same
    where Pillow resizes across first, which it does for all square targets (and before 13 for all)."""
    while max(image.size) ** 2 > 1 << 27:
        image = image.reduce(2)
    side = max(image.size)
    left, top = (side - image.width) // 2, (side - image.height) // 2
    red, green, blue = (int(255 * value) for value in mean)
    rows = side if side * side <= LARGE else LARGE // side // 16
    out = Image.new("RGB", (side if rows == side else width, side), (red, green, blue))
    if rows == side:
        out.paste(image, (left, top))
        return out
    for row in range(0, image.height, rows):
        part = image.crop((0, row, image.width, min(row + rows, image.height)))
        strip = Image.new("RGB", (side, part.height), (red, green, blue))
        strip.paste(part, (left, 0))
        out.paste(strip.resize((width, part.height), resample), (0, top + row))
    return out


def _middle(image: Image.Image, most: int = 32) -> Image.Image:
    """The picture, or of a strip more than ``most`` times as long as wide its middle: scaled it would be enormous."""
    width, height = image.size
    if max(width, height) <= most * min(width, height):
        return image
    long = most * min(width, height)
    left, top = max((width - long) // 2, 0), max((height - long) // 2, 0)
    return image.crop((left, top, min(left + long, width), min(top + long, height)))


def _covering(image: Image.Image, height: int, width: int) -> tuple[int, int]:
    """Width and height to which a picture is scaled so that it just covers ``height`` by ``width``."""
    if image.width * height <= image.height * width:
        return width, max(int(width * image.height / image.width), height)
    return max(int(height * image.width / image.height), width), height
