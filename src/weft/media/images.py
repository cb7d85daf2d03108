"""Pictures: any file to RGB as a person sees it, and RGB to the numbers that an encoder takes.

Shapes: ``HW`` pixels down and across, ``C`` channels (3, RGB).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from weft.kinds import HEAD
from weft.media.opening import alone, open_picture, orientation, reduction_of
from weft.media.pixels import to_rgb
from weft.media.source import MediaError, Stored, decoded_array, decoded_bytes, encoded_source
from weft.named import Named

LONGEST = 1 << 15
"""Pixels of a side that is resized as it is; of a longer one the mean of two, three, ... neighbours is taken first."""

# Of a progressive JPEG; each takes libjpeg a walk over the whole picture, and encoders make about ten.
_MOST_SCANS = 100
_TURN = Image.Transpose
# What undoes an EXIF orientation, from 2 on.
_TURNS = _TURN.FLIP_LEFT_RIGHT, _TURN.ROTATE_180, _TURN.FLIP_TOP_BOTTOM, _TURN.TRANSPOSE, _TURN.ROTATE_270
_TRANSPOSE = dict(enumerate((*_TURNS, _TURN.TRANSVERSE, _TURN.ROTATE_90), 2))

# How a picture is brought to the size that an encoder takes.
FITS = Named[Callable[[Image.Image, tuple[int, int], Sequence[float], Image.Resampling], Image.Image]](
    {"stretch": "weft.media.images:stretched", "pad": "weft.media.fits:padded", "crop": "weft.media.fits:cropped"}
)
# Pictures that programs have as numbers.
ARRAYS = Named[Callable[..., Any]]({name: f"weft.media.arrays:{name}" for name in ("picture", "channels_last")})
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Fit = Literal["stretch", "pad", "crop"]


def load_image(source: Any, max_bytes: int | None = None) -> Image.Image:
    """A picture as a person sees it: mode RGB, upright (EXIF), transparency over white, first frame of an animation.

    ``source``: a path, a ``data:`` URL, bytes, an open binary file, a PIL image, or an array: ``[H, W]``,
    ``[H, W, 1|3|4]`` or ``[1|3|4, H, W]`` of uint8, uint16, or floats in 0..1.

    A picture of more than 67 million pixels (`weft.media.opening.KEPT_PIXELS`) is given at a half, a third, ... of its
    sides, each pixel the mean of those that it stands for; so is a smaller one where it would take more memory than
    ``max_bytes`` (None: what `set_decoded_bytes` says, or 550 MB). `image_size` is that of the file.

    Grey of more than 8 bits is read as `weft.media.levels.levels` says; what that leaves out or guesses is in
    ``image_notes``. Raises ``MediaError`` for everything that is no such picture, is damaged, is a TIFF whose samples
    are not read right, or takes more than ``max_bytes`` at any size.
    """
    limit = decoded_bytes(max_bytes)
    if isinstance(source, Image.Image):
        reduction = reduction_of(source, "image", limit)
        try:
            return _decoded(source, image_size(source), reduction, ours=False)
        except Exception as error:  # whatever a decoder raises while loading lazily: see below
            raise MediaError(f"image: cannot be used ({reason(error)}); load it again") from error
    if (array := decoded_array(source, "image")) is not None:
        return ARRAYS["picture"](array, limit)  # type: ignore[no-any-return]
    encoded = encoded_source(source, "image")
    data = encoded.read()
    opened = open_picture(io.BytesIO(data), encoded.name, data[:HEAD], len(data), limit)
    if opened.image.info.get("progressive") and (scans := data.count(b"\xff\xda")) > _MOST_SCANS:
        raise MediaError(f"{encoded.name}: is a JPEG picture in {scans:,} scans; save it again")
    try:
        return _decoded(opened.image, opened.size, opened.reduction, ours=True)
    except Exception as error:
        # Pillow's decoders raise a dozen kinds of error on damaged data (OSError, SyntaxError, struct.error, ...);
        # each of them means that this file cannot be decoded.
        raise MediaError(f"{encoded.name}: is damaged ({reason(error)}); save or download it again") from error


def _decoded(image: Image.Image, size: tuple[int, int], reduction: int, ours: bool) -> Image.Image:
    rgb = _turned(image, reduction, ours)
    if rgb.size != size:
        rgb.full_size = size  # type: ignore[attr-defined]  # for image_size; a part that is cut from it has none
    return rgb


def _turned(image: Image.Image, reduction: int, ours: bool) -> Image.Image:
    said = image.size
    with alone(said):
        image.load()
        if image.size != said and image.format == "HEIF":  # a TIFF is turned by Pillow
            raise ValueError(f"its header says {said[0]}x{said[1]} pixels, and {image.width}x{image.height} are there")
        rgb, transpose = to_rgb(image, reduction), _TRANSPOSE.get(orientation(image))
        if ours:
            image.close()  # gives its pixels back before the picture is turned
        if transpose is None:
            return rgb
        turned = rgb.transpose(transpose)
    turned.info.pop("exif", None)  # it is turned once
    return turned


def image_size(source: Any, max_bytes: int | None = None) -> tuple[int, int]:
    """``(width, height)`` of a picture as a person sees it, from the header alone: a broken body is not noticed here.

    That is the size of ``load_image(source)``, but for pictures so large that it gives them smaller; given such a
    smaller one, it says the size of the file.
    """
    if isinstance(source, Image.Image):
        if source.format == "TIFF":
            source.load()  # turns it, whatever `size` said before
        size: tuple[int, int] = getattr(source, "full_size", source.size)
        return (size[1], size[0]) if orientation(source) >= 5 else size
    if isinstance(source, Stored) and source.facts:
        return source.facts
    if (array := decoded_array(source, "image")) is not None:
        height, width = ARRAYS["channels_last"](array).shape[:2]
        return width, height
    encoded = encoded_source(source, "image")
    with encoded.open() as file:
        return open_picture(file, encoded.name, encoded.head(), encoded.size, decoded_bytes(max_bytes)).size


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
    if image.mode != "RGB":
        raise MediaError(f"image: has mode {image.mode}, not RGB; pass it through load_image first")
    image = FITS[fit](image, size_hw, mean, Image.Resampling[resample.upper()])
    pixels_HWC = np.asarray(image)
    # There are 256 values a channel: a table gives the same float32 results as dividing each pixel, and is faster.
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    out_CHW = np.empty((3, *size_hw), dtype=np.float32)
    for c in range(3):
        np.take((levels - np.float32(mean[c])) / np.float32(std[c]), pixels_HWC[:, :, c], out=out_CHW[c])
    return out_CHW


def stretched(
    image: Image.Image, size_hw: tuple[int, int], mean: Sequence[float], resample: Image.Resampling
) -> Image.Image:
    return resized(shortened(image), (size_hw[1], size_hw[0]), resample)


def resized(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """The picture with sides of ``size``, which may be its own."""
    return image if image.size == size else image.resize(size, resample)


def shortened(image: Image.Image, apart: bool = True) -> Image.Image:
    """The picture with no side longer than ``LONGEST``: Pillow's step from one side to the other would take gigabytes.

    ``apart``: each side is divided by what it needs, not both by the larger of the two."""
    across, down = -(-image.width // LONGEST), -(-image.height // LONGEST)
    if not apart:
        across = down = max(across, down)
    return image if across == down == 1 else image.reduce((across, down))


def reason(error: Exception) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
