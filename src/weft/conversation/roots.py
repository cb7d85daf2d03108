"""A folder that media may not leave."""

from __future__ import annotations

import os

from weft.conversation.checks import Mistake
from weft.conversation.errors import WeftError
from weft.conversation.parts import Exists


def within(root: str | os.PathLike[str] | None, exists: Exists = os.path.isfile) -> Exists:
    """``exists`` for the doors that read samples of strangers: a path that leads outside of the folder ``root`` is a
    mistake, however it is written (absolute, ``..``, links, which are followed). None: any path may be named."""
    if root is None:
        return exists
    if not os.path.isdir(root):
        raise WeftError(f"{os.fspath(root)}: no such folder, and media may lie nowhere else (--media-root)")
    inside = os.path.join(os.path.realpath(root), "")

    def check(path: str) -> bool:
        if not os.path.realpath(path).startswith(inside):
            raise Mistake(f"leads outside of {os.fspath(root)}, where media may lie (--media-root): {path!r}")
        return exists(path)

    return check
