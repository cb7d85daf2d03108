"""Pictures and sound that programs have as arrays of any kind, as weft has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from weft.media.opening import reduction_of
from weft.media.pixels import to_rgb
from weft.media.sound import mixed
from weft.media.source import MediaError


def channels_last(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``[H, W]``, ``[H, W, C]`` or ``[C, H, W]`` to ``[H, W, C]`` with C of 1, 3 or 4; H, W, C wins where both fit."""
    if array.ndim == 2:
        array = array[:, :, None]
    elif array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise MediaError(
            f"image array: has shape {list(array.shape)}; give [H, W], [H, W, 1|3|4] or [1|3|4, H, W] (one picture)"
        )
    if 0 in array.shape:
        raise MediaError(f"image array: is {array.shape[1]}x{array.shape[0]} pixels; a picture needs at least 1x1")
    return array


def picture(array: npt.NDArray[Any], limit: int) -> Image.Image:
    """RGB of uint8, uint16, bool, or floats in 0..1."""
    array_HWC = channels_last(array)
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
    image = Image.fromarray(array_HWC[:, :, 0] if array_HWC.shape[2] == 1 else array_HWC)
    return to_rgb(image, reduction_of(image, "image array", limit))


def mono(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """One channel, full scale 1, of ``[samples]``, ``[samples, channels]`` or the reverse, of floats or integers."""
    if array.ndim == 2:
        if array.shape[0] == array.shape[1] and array.shape[0] > 1:
            raise MediaError(
                f"audio array: shape {list(array.shape)} does not tell samples from channels; average them"
            )
        array = array if array.shape[1] <= array.shape[0] else array.T
    elif array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise MediaError(f"audio array: has shape {list(array.shape)}; give [samples] or [samples, channels]")
    if array.size == 0:
        raise MediaError("audio array: holds no sound (0 samples)")
    kind = array.dtype.kind
    if kind == "u" and array.dtype.itemsize == 1:
        return ((array.astype(np.float32) - 128) / 128).mean(axis=1, dtype=np.float32)
    if kind == "i" and array.dtype.itemsize < 8:  # a list of int16 values becomes int64, and would be as good as silent
        return (array.astype(np.float64).mean(axis=1) / -float(np.iinfo(array.dtype).min)).astype(np.float32)
    if kind == "f":
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused below
            return mixed(np.asarray(array, dtype=np.float32), "audio array", 0)
    raise MediaError(f"audio array: has type {array.dtype}; give floats in -1..1, or int16")
