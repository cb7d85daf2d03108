"""Pictures: any file to RGB as a person sees it, and RGB to the numbers that an encoder takes.

Shapes: ``HW`` pixels down and across, ``C`` channels (3, RGB).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from weft.media.containers import count_pictures, png_chunks
from weft.media.pixels import bands, levels, to_rgb, unread_tiff
from weft.media.source import MediaError, decoded_array, encoded_source, sniff

MAX_PIXELS = 1 << 27
"""Largest picture that is decoded, 134 megapixels: above a telephone's 108, well below a decompression bomb's."""

_READERS: dict[str, Any] = {
    "a JPEG picture": jpeg_factory,
    "a PNG picture": PngImageFile,
    "a WebP picture": WebPImageFile,
    "a GIF picture": GifImageFile,
    "a TIFF picture": TiffImageFile,
    "a BMP picture": BmpImageFile,
}
_ORIENTATION = 0x0112
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

    Grey of more than 8 bits is read as `weft.media.pixels.levels` says; what that leaves out or guesses is in
    ``image_notes``. Raises ``MediaError`` for everything that is no such picture, is damaged, is a TIFF whose samples
    are not read right, or has more than ``MAX_PIXELS``.
    """
    if isinstance(source, Image.Image):
        name = "image"
        _check_size(source.size, name)
        try:
            return to_rgb(_upright(source))
        except Exception as error:  # whatever a decoder raises while loading lazily: see _decode
            raise MediaError(f"{name}: cannot be used ({_reason(error)}); load it again") from error
    if (array := decoded_array(source, "image")) is not None:
        return _from_array(array)
    encoded = encoded_source(source, "image")
    data = encoded.read()
    image = _open(io.BytesIO(data), encoded.name, data[:64])
    try:
        return to_rgb(_upright(image))
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
            return _seen_size(image.size, _orientation(image))
        except Exception as error:
            raise MediaError(f"{encoded.name}: is damaged ({_reason(error)}); save or download it again") from error


def image_notes(source: Any) -> tuple[str, ...]:
    """What ``load_image(source)`` leaves out or guesses, each in a sentence; empty for most pictures.

    Further pages or frames, which are not read; samples of more than 8 bits whose white is nowhere said. Only pictures
    with such samples are decoded.
    """
    if isinstance(source, Image.Image) or decoded_array(source, "image") is not None:
        return ()
    encoded, notes, reached = encoded_source(source, "image"), [], None
    with encoded.open() as file:
        image: Any = _open(file, encoded.name, encoded.head())
        try:
            if image.format == "MPO":  # a JPEG with others behind it, most of them smaller ones of the same
                count = sum("Thumbnail" not in entry["Attribute"]["MPType"] for entry in image.mpinfo[0xB002])
            elif image.format == "PNG":
                count = image.n_frames
            else:
                count = count_pictures(encoded.read()) if image.format in ("GIF", "TIFF", "WEBP") else 1
            if count > 1:
                notes.append(f"{encoded.name}: holds {count:,} pictures (pages or frames), of which the first is read")
            scale = levels(image)
            if scale is not None and not scale.sure and scale.low < scale.high:
                reached = f"{scale.low:g} to {scale.high:g} are read with black at {scale.black:g} and white at "
                reached += f"{scale.white:g}"
            elif image.mode in ("RGB", "RGBA") and _bits(image, encoded.head()) == 16:
                high = max(int(np.asarray(band.convert("RGB")).max()) for _, band in bands(image))
                if 0 < high < 1 << 6:
                    reached = f"up to {256 * high + 255:,} are read with white at 65,535"
        except Exception as error:
            raise MediaError(f"{encoded.name}: is damaged ({_reason(error)}); save or download it again") from error
    if reached is not None:
        advice = "where that is wrong, save it with 8 bits, or as TIFF state their range"
        notes.append(f"{encoded.name}: its samples from {reached}; {advice}")
    return tuple(notes)


def _bits(image: Any, head: bytes) -> int:
    """Bits a sample of a PNG or TIFF."""
    return head[24] if image.format == "PNG" else max(image.tag_v2[258]) if image.format == "TIFF" else 8


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
    kind = sniff(head)
    if kind is None:
        raise MediaError(f"{name}: is not a picture; give JPEG, PNG, WebP, GIF, TIFF or BMP")
    if kind not in _READERS:
        raise MediaError(f"{name}: is {kind}, which is not read; give JPEG, PNG, WebP, GIF, TIFF or BMP")
    try:
        image: Image.Image = _READERS[kind](file)
        if image.format == "PNG":
            _read_chunks(image, file)
        samples = unread_tiff(image, image.tag_v2) if image.format == "TIFF" else None  # type: ignore[attr-defined]
    except Exception as error:  # as in load_image: a damaged header raises many kinds of error
        samples = _tiff_samples(file) if kind == "a TIFF picture" else None
        if samples is None:
            raise MediaError(f"{name}: is {kind} that is damaged or cut short; save or download it again") from error
    if samples is not None:
        raise MediaError(f"{name}: is a TIFF of {samples}, which is not read; save it as PNG")
    _check_size(image.size, name)
    return image


def _tiff_samples(file: BinaryIO) -> str | None:
    """The samples of a TIFF that Pillow does not open, where its first directory is whole."""
    try:
        file.seek(0)
        head = file.read(8)
        tags = ImageFileDirectory_v2(head + file.read(8) if head[2] == 43 else head)
        file.seek(tags.next)
        tags.load(file)
        return unread_tiff(None, tags) if tags[256] and tags[257] and (273 in tags or 324 in tags) else None
    except Exception:
        return None


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


def _read_chunks(image: Image.Image, file: BinaryIO) -> None:
    """What Pillow leaves of a PNG: sBIT, and an ``eXIf`` chunk behind the pixels, which it sees after decoding."""
    place = file.tell()
    for kind, length in png_chunks(file):
        if kind == b"eXIf" and "exif" not in image.info:
            image.info["exif"] = b"Exif\0\0" + file.read(min(length, 1 << 16))
        elif kind == b"sBIT":
            image.info["sbit"] = file.read(1)[0]
    file.seek(place)


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
        array_HWC = ((array_HWC.astype(np.uint32) + 128) // 257).astype(np.uint8)
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
    return to_rgb(Image.fromarray(array_HWC[:, :, 0] if array_HWC.shape[2] == 1 else array_HWC))


def _reason(error: Exception) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
