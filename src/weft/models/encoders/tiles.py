"""A picture as several views, by its shape: tiles of the encoder's size, and the whole (InternVL's rule)."""

from __future__ import annotations

import numpy as np
from PIL import Image

from weft.media import image_size, resize_normalize
from weft.models.config import VisionSection


def grid(section: VisionSection, width: int, height: int) -> tuple[int, int]:
    """Rows and columns of tiles that a picture of that size is cut into: those whose shape is nearest to its own.

    Of equally near ones the more, as long as they have no more than twice the picture's area.
    """
    side = range(1, section.tiles + 1)
    grids = sorted(((c, r) for c in side for r in side if c * r <= len(side)), key=lambda grid: grid[0] * grid[1])
    near = min(abs(width / height - c / r) for c, r in grids)
    nearest = [(r, c) for c, r in grids if abs(width / height - c / r) == near]
    tile = section.size[0] * section.size[1]
    roomy = [(r, c) for r, c in nearest[1:] if width * height > 0.5 * tile * r * c]
    return roomy[-1] if roomy else nearest[0]


def views(section: VisionSection, image: Image.Image, whole: np.ndarray) -> np.ndarray:
    """Tiles in raster order before the ``whole`` [1, 3, H, W], where there are several: [V, 3, H, W]."""
    rows, columns = grid(section, *image_size(image))
    if rows * columns == 1:
        return whole
    height, width = section.size
    size = rows * height, columns * width
    canvas_CHW = resize_normalize(image, size, section.mean, section.std, section.resample, section.fit)
    cut = canvas_CHW.reshape(3, rows, height, columns, width).transpose(1, 3, 0, 2, 4)
    return np.concatenate([cut.reshape(-1, 3, height, width), whole])


def largest(section: VisionSection) -> tuple[int, int]:
    """Width and height of a picture that gives the most embeddings: a row of tiles."""
    height, width = section.size
    return section.tiles * width, height
