"""Sound in what telephones and browsers write, by FFmpeg: PyAV, the extra ``media``.

FFmpeg drops what a file says its encoder put before the sound: edit lists, CodecDelay, pre-skip. It keeps the padding
behind the sound of an MP4, which is cut here. What a file does not say is left for notes (`FfmpegSound.late`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from weft.media.boxes import Mp4Facts, check_matroska_promise, mp4_facts
from weft.media.source import EncodedFile, MediaError, without_extra

DEMUXERS = {
    "an MP4 file": "mov",
    "an M4A (AAC) sound": "mov",
    "a WebM or Matroska file": "matroska",
    "an AMR sound": "amr",
    "an AAC sound": "aac",
    "a CAF sound": "caf",
}

# What encoders put before the sound, in samples, where a file does not say it. AAC: Apple's (others less, FFmpeg's own
# 1,024); MP3: LAME's and its decoder's; AMR: 5 ms that the encoder looks ahead, wide band with its filters (3GPP TS
# 26.071, 26.171); Opus: libopus, in recordings of Chrome.
_DELAYS = {"aac": 2112, "mp3": 1105, "mp3float": 1105, "amrnb": 40, "amrwb": 95, "opus": 312, "libopus": 312}
# HE-AAC: two samples come of each that is coded, its decoder adds what few writers count, and version 2 a frame more.
_HIGH, _STEREO = 962, 2048
_PLANES = 8  # of AVFrame.data
_GAP = 0.05  # seconds between two packets that are no rounding
_LARGEST = {"max_samples": str(1 << 20), "max_pixels": str(1 << 22)}  # of one frame; sound has thousands in a packet


class FfmpegSound:
    """The sound of a file, read straight through, with the face of `soundfile.SoundFile`."""

    format = subtype = ""
    counted: int | None = None
    """Frames, where the container tells them."""
    late = gap = 0
    """Frames that the codec may have put before the sound; frames that its clock leaves out. Neither is changed."""

    def __init__(self, container: Any, stream: Any, kind: str, facts: Mp4Facts | None) -> None:
        self.stream, self.channels, self.samplerate = stream, 1, stream.sample_rate
        self.tracks = len(container.streams.audio)
        self.cuts, self.held = (facts.cuts, facts.index_bytes) if facts else (0, 0)
        unit = stream.time_base * self.samplerate  # frames
        ticks, skip, codec, first = 0, 0, stream.codec_context, True
        due = None if container.start_time is None else float(container.start_time / 1_000_000 / stream.time_base)
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise ValueError("a packet is not whole")
            if packet.pts is None or not packet.size:  # the last one, which is empty
                continue
            if first:
                skips = [bytes(x) for x in packet.iter_sidedata() if x.data_type == "skip_samples"]
                skip, first = int.from_bytes(skips[0][:4], "little") if skips else 0, False
            length = packet.duration or 0
            if due is not None and (packet.pts - due) * stream.time_base > _GAP:
                self.gap += int((packet.pts - due) * unit)
            due, ticks = packet.pts + length, ticks + length
        if facts:  # an edit list counts by the clock of its track, which of HE-AAC may be half the rate
            skip = round(skip * unit)
        held, said = round(ticks * unit) - skip, round((stream.duration or 0) * unit)
        if kind == "a CAF sound":
            self.counted = said
        elif facts and facts.cuts < 2:
            # The edit list cuts the end, too, but by a clock of its own that may be coarser than a sample.
            self.counted = said if 0 < said < held - self.samplerate / facts.clock else held
        self.frames = self.least = self.counted or 0
        self._skip = skip
        preskip = "opus" in codec.name and any((codec.extradata or b"")[10:12])  # of its OpusHead (RFC 7845)
        if not skip and not preskip:
            self.late = _DELAYS.get(codec.name, 0)
        if "HE" in (profile := str(stream.profile)):
            self.late = 2 * self.late + _HIGH + (_STEREO if self.late and "v2" in profile else 0)

    def start(self, container: Any) -> None:
        """Read from this container, which is at its start."""
        self.stream = container.streams.best("audio")
        self.stream.codec_context.options = _LARGEST
        self._blocks, self._end = self._decoded(container), None
        if self.counted is not None:
            # Cut here: FFmpeg takes the padding of a short last packet of ALAC in a CAF off the sound that is in it.
            self.stream.codec_context.flags2 |= 1 << 29  # AV_CODEC_FLAG2_SKIP_MANUAL
            self._end = self._skip + self.counted

    def read(self, frames: int, **_: Any) -> npt.NDArray[np.float32]:
        """At least so many frames, all channels averaged, ``[frames, 1]``; fewer at the end."""
        blocks, have = [np.zeros(0, np.float32)], 0
        while have < frames and (block := next(self._blocks, None)) is not None:
            have += len(block)
            blocks.append(block)
        return np.concatenate(blocks)[:, None]

    def _decoded(self, container: Any) -> Iterator[npt.NDArray[np.float32]]:
        place = 0
        for packet in container.demux(self.stream):
            for frame in packet.decode():
                if frame.sample_rate != self.samplerate:
                    raise ValueError(f"its rate changes from {self.samplerate} to {frame.sample_rate} Hz")
                wave = _mono(_channels(frame))
                if self._end is not None:
                    wave, place = wave[max(self._skip - place, 0) : max(self._end - place, 0)], place + frame.samples
                yield wave


def open_sound(encoded: EncodedFile, raw: BinaryIO, kind: str, stack: contextlib.ExitStack) -> FfmpegSound:
    """The sound of a file that `DEMUXERS` names. Its packets are walked once, so that its length is known.

    FFmpeg sees the bytes alone, and one demuxer: nothing in a file can have it open another, or an address.
    """
    name = encoded.name
    try:
        import av
    except ImportError:
        raise without_extra(name, kind) from None
    facts = mp4_facts(raw, name) if DEMUXERS[kind] == "mov" else None
    if DEMUXERS[kind] == "matroska":
        check_matroska_promise(raw, name)

    # Titles in no known encoding are no error; from PyAV 19 on they never are.
    titles: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) > 18 else {"metadata_errors": "replace"}

    def opened() -> Any:
        raw.seek(0)
        return av.open(raw, format=DEMUXERS[kind], options=_LARGEST, **titles)

    try:
        with opened() as container:
            if (stream := container.streams.best("audio")) is None:
                raise MediaError(f"{name}: is {kind} that holds no sound")
            if stream.codec_context is None:
                raise MediaError(f"{name}: is {kind} in a codec that is not read; ffmpeg -i IN OUT.flac may read it")
            sound = FfmpegSound(container, stream, kind, facts)
        sound.start(stack.enter_context(opened()))
    except MediaError:
        raise
    except Exception as error:  # FFmpeg's errors are of a dozen kinds, and each means that it cannot be read
        raise MediaError(f"{name}: is {kind} that is damaged or cut short; save or download it again") from error
    sound.held += 0 if encoded.data is None else len(encoded.data)
    return sound


def _channels(frame: Any) -> npt.NDArray[Any]:
    """The samples of a frame, ``[frames, channels]``.

    PyAV (18.1) is at a loss with planes where a frame has as many as it has room for: FFmpeg makes one of these.
    """
    if frame.format.is_planar and frame.layout.nb_channels >= _PLANES:
        from av import AudioResampler

        (frame,) = AudioResampler(format=frame.format.packed).resample(frame)
    values = frame.to_ndarray()  # [channels, frames], or [1, frames * channels]
    return values.T if frame.format.is_planar else values.reshape(frame.samples, -1)


def _mono(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Samples of any type, ``[frames, channels]``, to floats ``[frames]``."""
    mean = values.mean(axis=1, dtype=np.float64 if values.dtype.kind == "i" else np.float32)
    if values.dtype.kind == "u":
        return (mean - 128) / 128
    return mean if values.dtype.kind == "f" else (mean / -np.iinfo(values.dtype).min).astype(np.float32)
