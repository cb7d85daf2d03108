"""All of an MP3 is heard, whatever its first frame claims."""

import io

import numpy as np
import pytest
import soundfile
from media_files import encode_sound

from marks import slow
from weft.media import MediaError, audio_samples, audio_seconds, load_audio
from weft.media.mp3 import count_frames
from weft.media.notes import audio_notes


def _mp3(frames: int, rate: int = 16000, channels: int = 1, mode: str = "CONSTANT") -> bytes:
    return encode_sound(frames, rate, channels, "MP3", "MPEG_LAYER_III", bitrate_mode=mode, compression_level=0.5)


def _without_tag(data: bytes) -> bytes:
    mp3 = count_frames(data, "test")
    assert mp3.claimed
    return data[mp3.start :]


@pytest.mark.parametrize("rate", [8000, 22050, 48000, *(slow(rate) for rate in (16000, 44100))])
@pytest.mark.parametrize("channels", [slow(1), 2])
@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
def test_a_stream_without_a_claim_is_heard_whole(rate, channels, mode):
    data = _mp3(rate, rate, channels, mode)
    assert audio_samples(data) == len(load_audio(data)) == 16000
    bare = _without_tag(data)
    samples = len(load_audio(bare))
    assert samples == audio_samples(bare)
    # The padding that the tag would have removed is there now: at most a few frames more, nothing less.
    assert 16000 <= samples <= 16000 + 4 * 1152 * 16000 / rate


def test_joined_files_are_heard_whole():
    first, second = _mp3(40000), _mp3(70000, mode="VARIABLE")
    for data in (first + second, _without_tag(first) + second, first + _without_tag(second)):
        wave = load_audio(data)
        assert audio_samples(data) == len(wave) >= 110000
        assert np.abs(wave[-3000:-1500]).max() > 0.1


def test_a_claim_that_is_too_small_is_corrected():
    data = bytearray(_mp3(60000))
    at = data.index(b"Info") + 8
    data[at : at + 4] = (5).to_bytes(4, "big")
    assert len(load_audio(bytes(data))) >= 60000


def test_a_file_that_is_cut_short_is_refused_with_the_numbers():
    data = _mp3(60000)
    with pytest.raises(MediaError, match=r"promises \d+ MP3 frames and \d+ are there"):
        load_audio(data[: len(data) // 2])


def test_tags_around_the_sound_are_no_sound():
    data = _mp3(20000)
    id3 = b"ID3\4\0\0\0\0\x02\0" + b"\xff\xfb\x90\x00" * 64
    for tagged in (id3 + data, id3 + id3 + data, data + b"TAG" + bytes(125), data + b"APETAGEX" + b"\xff\xfb" * 500):
        assert audio_samples(tagged) == len(load_audio(tagged)) == 20000


def test_a_change_of_rate_midway_is_refused():
    with pytest.raises(MediaError, match="from 16000 to 44100 Hz"):
        load_audio(_mp3(20000) + _mp3(20000, 44100))


def test_what_only_begins_like_an_mp3_is_refused():
    for data in (b"ID3", b"ID3\4\0\0\0\0\0\0", b"\xff\xfb\x90\x00" * 3, b"\xff\xfb" + bytes(5000)):
        with pytest.raises(MediaError):
            load_audio(data)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
def test_the_length_is_known_without_decoding(rate, mode):
    data = _mp3(rate * 2, rate, mode=mode)
    for stream in (data, _without_tag(data), data + data, _without_tag(data) * 2):
        assert audio_seconds(stream) == pytest.approx(len(load_audio(stream, rate)) / rate, abs=1e-6)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
def test_sound_whose_delay_nobody_states_is_late_by_as_much_as_is_said(rate):
    """1,105 frames where nothing claims a length; 576 where a claim makes the decoder drop what it adds itself."""
    wave = np.zeros(rate)
    wave[rate // 2 :] = 0.5 * np.sin(np.arange(rate - rate // 2) / 5)

    def mp3(mode: str) -> bytes:
        buffer = io.BytesIO()
        soundfile.write(buffer, wave, rate, format="MP3", bitrate_mode=mode, compression_level=0.5)
        return buffer.getvalue()

    data = mp3("CONSTANT")
    tag = data.index(b"Info") + 8 + 112
    unsaid = data[:tag] + bytes(36) + data[tag + 36 :]
    assert not audio_notes(data)
    for stream in (unsaid, _without_tag(data), _without_tag(mp3("VARIABLE"))):
        onset, meant = (int(np.argmax(np.abs(load_audio(s, rate)) > 0.2)) for s in (stream, data))
        (note,) = audio_notes(stream)
        assert f"late by {1000 * (onset - meant) / rate:.0f} ms" in note and onset - meant in range(574, 1108)


def test_other_formats_have_nothing_before_their_sound():
    for format, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")):
        assert audio_notes(encode_sound(8000, format=format, subtype=subtype)) == ()
