"""What the converters' tests share: small media, files in other layouts, and samples that pass validation."""

import json
from pathlib import Path
from typing import Any

import soundfile
from PIL import Image

from weft.conversation import Conversation, read_samples
from weft.data.converters import convert
from weft.data.validate import validate
from weft.media import image_size


def picture(path: Path, width: int = 64, height: int = 48) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)
    return path


def clip(path: Path, seconds: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "WAV" if path.suffix not in (".flac", ".mp3") else None
    soundfile.write(path, [0.0] * int(8000 * seconds), 8000, format=kind)
    return path


def read(path: Path) -> list[Conversation]:
    """The samples of a file that `weft data validate` has nothing to say about."""
    assert not validate([path]).mistakes
    return read_samples(path, probe=image_size)


def made(name: str, source: Path, out: Path, **options: Any) -> list[Conversation]:
    report = convert(name, source, out, **options)
    found = read(out)
    assert len(found) == report.samples
    return found


def save(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def lines(path: Path, *values: Any) -> Path:
    path.write_text("".join(json.dumps(v, ensure_ascii=False) + "\n" for v in values), encoding="utf-8")
    return path
