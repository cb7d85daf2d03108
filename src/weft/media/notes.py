"""What reading a file leaves out or guesses, in sentences: for who checks files, before anything is made of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from weft.media.containers import MOST_BLOCKS
from weft.media.ffmpeg import FfmpegSound
from weft.media.images import reason
from weft.media.levels import levels
from weft.media.more_pictures import colour_bytes
from weft.media.opening import alone, open_picture
from weft.media.pixels import tiles
from weft.media.sound import opened
from weft.media.source import MediaError, decoded_array, decoded_bytes, encoded_source


def image_notes(source: Any, max_bytes: int | None = None) -> tuple[str, ...]:
    """What ``load_image(source)`` leaves out or guesses, each in a sentence; empty for most pictures.

    Further pages or frames, which are not read; samples of more than 8 bits whose white is nowhere said. Only pictures
    with such samples are decoded.
    """
    if isinstance(source, Image.Image) or decoded_array(source, "image") is not None:
        return ()
    encoded, notes, reached = encoded_source(source, "image"), [], None
    with encoded.open() as file:
        image = open_picture(file, encoded.name, encoded.head(), encoded.size, decoded_bytes(max_bytes)).image
        try:
            if image.format == "MPO":  # a JPEG with others behind it, most of them smaller ones of the same
                count = sum("Thumbnail" not in entry["Attribute"]["MPType"] for entry in image.mpinfo[0xB002])
            elif image.format in ("GIF", "TIFF"):
                count = count_pictures(encoded.read())
            else:
                count = getattr(image, "n_frames", 1)
            if count > 1:
                notes.append(f"{encoded.name}: holds {count:,} pictures (pages or frames), of which the first is read")
            with alone(image.size):
                scale = levels(image)
                if scale is not None and not scale.sure and scale.low < scale.high:
                    reached = f"{scale.low:g} to {scale.high:g} are read with black at {scale.black:g} and white at "
                    reached += f"{scale.white:g}"
                elif image.mode in ("RGB", "RGBA") and _bits(image, encoded.head()) == 16:
                    high = max(int(np.asarray(tile.convert("RGB")).max()) for _, tile in tiles(image))
                    if 0 < high < 1 << 6:
                        reached = f"0 to {256 * high + 255:,} are read with white at 65,535"
        except Exception as error:
            raise MediaError(f"{encoded.name}: is damaged ({reason(error)}); save or download it again") from error
    if reached is not None:
        grey = image.mode not in ("RGB", "RGBA")
        other = ", or as a TIFF that states their range" if grey else ""
        notes.append(f"{encoded.name}: its samples from {reached}; where that is wrong, save it with 8 bits{other}")
    return tuple(notes)


def _bits(image: Any, head: bytes) -> int:
    """Bits a sample of a PNG or TIFF."""
    return head[24] if image.format == "PNG" else max(image.tag_v2[258]) if image.format == "TIFF" else 8


def audio_rate(source: Any) -> int:
    """The rate of a file's sound in Hz."""
    with opened(encoded_source(source, "audio")) as file:
        return int(file.samplerate)


def audio_notes(source: Any) -> tuple[str, ...]:
    """What may be wrong with times in a file, each in a sentence; empty for most. Nothing is decoded."""
    encoded, notes = encoded_source(source, "audio"), []
    with opened(encoded) as file:
        if file.late:
            late = 1000 * file.late / file.samplerate
            notes.append(f"times may be late by {late:.0f} ms, for this file does not state all of its codec's delay")
        if isinstance(file, FfmpegSound):
            notes += _of_ffmpeg(file)
    return tuple(f"{encoded.name}: {note}" for note in notes)


def _of_ffmpeg(sound: FfmpegSound) -> Iterator[str]:
    if sound.gap:
        said = f"its clock leaves out {1000 * sound.gap / sound.samplerate:.0f} ms, which are not filled with silence"
        yield f"{said}: times that a player shows are later behind that"
    if sound.cuts > 1:
        yield f"is joined of {sound.cuts:,} parts by an edit list, and times behind each may be wrong by 20 ms more"
    if sound.tracks > 1:
        yield f"holds {sound.tracks} tracks of sound, of which one is read"


def count_pictures(data: bytes) -> int:
    """Pages of a TIFF or frames of a GIF; 1 for other formats, and for what is damaged before a second."""
    try:
        if data[:4] == b"GIF8":
            return _gif_frames(data)
        if data[:2] in (b"II", b"MM"):
            return _tiff_pages(data)
    except (IndexError, struct.error):  # it ends early
        pass
    return 1


def _gif_frames(data: bytes) -> int:
    at, frames, end = 13 + colour_bytes(data[10]), 0, len(data)
    while at < end:
        if data[at] == 0x2C:  # an image: place, size, colours, and a byte before its blocks
            frames, at = frames + 1, at + 11 + colour_bytes(data[at + 9])
        elif data[at] == 0x21:  # an extension
            at += 2
        else:
            break
        while at < end and (length := data[at]):
            at += length + 1
        at += 1
    return max(1, frames)


def _tiff_pages(data: bytes) -> int:
    """Directories in the chain, without those that are a smaller version of another (NewSubfileType)."""
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    count_kind, entry, place_kind, value_at = ("Q", 20, "Q", 12) if big else ("H", 12, "I", 8)
    (place,) = struct.unpack_from(order + place_kind, data, 8 if big else 4)
    seen: set[int] = set()
    pages = 0
    while place and place not in seen and len(seen) < MOST_BLOCKS:
        seen.add(place)
        (entries,) = struct.unpack_from(order + count_kind, data, place)
        place += struct.calcsize(count_kind)
        (tag,) = struct.unpack_from(order + "H", data, place) if entries else (0,)
        smaller = tag == 254 and struct.unpack_from(order + "I", data, place + value_at)[0] & 1
        pages += not smaller
        (place,) = struct.unpack_from(order + place_kind, data, place + entries * entry)
    return max(1, pages)
