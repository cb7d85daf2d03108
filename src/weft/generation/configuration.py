"""A checkpoint's folder or hub name to its configuration."""

from __future__ import annotations

import os

from weft.formats.checkpoints import check_kind
from weft.generation.loading import check_name, in_one_sentence
from weft.models import doors
from weft.models.config import WeftConfig


def load_config(path: str | os.PathLike[str]) -> WeftConfig:
    """The configuration of a checkpoint, nothing else of it read."""
    name = doors.place(path)
    check_name(name)
    with in_one_sentence(name):
        check_kind(name, WeftConfig.get_config_dict(name)[0])
        return doors.load(WeftConfig, name)  # type: ignore[no-any-return]
