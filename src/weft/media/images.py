"""Pictures: any file to RGB as a person sees it, and RGB to the numbers that an encoder takes.

Shapes: ``HW`` pixels down and across, ``C`` channels (3, RGB).
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from weft.media.source import MediaError, decoded_array, encoded_source, sniff

MAX_PIXELS = 1 << 27
"""Largest picture that is decoded, 134 megapixels: above a telephone's 108, well below a decompression bomb's."""

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
_ORIENTATION = 0x0112
_PHOTOMETRIC = 0x0106
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Fit = Literal["stretch", "pad", "crop"]


def load_image(source: Any) -> Image.Image:
    """A picture as a person sees it: mode RGB, upright (EXIF), transparency over white, first frame of an animation.

    ``source``: a path, a ``data:`` URL, bytes, an open binary file, a PIL image, or an array: ``[H, W]``,
    ``[H, W, 1|3|4]`` or ``[1|3|4, H, W]`` of uint8, uint16, or floats in 0..1.

    Depth: 16 bits become 8 by dividing by 257. Pictures of 32-bit integers or floats have no agreed white: values
    within 0..1 (floats), 0..255 or 0..65535 are read on that scale, others are stretched from smallest to largest;
    pixels that are not finite are black. Raises ``MediaError`` for everything that is no such picture, is damaged, or
    has more than ``MAX_PIXELS``.
    """
    if isinstance(source, Image.Image):
        name = "image"
        _check_size(source.size, name)
        try:
            return _to_rgb(_upright(source))
        except Exception as error:  # whatever a decoder raises while loading lazily: see _decode
            raise MediaError(f"{name}: cannot be used ({_reason(error)}); load it again") from error
    if (array := decoded_array(source, "image")) is not None:
        return _from_array(array)
    encoded = encoded_source(source, "image")
    data = encoded.read()
    image = _open(io.BytesIO(data), encoded.name, data[:64])
    try:
        if image.format == "PNG" and "exif" not in image.info:
            _read_late_png_exif(image, io.BytesIO(data))
        image.load()
        return _to_rgb(_upright(image))
    except Exception as error:
        # Pillow's decoders raise a dozen kinds of error on damaged data (OSError, SyntaxError, struct.error, ...);
        # each of them means that this file cannot be decoded.
        raise MediaError(f"{encoded.name}: is damaged ({_reason(error)}); save or download it again") from error


def image_size(source: Any) -> tuple[int, int]:
    """``(width, height)`` of ``load_image(source)``, from the header alone: a broken body is not noticed here."""
    if isinstance(source, Image.Image):
        if source.format == "TIFF":
            source.load()  # turns it, whatever `size` said before
        return _seen_size(source.size, _orientation(source))
    if (array := decoded_array(source, "image")) is not None:
        height, width = _channels_last(array).shape[:2]
        return width, height
    encoded = encoded_source(source, "image")
    with encoded.open() as file:
        image = _open(file, encoded.name, encoded.head())
        try:
            if image.format == "TIFF":  # Pillow turns a TIFF itself, and its `size` before loading varies by version
                tags = image.tag_v2  # type: ignore[attr-defined]
                return _seen_size((int(tags[256]), int(tags[257])), _orientation(image))
            if image.format == "PNG" and "exif" not in image.info:
                _read_late_png_exif(image, file)
            return _seen_size(image.size, _orientation(image))
        except Exception as error:
            raise MediaError(f"{encoded.name}: is damaged ({_reason(error)}); save or download it again") from error


def resize_normalize(
    image: Image.Image,
    size_hw: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    resample: Resample = "bicubic",
    fit: Fit = "stretch",
) -> npt.NDArray[np.float32]:
    """An RGB picture brought to ``size_hw`` and normalised: float32 ``[3, H, W]``.

    ``fit``: the whole picture is stretched; or first padded to a square with the mean colour, itself in the middle
    (LLaVA's `expand2square`); or scaled by its shorter side and its middle taken (CLIP's preprocessing).

    Stretching equals, bit for bit, torchvision's ``Resize(size_hw, BICUBIC)``, ``ToTensor`` and
    ``Normalize(mean, std)`` on a PIL image: Pillow resizes (with its antialiasing, in 8 bits), then
    ``(x / 255 - mean) / std`` in float32. Pillow 13 rounds some resized pixels one level (of 255) otherwise than 12
    and before.
    """
    height, width = size_hw
    if image.mode != "RGB":
        raise MediaError(f"image: has mode {image.mode}, not RGB; pass it through load_image first")
    if fit == "pad":
        image = _padded(image, mean)
    scaled = _covering(image := _middle(image), height, width) if fit == "crop" else (width, height)
    if image.size != scaled:
        image = image.resize(scaled, _RESAMPLE[resample])
    if scaled != (width, height):
        left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
        image = image.crop((left, top, left + width, top + height))
    pixels_HWC = np.asarray(image)
    # There are 256 values a channel: a table gives the same float32 results as dividing each pixel, and is faster.
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    out_CHW = np.empty((3, height, width), dtype=np.float32)
    for c in range(3):
        np.take((levels - np.float32(mean[c])) / np.float32(std[c]), pixels_HWC[:, :, c], out=out_CHW[c])
    return out_CHW


def _padded(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """The picture in the middle of a square of the mean colour; halved first where the square would be too large."""
    while max(image.size) ** 2 > MAX_PIXELS:
        image = image.reduce(2)
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    red, green, blue = (int(255 * value) for value in mean)
    square = Image.new("RGB", (side, side), (red, green, blue))
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


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


def _open(file: BinaryIO, name: str, head: bytes) -> Image.Image:
    """Read the header; refuse what is no picture of a known format, and what is too large to decode."""
    try:
        image = Image.open(file, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        pixels = f"{int(found[1]):,}" if found else "too many"
        raise MediaError(f"{name}: {pixels} pixels is over the limit of {MAX_PIXELS:,}; make it smaller") from None
    except Exception as error:  # as in load_image: a damaged header raises many kinds of error
        kind = sniff(head)
        if kind is None:
            raise MediaError(f"{name}: is not a picture; give JPEG, PNG, WebP, GIF, TIFF or BMP") from error
        if kind.split()[1] in ("PNG", "JPEG", "GIF", "TIFF", "WebP", "BMP"):
            raise MediaError(f"{name}: is {kind} that is damaged or cut short; save or download it again") from error
        raise MediaError(f"{name}: is {kind}, which is not read; give JPEG, PNG, WebP, GIF, TIFF or BMP") from error
    _check_size(image.size, name)
    return image


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise MediaError(f"{name}: is {width}x{height} pixels; a picture needs at least 1x1")
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"{name}: {width}x{height} is {width * height:,} pixels, over the limit of {MAX_PIXELS:,}; make it smaller"
        )


def _seen_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation >= 5 else size


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or where it is nonsense, as picture viewers have it.

    Not ``image.getexif()``: on a PNG that decodes the whole picture, and it also takes XMP, which viewers ignore.
    """
    if getattr(image, "format", None) == "TIFF":
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


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    transpose = _TRANSPOSE.get(_orientation(image))
    if transpose is None:
        return image
    turned = image.transpose(transpose)
    turned.info = {k: v for k, v in image.info.items() if k != "exif"}  # transparency is kept, and it is turned once
    return turned


def _read_late_png_exif(image: Image.Image, file: BinaryIO) -> None:
    """Find an ``eXIf`` chunk behind the pixels, where Pillow sees it only after decoding. Reads chunk headers only."""
    place = file.tell()
    file.seek(8)
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        if kind == b"eXIf":
            image.info["exif"] = b"Exif\0\0" + file.read(min(length, 1 << 16))
        if kind in (b"eXIf", b"IEND"):
            break
        file.seek(length + 4, io.SEEK_CUR)
    file.seek(place)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB, with transparency laid over white."""
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image if type(image) is Image.Image else image.copy()  # not a file object that holds its data
    if mode.startswith("I") or mode == "F":
        grey, hidden = _deep_grey(image), image.info.get("transparency")
        if mode.startswith("I;16") and isinstance(hidden, int):
            grey[np.asarray(image) == hidden] = 255
        return Image.fromarray(grey).convert("RGB")
    if mode == "LAB":
        return _lab_to_rgb(image)
    if mode in ("La", "RGBa"):
        image = image.convert("LA" if mode == "La" else "RGBA")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _deep_grey(image: Image.Image) -> npt.NDArray[np.uint8]:
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        values = values.astype(np.uint16)
        if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:  # white is 0: Pillow inverts such a TIFF of 8 bits only
            values = 65535 - values
        return _eight_bits(values)
    return _unscaled_to_eight_bits(values)


def _unscaled_to_eight_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Integers or floats without an agreed white to 0..255; the rule is in ``load_image``."""
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        low = float(np.min(values, where=finite, initial=np.inf))
        high = float(np.max(values, where=finite, initial=-np.inf))
    else:
        low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1 and values.dtype.kind == "f":
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 65535:
        low, high = 0.0, (255.0 if high <= 255 else 65535.0)
    out = np.zeros(values.shape, dtype=np.uint8)
    if not low <= high:  # no finite pixel at all
        return out
    for row in range(0, len(values), 256):  # in bands, for float64 copies of a large picture would be gigabytes
        band = values[row : row + 256].astype(np.float64)
        scaled = (band - low) / max(high - low, 1e-300)
        out[row : row + 256] = np.rint(np.clip(np.nan_to_num(scaled, nan=0, posinf=0, neginf=0), 0, 1) * 255)
    return out


def _eight_bits(values: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    return np.asarray((values.astype(np.uint32) + 128) // 257, dtype=np.uint8)


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None
    return converted


def _channels_last(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``[H, W]``, ``[H, W, C]`` or ``[C, H, W]`` to ``[H, W, C]`` with C of 1, 3 or 4; H, W, C wins where both fit."""
    if array.ndim == 2:
        array = array[:, :, None]
    elif array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise MediaError(
            f"image array: has shape {list(array.shape)}; give [H, W], [H, W, 1|3|4] or [1|3|4, H, W] (one picture)"
        )
    _check_size((array.shape[1], array.shape[0]), "image array")
    return array


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    array_HWC = _channels_last(array)
    if array_HWC.dtype == np.uint16:
        array_HWC = _eight_bits(array_HWC)
    elif array_HWC.dtype == np.bool_:
        array_HWC = array_HWC.astype(np.uint8) * np.uint8(255)
    elif np.issubdtype(array_HWC.dtype, np.floating):
        if not np.isfinite(array_HWC).all() or array_HWC.min() < 0 or array_HWC.max() > 1:
            raise MediaError(
                f"image array: floats must lie in 0..1, these reach {array_HWC.min():g}..{array_HWC.max():g}; "
                "undo normalisation, or give uint8"
            )
        array_HWC = np.rint(array_HWC * 255).astype(np.uint8)
    elif array_HWC.dtype != np.uint8:
        raise MediaError(f"image array: has type {array_HWC.dtype}; give uint8, uint16 or floats in 0..1")
    array_HWC = np.ascontiguousarray(array_HWC)
    return _to_rgb(Image.fromarray(array_HWC[:, :, 0] if array_HWC.shape[2] == 1 else array_HWC))


def _reason(error: Exception) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
