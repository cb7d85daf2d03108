"""What layers note of a run in buffers, which are no weights that train: a checkpoint's state has it, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOTED = "photographs.beside"  # that the detector beside it was taught (`teaching.losses.Detected`)


def marks(model: Any, found: Mapping[str, int] | None = None) -> dict[str, int]:
    """The model's, by their names; first made what a checkpoint has ``found`` them to be."""
    held = {name: value for name, value in model.named_buffers() if name.endswith(NOTED)}
    for name in held.keys() & (found or {}).keys():
        held[name].fill_((found or {})[name])
    return {name: int(value) for name, value in held.items()}
