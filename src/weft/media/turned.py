"""The EXIF orientation that is left to be applied to pictures which their decoders turn."""

from __future__ import annotations

from typing import Any

from weft.media.opening import ORIENTATION, exif_orientation


def heif(image: Any) -> int:
    return 1  # turned by its decoder, whatever its EXIF says


def jxl(image: Any) -> int:
    """As `heif`; but a JPEG inside of a JPEG XL is given as it is."""
    return exif_orientation(image.info.get("exif")) if getattr(image, "jpeg", False) else 1


def tiff(image: Any) -> int:
    """Pillow turns a TIFF on loading and then removes the tag from what getexif gives."""
    value = image.getexif().get(ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
