"""Sound in the containers of telephones and browsers: where a click is heard, and how long it is, against what was
written. The same files were once compared with an ffmpeg of its own (docs/samples.md)."""

import io
import struct
import sys

import numpy as np
import pytest
from media_files import click, encode_av, encode_sound

from weft.media import MediaError, audio_samples, audio_seconds, load_audio
from weft.media.notes import audio_notes

av = pytest.importorskip("av", reason="the extra media is not installed")

# container, codec, rate, how many frames more than were written come back
EXACT = [
    ("mp4", "aac", 16000, 0),
    ("ipod", "aac", 44100, 0),
    ("mov", "aac", 48000, 0),
    ("3gp", "libopencore_amrnb", 8000, 0),
    ("mp4", "libopus", 48000, 0),
    # its end is told by the edit list alone, before FFmpeg 9 in whole milliseconds
    ("mp4", "libmp3lame", 44100, 0 if av.library_versions["libavformat"] >= (63,) else -7),
    ("mp4", "flac", 16000, 0),
    ("ipod", "alac", 44100, 0),
    ("mov", "pcm_s16le", 16000, 0),
    ("webm", "libopus", 48000, 0),
    ("matroska", "aac", 44100, 650),  # FFmpeg writes no DiscardPadding for AAC
    ("matroska", "libmp3lame", 44100, 0),
    ("matroska", "flac", 44100, 0),
    ("matroska", "pcm_s16le", 16000, 0),
    ("caf", "alac", 44100, 0),
    ("caf", "pcm_s16be", 16000, 0),
]
UNSAID = [
    ("adts", "aac", 44100, 1024, "late by 48 ms", {}),
    ("amr", "libopencore_amrnb", 8000, 40, "late by 5 ms", {}),
    ("mp4", "aac", 44100, 1024, "late by 48 ms", {"movflags": "frag_keyframe+empty_moov"}),
    ("mp4", "aac", 44100, 1024, "late by 48 ms", {"use_editlist": "0"}),
]


@pytest.mark.parametrize(("container", "codec", "rate", "more"), EXACT)
def test_a_click_is_heard_where_it_was_and_nothing_is_lost_or_added(container, codec, rate, more):
    frames = int(1.03 * rate) + 7
    data = encode_av(container, codec, click(frames, frames // 2, rate), rate)
    wave = load_audio(data, rate)
    assert len(wave) == audio_samples(data, rate) == frames + more
    assert abs(int(np.abs(wave).argmax()) - frames // 2) <= (30 if "amr" in codec else 0)
    assert audio_notes(data) == ()
    seconds = audio_seconds(data)
    assert seconds is None if container in ("webm", "matroska") else seconds == len(wave) / rate


@pytest.mark.parametrize(("container", "codec", "rate", "late", "note", "options"), UNSAID)
def test_where_a_file_does_not_say_its_delay_a_note_says_by_how_much_times_may_be_late(
    container, codec, rate, late, note, options
):
    frames = int(1.03 * rate) + 7
    data = encode_av(container, codec, click(frames, frames // 2, rate), rate, **options)
    assert abs(int(np.abs(load_audio(data, rate)).argmax()) - frames // 2 - late) <= (40 if "amr" in codec else 0)
    assert [note in said for said in audio_notes(data)] == [True]


def test_a_fragmented_mp4_that_says_its_delay_has_none():
    data = encode_av("mp4", "aac", click(40000, 30000, 16000), 16000, movflags="frag_keyframe+delay_moov")
    assert len(load_audio(data)) == 40000 and int(np.abs(load_audio(data)).argmax()) == 30000
    assert audio_notes(data) == ()


def test_a_last_packet_that_is_short_is_heard_to_its_end():
    """FFmpeg 8 and 9 take the padding of ALAC in a CAF off a packet that has none."""
    for frames in (16000, 15000, 16384):
        data = encode_av("caf", "alac", click(frames, frames - 100, 16000), 16000)
        assert len(load_audio(data)) == frames and int(np.abs(load_audio(data)).argmax()) == frames - 100


def with_edits(data: bytes, *edits: tuple[int, int]) -> bytes:
    """An MP4 with another edit list: ``(milliseconds, first sample; -1 for nothing)``."""
    at = data.index(b"elst") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    (clock,) = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)  # a second of the film, from FFmpeg 9 on finer
    body = b"".join(struct.pack(">iii", clock * long // 1000, first, 0x10000) for long, first in edits)
    new = struct.pack(">I4sII", 16 + len(body), b"elst", 0, len(edits)) + body
    out = bytearray(data[:at] + new + data[at + size :])
    for parent in (b"moov", b"trak", b"edts"):  # the sound stands before them
        place = out.index(parent) - 4
        out[place : place + 4] = struct.pack(">I", int.from_bytes(out[place : place + 4], "big") + len(new) - size)
    return bytes(out)


def test_edit_lists_cut_start_and_end_and_what_they_join_is_a_note():
    wave = click(48007, 24000, 16000) + click(48007, 40000, 16000) / 2
    data = encode_av("ipod", "aac", wave, 16000)
    for edits, frames, at in (
        (((2000, 1024),), 32000, 24000),
        (((1500, 1024 + 8000),), 24000, 16000),
        (((1000, 1024 + 23000),), 16000, 1000),
        (((500, -1), (3001, 1024)), 48007, 24000),
    ):
        edited = with_edits(data, *edits)
        heard = load_audio(edited)
        assert len(heard) == audio_samples(edited) == frames
        assert abs(int(np.abs(heard).argmax()) - at) <= 1
    joined = with_edits(data, (1000, 1024), (1000, 33024))
    assert audio_samples(joined) == len(load_audio(joined))
    assert ["joined of 2 parts" in note for note in audio_notes(joined)] == [True]


def test_opus_whose_preskip_is_nowhere_said_is_a_note():
    data = encode_av("webm", "libopus", click(48000, 24000, 48000), 48000)
    delay = data.index(b"\x56\xaa")  # CodecDelay, made a Void of the same length
    length = data[delay + 2] & 0x7F
    without = data[:delay] + bytes((0xEC, 0x81 + length, *bytes(length + 1))) + data[delay + 3 + length :]
    assert int(np.abs(load_audio(without, 48000)).argmax()) == 24000 and audio_notes(without) == ()
    head = without.index(b"OpusHead") + 10
    silent = without[:head] + b"\0\0" + without[head + 2 :]
    assert int(np.abs(load_audio(silent, 48000)).argmax()) == 24312
    assert "late by 6 ms" in audio_notes(silent)[0]


def test_the_sound_of_a_video_is_read_and_a_video_without_sound_is_refused(tmp_path):
    wave = click(32000, 20000, 16000)
    for container in ("mp4", "mov", "matroska"):
        (tmp_path / "film").write_bytes(encode_av(container, "aac", wave, 16000, video=True))
        assert int(np.abs(load_audio(tmp_path / "film")).argmax()) == 20000
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=5, width=32, height=32, pix_fmt="yuv420p")
        out.mux([*stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))), *stream.encode()])
    with pytest.raises(MediaError, match="is an MP4 file that holds no sound"):
        load_audio(buffer.getvalue())


@pytest.mark.parametrize(("container", "codec", "rate"), [x[:3] for x in (*EXACT, *UNSAID)])
def test_a_container_that_is_cut_short_is_an_error(container, codec, rate):
    wave = np.random.default_rng(0).standard_normal(rate).astype(np.float32) / 10
    data = encode_av(container, codec, wave, rate)
    for kept in (0.02, 0.5, 0.9, 0.99):
        with pytest.raises(MediaError) as caught:
            load_audio(data[: int(len(data) * kept)])
        assert "\n" not in str(caught.value)


def test_a_header_of_millions_of_packets_is_not_believed():
    data = encode_av("mp4", "aac", click(16000, 8000, 16000), 16000)
    at = data.index(b"stsz") + 12
    for count in (1 << 23, (1 << 32) - 1):
        with pytest.raises(MediaError, match=r"more than 4,194,304 packets"):
            load_audio(data[:at] + struct.pack(">I", count) + data[at + 4 :])
    with pytest.raises(MediaError, match=r"more than 4,194,304 packets"):
        load_audio(with_edits(data, *[(1, 1024)] * 250_000))


def test_eight_channels_are_heard_and_averaged():
    waves = 0.1 * np.arange(1, 9, dtype=np.float32) * np.sin(0.05 * np.arange(16000, dtype=np.float32))[:, None]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=16000, layout="7.1")
        frame = av.AudioFrame.from_ndarray(waves.reshape(1, -1), format="flt", layout="7.1")
        frame.rate = 16000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    heard = load_audio(buffer.getvalue())
    assert len(heard) == audio_samples(buffer.getvalue()) and abs(np.abs(heard).max() - 0.45) < 0.04


def test_the_limit_holds_for_what_tells_its_length_and_for_what_does_not():
    wave = click(16000, 8000, 16000)
    for container, codec in (("mp4", "aac"), ("matroska", "aac"), ("adts", "aac"), ("caf", "alac")):
        data = encode_av(container, codec, wave, 16000)
        for ask in (load_audio, audio_samples):
            with pytest.raises(MediaError, match="over the limit"):
                ask(data, 16000, 60_000)
            assert ask(data, 16000, 100_000) is not None


def test_without_the_extra_the_sentence_names_it(monkeypatch):
    data = encode_av("mp4", "aac", click(16000, 8000, 16000), 16000)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        MediaError, match=r'is an MP4 file, which is read with the extra "media": pip install "weftlm\['
    ):
        load_audio(data)
    assert len(load_audio(encode_sound())) == 5000
