"""The size that reaches the encoder where the source of a model crops the middle out of its pictures (CLIP, DINOv2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.models.preparation import refuse, sides


def middle(
    asked: Mapping[str, Any], source: str, resized: tuple[int, int] | None, edge: Any, cropped: bool
) -> tuple[int, int]:
    """Height and width of the crop; ``resized``: of the picture before, or ``edge`` its shorter side."""
    found = sides(asked.get("crop_size"))
    if found is None:
        refuse(source, "crop_size", asked.get("crop_size"), "vision.options.size")
    needed = (max(found),) * 2 if edge else found
    larger = resized is not None and all(a >= b for a, b in zip(resized, needed, strict=True))
    if not larger or cropped and resized != found:  # the middle of a smaller picture would have black sides
        refuse(source, "size", asked.get("size"), "vision.options.size")
    return found
