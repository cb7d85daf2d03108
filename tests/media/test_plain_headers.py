"""What a plain header tells is what libsndfile tells, whatever is damaged; else it tells nothing."""

import random
import struct

import pytest
from media_files import encode_sound

from weft.media.plain_headers import told
from weft.media.sound import opened
from weft.media.source import EncodedFile, MediaError


def number(value: int) -> bytes:
    return struct.pack("<I", value)


def wav(kind: int = 1, bits: int = 16, channels: int = 1, before: bytes = b"") -> bytes:
    width = channels * bits // 8
    sound = bytes(300 * width)
    format = number(16) + struct.pack("<HHIIHH", kind, channels, 8000, 8000 * width, width, bits)
    body = b"WAVEfmt " + format + before + b"data" + number(len(sound)) + sound
    return b"RIFF" + number(len(body)) + body


def listed(name: bytes) -> bytes:
    """What FFmpeg writes before the samples."""
    info = b"INFOISFT" + number(len(name)) + name + bytes(len(name) % 2)
    return b"LIST" + number(len(info)) + info


def flac(*blocks: tuple[int, bytes], **more) -> bytes:
    """A FLAC with other metadata: kinds and contents."""
    made = encode_sound(format="FLAC", **more)
    sound = made[made.index(b"\xff\xf8") :]
    out = b"fLaC" + bytes([0 if blocks else 128]) + made[5:42]
    for last, (kind, content) in enumerate(blocks, 1 - len(blocks)):
        out += bytes([kind | (not last) << 7]) + len(content).to_bytes(3, "big") + content
    return out + sound


COMMENTS = number(4) + b"weft" + number(2) + number(7) + b"TITLE=a" + number(8) + b"ARTIST=b"
PLAIN = {
    **{f"wav {bits}": encode_sound(300, subtype=bits) for bits in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32")},
    "wav of two channels": encode_sound(300, channels=2),
    "wav of floats": wav(3, 32),
    "wav of doubles": wav(3, 64, 2),
    "wav of FFmpeg": wav(before=listed(b"Lavf61.1.100")),
    "wav of a FFmpeg with an odd name": wav(before=listed(b"Lavf60.16.10\0")),
    **{f"flac {bits}": encode_sound(format="FLAC", subtype=bits) for bits in ("PCM_S8", "PCM_16", "PCM_24")},
    "flac of two channels": encode_sound(format="FLAC", channels=2, rate=44100),
    "flac without metadata": flac(),
    "flac with tags and room": flac((4, COMMENTS), (1, bytes(900))),
}
OTHERS = {
    "wav of floats and peaks": encode_sound(300, subtype="FLOAT"),
    "wav in u-law": encode_sound(300, subtype="ULAW"),
    "wav with more behind": encode_sound(300) + b"LIST" + number(4) + b"abcd",
    "wav with other chunks": wav(before=b"JUNK" + number(4) + b"abcd"),
    "flac with a picture": flac((6, bytes(60))),
    "ogg": encode_sound(format="OGG", subtype="VORBIS"),
    "mp3": encode_sound(format="MP3", subtype="MPEG_LAYER_III"),
    "nothing": b"",
}


def file(data: bytes) -> EncodedFile:
    return EncodedFile("a sound", None, data)


def decoded(data: bytes):
    try:
        with opened(file(data)) as sound:
            return sound.counted, sound.samplerate
    except MediaError as error:
        return str(error)


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_header_tells(name):
    assert told(file(PLAIN[name])) == decoded(PLAIN[name])


@pytest.mark.parametrize("name", OTHERS)
def test_of_other_files_the_decoder_is_asked(name):
    assert told(file(OTHERS[name])) is None


@pytest.mark.parametrize("name", PLAIN)
def test_damage_is_never_overlooked(name):
    draw, data = random.Random(name), PLAIN[name]
    damaged = [data[:end] for end in draw.sample(range(len(data)), 30)] + [data + b"\0", data + b"abc"]
    for _ in range(300):
        other = bytearray(data)
        for _ in range(draw.choice((1, 1, 2))):
            other[draw.randrange(min(120, len(data)))] = draw.choice((0, 1, 255, draw.randrange(256)))
        damaged.append(bytes(other))
    for one in damaged:
        found = told(file(one))
        assert found is None or found == decoded(one), one[:120]
