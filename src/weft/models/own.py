"""Weft's own model and its pretrained parts: where they are on this machine, and what to do where they are not."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from platformdirs import user_cache_path

from weft.conversation import WeftError
from weft.models.doors import BUNDLED

SHIPPED = Path(__file__).parents[1] / "bundled"  # what it has learned, beyond its pretrained parts


def parts_folder() -> Path:
    """Where `weft parts` unpacks the parts of this user."""
    return user_cache_path("weft") / "parts"


def check_part(name: str | os.PathLike[str]) -> None:
    """Raises `WeftError` where ``name`` is a part that is not there."""
    folder = Path(name)
    if folder.parent == parts_folder() and not folder.is_dir():
        raise WeftError(f"the pretrained part {folder.name} is not on this machine; fetch it once with `weft parts`")


def bundled_folder() -> Path | None:
    """Where `weft parts` puts weft's own model together for this user; None where this copy of weft ships no weights.

    Other weights, or another configuration, have another folder.
    """
    weights, config = SHIPPED / "adapter_model.safetensors", SHIPPED / "config.json"
    if not weights.is_file():
        return None
    both = hashlib.sha256(weights.read_bytes() + config.read_bytes())
    return user_cache_path("weft") / f"{BUNDLED}-{both.hexdigest()[:8]}"


def place() -> str:
    """The folder that `bundled` stands for."""
    folder = bundled_folder()
    if folder is None:
        raise WeftError("bundled: this copy of weft holds no weights of it; take 'scratch', or install a release")
    if not folder.is_dir():
        raise WeftError("bundled: its pretrained parts are not on this machine; fetch them once with `weft parts`")
    return str(folder)
