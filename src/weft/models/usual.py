"""How many features become one embedding in a new model, where nobody says: fields of its connector."""

from __future__ import annotations

import math
from typing import Any

from weft.models.encoders import ImageKind, SoundKind

VIEW_TOKENS = 64, 144  # of a picture or tile: at least, where it has as many patches, and at most
SECOND_TOKENS = 13  # of a second of sound, at most


def of_images(kind: ImageKind) -> dict[str, Any]:
    """Square blocks of patches; neighbours of a row where blocks would leave fewer than 64 (14 x 14 patches)."""
    rows, columns = kind.grid
    fewest, most = VIEW_TOKENS
    row = {"merge": -(-(rows * columns + (kind.patches is None)) // most), "grid": False}
    if kind.patches is None or row["merge"] == 1:
        return row
    side = next(s for s in range(2, rows * columns) if -(-rows // s) * -(-columns // s) <= most)
    few = -(-rows // side) * -(-columns // side) < fewest
    return row if few and not kind.section.connector.grid else {"merge": side * side, "grid": True}


def of_sound(kind: SoundKind) -> dict[str, Any]:
    return {"merge": 1 if kind.seconds is None else math.ceil(1 / kind.seconds / SECOND_TOKENS)}
