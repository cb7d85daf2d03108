"""Decoded pixels of any kind to 8-bit RGB: palettes, transparency, LAB; samples of more than 8 bits are in `levels`.

Shapes: ``HW`` pixels down and across.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from PIL import Image, ImageCms

from weft.named import Named

_TILE = 1 << 18  # pixels that are converted at a time, for the steps between take 20 bytes a pixel
# By mode: what tells black from white in samples of another kind than 8 bits; None where they are that.
LEVELS = Named[Callable[[Image.Image], Any]](
    dict.fromkeys(("I", "I;16", "I;16L", "I;16B", "I;16N", "F", "L"), "weft.media.levels:levels")
)


def to_rgb(image: Image.Image, reduction: int = 1) -> Image.Image:
    """Any mode to RGB, with transparency laid over white; its sides divided by ``reduction``, rounded up."""
    if image.mode == "RGB" and "transparency" not in image.info:
        if reduction > 1:
            return image.reduce(reduction)
        return image if type(image) is Image.Image else image.copy()  # not a file object that holds its data
    scale = LEVELS[image.mode](image) if image.mode in LEVELS.places else None
    out = Image.new("RGB", (-(-image.width // reduction), -(-image.height // reduction)))
    for (left, top), tile in tiles(image, reduction):
        rgb = _tile_to_rgb(tile) if scale is None else scale.to_rgb(tile)
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


def _tile_to_rgb(image: Image.Image) -> Image.Image:
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
