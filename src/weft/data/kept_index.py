"""Where the lines of a large sample file begin, written down once and mapped."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from glob import escape
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path

from weft.data.sample_file import LINE, lines
from weft.files import whole_file


def kept(path: Path) -> tuple[bool, np.ndarray]:
    """Whether they could be kept on the disk, and the lines of ``path`` that are not blank."""
    status = path.stat()
    place = path.resolve()
    name = f"{path.name}.{hashlib.sha256(f'{status.st_size} {status.st_mtime_ns}'.encode()).hexdigest()[:16]}.lines"
    beside = hashlib.sha256(str(place.parent).encode()).hexdigest()[:16]
    for folder in (place.parent / ".weft" / "lines", user_cache_path("weft") / "lines" / beside):
        with suppress(OSError):
            if not (folder / name).is_file():
                with whole_file(folder / name, "wb") as file:
                    for rows in lines(path):
                        file.write(rows.tobytes())
                for old in set(folder.glob(f"{escape(path.name)}.{'?' * 16}.lines")) - {folder / name}:
                    old.unlink(missing_ok=True)
            empty = not (folder / name).stat().st_size  # which cannot be mapped
            return True, np.zeros(0, LINE) if empty else np.memmap(folder / name, LINE, "r")
    return False, np.concatenate(list(lines(path)))
