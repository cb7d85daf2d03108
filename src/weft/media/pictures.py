"""What is known of a format of pictures before a pixel is decoded: what weft looks at, and what decoding costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar

from PIL import Image

from weft.media.containers import jpeg_segments, png_chunks

Costs = dict[int, tuple[float, float]]
"""For each possible reduction bytes a pixel of the full picture: while it is decoded, and when it was."""

STEPS = range(1, 65)


@dataclass(frozen=True, slots=True)
class Look:
    """What a file says before its reader is asked."""

    size: tuple[int, int] = (1, 1)
    """Width and height, where its reader makes room for the pixels on opening."""
    info: dict[str, Any] = field(default_factory=dict)
    """What Pillow leaves of it."""
    held: int = 0
    """Bytes that stay in memory beside it."""
    inside: bytes | None = None
    """The picture in another format that it holds."""


class Format:
    """One format of pictures, of which Pillow knows enough. Others derive from this."""

    reader: ClassVar[str]
    """Who opens it, by name: some are in packages of their own."""
    opening: ClassVar[tuple[float, float]] = (2, 1)
    """Bytes a pixel while its reader opens it and when it has, for the size that `look` gives."""

    def look(self, file: BinaryIO, head: bytes) -> Look:
        """Looks at a file before its reader does, and puts it to its start. Raises ``TooMany`` and ``ValueError``."""
        return Look()

    def costs(self, image: Any, file: BinaryIO, name: str) -> Costs:
        """What decoding an opened picture takes."""
        return dict.fromkeys(STEPS, (own_bytes(image), own_bytes(image)))

    def unread(self, image: Any) -> str | None:
        """What is in an opened picture, in words, where its pixels would come out wrong."""
        return None

    def unopened(self, file: BinaryIO) -> str | None:
        """What is in a file that its reader does not open, in words, where the file is whole."""
        return None


def own_bytes(image: Image.Image) -> float:
    """Bytes a pixel of Pillow's."""
    return 1.0 if image.mode in ("1", "L", "P") else 2.0 if image.mode.startswith("I;16") else 4.0


class Jpeg(Format):
    reader = "PIL.JpegImagePlugin:jpeg_factory"

    def look(self, file: BinaryIO, head: bytes) -> Look:
        for _ in jpeg_segments(file):
            pass
        file.seek(0)
        return Look()

    def costs(self, image: Any, file: BinaryIO, name: str) -> Costs:
        # libjpeg keeps the coefficients of a picture in several scans: 2 bytes each, at the channels' own sampling.
        areas, own = [h * v for _, h, v, _ in image.layer], own_bytes(image)
        large = image.width * image.height > 1 << 22  # else it fits in any case
        several = image.info.get("progressive") or (large and _first_scan(file) < len(areas))
        more = 2 * sum(areas) / max(areas) if several else 0.0
        return {step: (own / min(step, 8) ** 2 + more, own / min(step, 8) ** 2) for step in (1, 2, 4, 8, 16, 32, 64)}


def _first_scan(file: BinaryIO) -> int:
    """Channels in the first scan of a JPEG."""
    place, channels = file.tell(), 0
    for kind in jpeg_segments(file):
        if kind == 0xDA:
            channels = int.from_bytes(file.read(1), "big")
    file.seek(place)
    return channels


class Png(Format):
    reader = "PIL.PngImagePlugin:PngImageFile"

    def look(self, file: BinaryIO, head: bytes) -> Look:
        """What Pillow leaves of it: sBIT, and an ``eXIf`` chunk behind the pixels, which it sees after decoding; and
        the bytes that its compressed texts may take."""
        found: dict[str, Any] = {}
        texts = 0
        for kind, length in png_chunks(file):
            if kind == b"eXIf":
                found.setdefault("exif", b"Exif\0\0" + file.read(min(length, 1 << 16)))
            elif kind == b"sBIT":
                found["sbit"] = file.read(1)[0]
            elif kind in (b"zTXt", b"iTXt"):
                texts = min(texts + 1000 * length, 1 << 26)  # Pillow's own limit
        file.seek(0)
        return Look(info=found, held=texts)
