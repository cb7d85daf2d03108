"""Sound: any file to mono float32 at the rate an encoder wants, and its exact length without decoding where possible.

Files are read, mixed down and resampled in blocks, so memory follows the result; its size is known from most headers,
and what would be too large is refused before anything is decoded.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from weft.kinds import HEAD, sniff
from weft.media.headers import check_wav_promise, looks_like_mp3
from weft.media.source import UNREAD, EncodedFile, MediaError, decoded_array, decoded_bytes, encoded_source, over_limit
from weft.named import Named

MIN_RATE, MAX_RATE = 1000, 1_000_000
"""Sample rates in Hz that are taken as meant. 1 kHz is below any telephone, 1 MHz above any converter."""

MAX_PEAK = 256.0
"""Full scale is 1. Floats may exceed it, but a clip that reaches hundreds holds integers in float clothing."""

MP3 = "an MP3 sound"
CONTAINERS = ("an MP4 file", "an M4A (AAC) sound", "a WebM or Matroska file")
# Who reads what libsndfile does not read, or not whole: given the file, as it is open, its kind, and what closes it.
OTHERS = Named[Callable[[EncodedFile, BinaryIO, str, contextlib.ExitStack], Any]](
    {
        MP3: "weft.media.mp3:open_sound",
        **dict.fromkeys((*CONTAINERS, "an AMR sound", "an AAC sound", "a CAF sound"), "weft.media.ffmpeg:open_sound"),
    }
)
# What is looked at in the headers of others than WAV and FLAC, by how they begin or by libsndfile's name.
HEADERS = Named[Callable[..., Any]](
    {
        "ID3": "weft.media.more_headers:flac_behind_id3",
        "OGG": "weft.media.more_headers:check_one_ogg",
        **dict.fromkeys(("AIFF", "AU", "W64", "NIST"), "weft.media.more_headers:check_sound_promise"),
    }
)
ARRAYS = Named[Callable[..., Any]]({"sound": "weft.media.arrays:mono"})  # other than [samples] of float32
_FORMATS = {"WAV", "WAVEX", "RF64", "FLAC", "MP3", "OGG", "AIFF", "AU", "CAF", "NIST", "W64"}
_BLOCKWISE = {"MPEG_LAYER_III", "MS_ADPCM", "IMA_ADPCM", "GSM610"}
# Codecs whose header gives the frames exactly. The others (MP3, ADPCM, GSM, ...) say it in whole blocks or not at all.
_EXACT = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "VORBIS", "OPUS"}
# A FLAC that was written to a pipe says 0 frames for "unknown"; libsndfile then reports a huge number.
_UNKNOWN = 1 << 40
_PLAIN = {b"lpcm", b"ulaw", b"alaw"}  # codecs of a CAF that libsndfile reads
BLOCK_VALUES = 1 << 19
_ADVICE = "save it again as WAV or FLAC (ffmpeg -i IN OUT.flac)"


def load_audio(source: Any, rate: int = 16000, max_bytes: int | None = None) -> npt.NDArray[np.float32]:
    """Mono sound at ``rate``: float32 ``[samples]``, full scale 1, all channels averaged, resampled by soxr (HQ).

    ``source``: WAV, FLAC, MP3, OGG (Vorbis, Opus), AIFF, AU, W64, SPHERE or CAF, and with the extra ``media`` M4A, MP4,
    WebM, Matroska, AAC or AMR, as a path, a ``data:`` URL, bytes or an open binary file; or an ``(array, rate)`` pair;
    or an array alone, which is taken to be at ``rate`` already. Arrays are ``[samples]``,
    ``[samples, channels]`` or ``[channels, samples]`` (the shorter axis is the channels), floats or integers, the
    latter scaled by their type's range.

    A clip of n frames at rate r gives ``resampled_length(n, r, rate)`` samples. Raises ``MediaError`` for what is no
    such sound, is empty, damaged or cut short, holds samples that are not finite or far beyond full scale, or takes
    more than ``max_bytes`` of memory (None: what `set_decoded_bytes` says, or 550 MB: 2 h 23 min at 16 kHz). An OGG
    that ends between two pages, or an MP3 without a frame count, cannot be told from a shorter recording and gives what
    it holds.
    """
    _check_rate(rate, "rate")
    if (array := _as_array(source, rate)) is not None:
        wave, own_rate = array
        return _resample_blocks(iter([wave]), own_rate, rate, "audio array")
    encoded, limit = encoded_source(source, "audio"), decoded_bytes(max_bytes)
    with opened(encoded) as file:
        blocks = _blocks(file, encoded.name, rate, limit)
        return _resample_blocks(blocks, file.samplerate, rate, encoded.name)


def audio_samples(source: Any, rate: int = 16000, max_bytes: int | None = None) -> int:
    """``len(load_audio(source, rate))``, from the header where it can be trusted; else by decoding (remembered).

    Where ``load_audio`` raises because the body is damaged, this may still give what the header promises; it raises as
    well for what takes more than ``max_bytes``.
    """
    _check_rate(rate, "rate")
    if (array := _as_array(source, rate)) is not None:
        return resampled_length(len(array[0]), array[1], rate)
    return resampled_length(*audio_frames(source, rate, max_bytes), rate)


def audio_frames(source: Any, rate: int = 16000, max_bytes: int | None = None) -> tuple[int, int]:
    """``(frames, their rate)`` of an encoded file, as `audio_samples` finds them."""
    if facts := getattr(source, "facts", None):  # of what is `Stored`, or a path whose header was read
        return facts  # type: ignore[no-any-return]
    encoded, limit = encoded_source(source, "audio"), decoded_bytes(max_bytes)
    if encoded.path is None:
        return _count_frames(encoded, rate, limit)
    status = os.stat(encoded.path)
    return _remembered_frames(os.path.abspath(encoded.path), status.st_mtime_ns, status.st_size, rate, limit)


def audio_seconds(source: Any) -> float | None:
    """The length of a file's sound as its header tells it; None where only decoding does (ADPCM, GSM, some FLAC)."""
    with opened(encoded_source(source, "audio")) as file:
        return None if file.counted is None else file.counted / file.samplerate


def resampled_length(frames: int, from_rate: int, to_rate: int) -> int:
    """Samples that ``frames`` frames at ``from_rate`` become at ``to_rate``: the nearest, halves upward, at least 1."""
    if frames == 0:
        return 0
    return max(1, (2 * frames * to_rate + from_rate) // (2 * from_rate))


def _as_array(source: Any, rate: int) -> tuple[npt.NDArray[np.float32], int] | None:
    """``(mono float32, its rate)`` where ``source`` is decoded already, else None."""
    own_rate = rate
    if isinstance(source, tuple):
        if len(source) != 2 or isinstance(source[1], bool) or not isinstance(source[1], (int, float, np.number)):
            raise MediaError("audio: a tuple must be (array, rate in Hz)")
        if int(source[1]) != source[1]:
            raise MediaError(f"audio: a rate of {source[1]} Hz is not whole; round it")
        source, own_rate = source[0], int(source[1])
        _check_rate(own_rate, "audio array")
        source = np.asarray(source) if isinstance(source, list) else source
    array = decoded_array(source, "audio")
    return None if array is None else (_mono(array), own_rate)


def _mono(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if array.ndim == 1 and array.dtype == np.float32 and len(array):
        return mixed(array[:, None], "audio array", 0)
    return ARRAYS["sound"](array)  # type: ignore[no-any-return]


class Stream(soundfile.SoundFile):
    """A sound file that is read straight through.

    After each read of a seekable file soundfile seeks to where it stands already. That makes the MP3 decoder start anew
    (a small error at each block, and messages on stderr) and fails on a FLAC that does not state its length.
    """

    least = 0
    """Fewer frames than these, and the file is cut short."""
    counted: int | None = None
    """Frames, where the header or a count of MP3 frames tells them."""
    late = 0
    """Frames that an encoder and the decoder may have put before the sound, and nothing takes off."""
    held = 0
    """Bytes of the encoded file that are in memory while it is decoded."""

    def seekable(self) -> bool:
        return False


class Memory(io.BytesIO):
    """Bytes that, like a file, refuse a place before their start without raising: a damaged header may ask for one."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell()}.get(whence, self.getbuffer().nbytes)
        return super().seek(base + offset) if 0 <= base + offset < 1 << 62 else self.tell()


@contextlib.contextmanager
def opened(encoded: EncodedFile) -> Iterator[Any]:
    """The file behind ``encoded`` with its header checked, as a `Stream` or with the face of one; anything the decoder
    raises becomes a ``MediaError``."""
    name, head = encoded.name, encoded.head()
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(encoded.open())
        start, kind = 0, MP3 if looks_like_mp3(head) else sniff(head) or ""
        if head[:3] == b"ID3":
            start = HEADERS["ID3"](raw)
        if kind in OTHERS.places and not start and not (kind == "a CAF sound" and head[28:32] in _PLAIN):
            file = OTHERS[kind](encoded, raw, kind, stack)
        else:
            file = _open_sound(encoded, raw, start, stack)
        _check_rate(file.samplerate, name)
        if file.counted == 0:
            raise MediaError(f"{name}: holds no sound (0 samples)")
        yield file


def _open_sound(encoded: EncodedFile, raw: BinaryIO, start: int, stack: contextlib.ExitStack) -> Stream:
    """A file that libsndfile reads whole, from byte ``start`` on."""
    name = encoded.name
    raw.seek(start)
    head = raw.read(HEAD)
    check_wav_promise(raw, name)
    if head[:4] == b"OggS":
        HEADERS["OGG"](raw, name)
    if encoded.data is not None:
        # libsndfile finds a FLAC behind one tag wherever it is, but behind two only in a file
        file = open_stream(Memory(encoded.data[start:]), name, head, stack)
    else:  # by descriptor: no Python call per read, and no guess from the file's name
        os.lseek(raw.fileno(), 0, os.SEEK_SET)
        file = open_stream(raw.fileno(), name, head, stack)
    if file.format == "MP3":
        raise MediaError(f"{name}: is an MP3 with something else before it; {_ADVICE}")
    file.held = 0 if encoded.data is None else len(encoded.data)
    if file.format in HEADERS.places and file.format != "OGG":
        HEADERS[file.format](file.format, file.extra_info, head, file.frames, name)
    if file.subtype in _EXACT and file.frames < _UNKNOWN:
        file.least = file.counted = file.frames
    return file


def open_stream(target: Memory | int, name: str, head: bytes, stack: contextlib.ExitStack) -> Stream:
    """What libsndfile makes of a file or descriptor. Raises ``MediaError`` where that is nothing that is read."""
    try:
        file = stack.enter_context(Stream(target, closefd=False))
    except Exception as error:  # LibsndfileError, and others from odd headers; all mean that it cannot be read
        raise MediaError(f"{name}: {UNREAD['sound'](head, error)}") from error
    if file.format not in _FORMATS or file.subtype not in _EXACT | _BLOCKWISE:
        raise MediaError(
            f"{name}: is {file.format.replace('MP3', 'MPEG')} ({file.subtype}), which is not read; {_ADVICE}"
        )
    return file


def _blocks(file: Any, name: str, rate: int, limit: int) -> Iterator[npt.NDArray[np.float32]]:
    """Mono blocks of the whole file. Raises where fewer frames come than a trustworthy header promises, and before the
    first where they will be more than ``limit`` bytes at ``rate``; else as soon as they are."""
    said = file.frames if file.frames < _UNKNOWN else 0  # of ADPCM and GSM up to a block too many
    _check_length(said if file.counted is None else file.counted, file, rate, name, limit)
    frames_a_block = max(1, BLOCK_VALUES // max(file.channels, -(-rate // file.samplerate)))
    done = 0
    # A FLAC decoder that is asked for more than the header says takes a tag after the last frame for a broken one.
    flac = file.format == "FLAC" and file.least > 0
    while True:
        wanted = min(frames_a_block, file.least - done) if flac else frames_a_block
        try:
            block = file.read(wanted, dtype="float32", always_2d=True)
        except Exception as error:  # the decoder lost its way: LibsndfileError, or RuntimeError from its callbacks
            reason = str(error).strip().rstrip(".") or "the decoder lost its way"
            raise MediaError(f"{name}: is damaged after {done:,} samples ({reason}); {_ADVICE}") from error
        if len(block) == 0:
            break
        done += len(block)
        _check_length(done, file, rate, name, limit)
        yield mixed(block, name, done - len(block))
    if done < file.least:
        raise MediaError(
            f"{name}: is damaged or cut short, its header promises {file.least:,} samples a channel and {done:,} are "
            "there; save or download it again"
        )
    if done == 0:
        raise MediaError(f"{name}: holds no sound (0 samples)")


def mixed(block: npt.NDArray[np.float32], name: str, start: int) -> npt.NDArray[np.float32]:
    """``[samples, channels]`` to ``[samples]``, after checking that the numbers are sound."""
    peak = float(np.abs(block).max())
    if not peak <= MAX_PEAK:  # also where it is NaN
        if np.isfinite(peak):
            raise MediaError(
                f"{name}: samples reach {peak:g}; floats must lie in -1..1: divide by 32768 if these are int16"
            )
        at = start + int(np.argmax(~np.isfinite(block).all(axis=1)))
        raise MediaError(f"{name}: sample {at:,} is not a finite number (NaN or infinite); repair the recording")
    return block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)


def _resample_blocks(
    blocks: Iterator[npt.NDArray[np.float32]], from_rate: int, to_rate: int, name: str
) -> npt.NDArray[np.float32]:
    """Resample as a stream, which gives what soxr gives for the whole at once, bit for bit."""
    frames, value = 0, 0.0
    out = bytearray()  # grows in place, where a list of blocks would be there twice when they are joined
    stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ") if from_rate != to_rate else None
    for block in blocks:
        if not frames:
            value = float(np.mean(block))
        frames += len(block)
        out += np.ascontiguousarray(stream.resample_chunk(np.ascontiguousarray(block)) if stream else block).data
    if stream:
        out += stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True).data
    wave, expected = np.frombuffer(out, dtype=np.float32), resampled_length(frames, from_rate, to_rate)
    if len(wave) == expected:
        return wave
    if len(wave) == 0:  # one or two frames at a high rate, less than half a sample: hold their value
        return np.full(expected, value, dtype=np.float32)
    raise AssertionError(
        f"soxr gave {len(wave)} samples where {expected} were expected from {frames} at {from_rate} Hz"
    )


def _check_rate(rate: int, name: str) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise MediaError(f"{name}: a sample rate of {rate} Hz is outside {MIN_RATE}..{MAX_RATE:,}; correct it")


def _check_length(frames: int, file: Any, rate: int, name: str, limit: int) -> None:
    needed = 4 * resampled_length(frames, file.samplerate, rate) + file.held
    if needed > limit:
        hours = frames / file.samplerate / 3600
        raise over_limit(f"{name}: {hours:,.1f} hours at {rate:,} Hz", needed, limit, "split the recording")


def _count_frames(encoded: EncodedFile, rate: int, limit: int) -> tuple[int, int]:
    """``(frames, their rate)``, decoding only where the header does not tell."""
    with opened(encoded) as file:
        if file.counted is not None and file.counted == file.least:
            _check_length(file.counted, file, rate, encoded.name, limit)
            return file.counted, file.samplerate
        return sum(len(block) for block in _blocks(file, encoded.name, rate, limit)), file.samplerate


@lru_cache(maxsize=1 << 16)
def _remembered_frames(path: str, mtime_ns: int, size: int, rate: int, limit: int) -> tuple[int, int]:
    """As ``_count_frames`` for a file; time and size say when it has changed."""
    return _count_frames(EncodedFile(path, path, None), rate, limit)
