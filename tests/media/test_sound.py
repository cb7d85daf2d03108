import struct

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st
from media_files import SOUND_FORMATS, encode_sound, tone

from examples import examples
from weft.media import MediaError, audio_samples, load_audio, resampled_length
from weft.media import sound as sound_module

RATES = [8000, 11025, 16000, 22050, 24000, 44100, 48000]


@pytest.mark.parametrize(("format", "subtype"), SOUND_FORMATS)
def test_each_format_gives_the_sound_that_was_written(format, subtype):
    wave = load_audio(encode_sound(16000, 16000, 1, format, subtype))
    assert wave.dtype == np.float32 and wave.ndim == 1
    wanted = tone(16000)[:, 0]
    lossy = {"PCM_U8": 0.02, "ULAW": 0.02, "IMA_ADPCM": 0.1, "GSM610": 0.2, "VORBIS": 0.1, "OPUS": 0.1}
    lossy["MPEG_LAYER_III"] = 0.1
    assert np.abs(wave[:16000] - wanted).mean() < lossy.get(subtype, 1e-4)


@given(
    coded=st.sampled_from(SOUND_FORMATS),
    from_rate=st.sampled_from(RATES),
    to_rate=st.sampled_from([8000, 16000, 24000]),
    frames=st.one_of(st.integers(1, 50), st.integers(1, 20000)),
    channels=st.integers(1, 3),
)
@examples(150)
def test_audio_samples_is_the_length_of_what_loads(coded, from_rate, to_rate, frames, channels):
    format, subtype = coded
    if subtype == "OPUS":
        from_rate = min((8000, 12000, 16000, 24000, 48000), key=lambda rate: abs(rate - from_rate))
    channels = 1 if subtype in ("GSM610", "IMA_ADPCM") else min(channels, 2) if format == "MP3" else channels
    data = encode_sound(frames, from_rate, channels, format, subtype)
    wave = load_audio(data, to_rate)
    assert audio_samples(data, to_rate) == len(wave)
    whole = subtype in ("GSM610", "IMA_ADPCM") or (format, subtype) == ("AIFF", "ULAW")  # libsndfile writes a byte more
    if not whole:  # else it holds whole blocks, or pairs of bytes
        assert len(wave) == resampled_length(frames, from_rate, to_rate)
    assert np.isfinite(wave).all()


def test_blocks_give_what_the_whole_gives(monkeypatch):
    for format, subtype in (("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS")):
        data = encode_sound(60000, 44100, 2, format, subtype)
        whole = load_audio(data)
        monkeypatch.setattr(sound_module, "BLOCK_VALUES", 5000)
        assert (load_audio(data) == whole).all()
        monkeypatch.undo()


def test_channels_are_averaged_and_resampled_by_soxr():
    data = encode_sound(9000, 44100, 3, "WAV", "FLOAT")
    wanted = soxr.resample(tone(9000, 3, 44100).mean(axis=1), 44100, 16000, quality="HQ")
    assert np.abs(load_audio(data) - wanted).max() < 1e-6


def test_a_tone_keeps_its_pitch_and_level_at_any_rate():
    for rate in RATES:
        wave = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32) * 0.5
        spectrum = np.abs(np.fft.rfft(load_audio((wave, rate)) * np.hanning(16000)))
        assert spectrum.argmax() == 440
        assert spectrum.max() == pytest.approx(0.5 * 16000 / 4, rel=0.02)


def test_three_milliseconds_and_a_single_sample_are_sounds():
    assert len(load_audio(encode_sound(48))) == 48
    assert len(load_audio(encode_sound(24, 8000))) == 48
    assert len(load_audio(encode_sound(1))) == 1
    data = encode_sound(1, 96000)
    assert audio_samples(data) == len(load_audio(data)) == 1


def test_an_empty_sound_is_an_error():
    for format, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")):
        for load in (load_audio, audio_samples):
            with pytest.raises(MediaError, match=r"no sound|damaged|empty"):
                load(encode_sound(0, format=format, subtype=subtype))
    with pytest.raises(MediaError, match="no sound"):
        load_audio(np.zeros(0, dtype=np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers_are_refused_and_named(bad, tmp_path):
    wave = tone(1000, 2)
    wave[123, 1] = bad
    soundfile.write(tmp_path / "bad.wav", wave, 16000, subtype="FLOAT")
    for source in (tmp_path / "bad.wav", wave, (wave.astype(np.float64), 8000)):
        with pytest.raises(MediaError, match="sample 123 "):
            load_audio(source)


def test_floats_far_beyond_full_scale_are_refused_but_some_overshoot_is_kept():
    assert np.abs(load_audio(tone(100) * 10)).max() > 2
    for wave in (tone(100) * 32768, np.array([1e300] * 100)):
        with pytest.raises(MediaError, match=r"-1\.\.1|finite"):
            load_audio(wave)


@pytest.mark.parametrize(("format", "subtype"), SOUND_FORMATS)
def test_a_truncated_file_is_an_error_and_never_a_shorter_sound(format, subtype):
    data = encode_sound(30000, 16000, 1, format, subtype)
    for kept in (0.02, 0.5, 0.9):
        with pytest.raises(MediaError):
            load_audio(data[: int(len(data) * kept)])


def test_a_header_that_promises_more_than_there_is_is_refused_with_the_numbers():
    data = encode_sound(1000)
    at = data.index(b"data") + 4
    lying = data[:at] + struct.pack("<I", 2_000_000) + data[at + 4 :]
    for load in (load_audio, audio_samples):
        with pytest.raises(MediaError, match=r"1,000,000 .* 1,000 "):
            load(lying)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF])
def test_a_wav_that_was_written_to_a_pipe_is_whole(size):
    data = encode_sound(1000)
    at = data.index(b"data") + 4
    piped = data[:4] + struct.pack("<I", size) + data[8:at] + struct.pack("<I", size) + data[at + 4 :]
    assert (load_audio(piped) == load_audio(data)).all()
    assert audio_samples(piped) == 1000


@pytest.mark.parametrize("tail", [b"TAG" + b" " * 125, b"\0" * 5, b"\0" * 3000])
def test_what_follows_a_flac_is_no_damage(tail):
    data = encode_sound(20000, format="FLAC")
    np.testing.assert_array_equal(load_audio(data + tail), load_audio(data))
    with pytest.raises(MediaError, match="damaged"):
        load_audio(data[: len(data) // 2] + tail)


@pytest.mark.parametrize("sizes", [(128,), (1 << 18,), (128, 64)])
def test_a_flac_behind_id3_tags_is_read_as_flac(sizes, tmp_path):
    data, path = encode_sound(20000, format="FLAC"), tmp_path / "tagged.flac"
    tags = b"".join(
        b"ID3\4\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + b"\xff\xfb\x90\0" * (size // 4)
        for size in sizes
    )
    path.write_bytes(tags + data)
    for source in (tags + data, path):
        np.testing.assert_array_equal(load_audio(source), load_audio(data))
        assert audio_samples(source) == 20000
    path.write_bytes(tags + data[: len(data) // 2])
    for source in (tags + data[: len(data) // 2], path):
        with pytest.raises(MediaError, match="damaged"):
            load_audio(source)
    with pytest.raises(MediaError, match="a FLAC sound that is damaged"):
        load_audio(tags + data[:20])


def test_a_flac_of_unknown_length_is_heard_whole():
    data = bytearray(encode_sound(20000, format="FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert audio_samples(bytes(data)) == len(load_audio(bytes(data))) == 20000


def test_joined_ogg_files_are_refused_rather_than_half_heard():
    for subtype in ("VORBIS", "OPUS"):
        data = encode_sound(format="OGG", subtype=subtype)
        with pytest.raises(MediaError, match="several recordings"):
            load_audio(data + data)


def test_absurd_rates_are_refused():
    data = encode_sound(1000)
    for rate in (0, 1, 999, 5_000_000, 0xFFFFFFFF):
        with pytest.raises(MediaError, match=r"rate|damaged"):
            load_audio(data[:24] + struct.pack("<I", rate) + data[28:])
    for rate in (0, -5, 10**9):
        with pytest.raises(MediaError, match="rate"):
            load_audio(data, rate)


def test_arrays_of_any_layout_and_type():
    wave = tone(500, 2)
    for array in (wave, wave.T, wave.astype(np.float64)):
        assert np.abs(load_audio(array) - wave.mean(axis=1)).max() < 1e-6
    for dtype, scale in ((np.int16, 32767), (np.int32, 2**31 - 1), (np.int8, 127)):
        assert np.abs(load_audio((wave * scale).astype(dtype)) - wave.mean(axis=1)).max() < 0.02
    assert np.abs(load_audio(((wave + 1) * 127.5).astype(np.uint8)) - wave.mean(axis=1)).max() < 0.02
    assert audio_samples((wave, 8000)) == len(load_audio((wave, 8000))) == 1000
    for wrong in (
        wave > 0,
        wave.astype(complex),
        np.array([0, 16384, -16384] * 500),
        wave[None],
        (wave, "16k"),
        (wave, 8000.5),
        (wave,),
        np.float32(3),
    ):
        with pytest.raises(MediaError):
            load_audio(wrong)


def test_the_remembered_length_of_a_file_follows_its_change(tmp_path):
    path = tmp_path / "clip.mp3"
    for frames in (5000, 9000):
        path.write_bytes(encode_sound(frames, format="MP3", subtype="MPEG_LAYER_III"))
        assert audio_samples(path) == audio_samples(path) == len(load_audio(path)) == frames


def test_every_real_recording_loads(shared):
    files = [f for f in sorted((shared / "real" / "media").iterdir()) if f.suffix in (".wav", ".mp3", ".flac")]
    assert files
    for file in files:
        assert len(load_audio(file)) == audio_samples(file) > 16000


def test_sound_is_that_of_the_references(shared):
    from safetensors.numpy import load_file

    for clip, kit in (("qwen_audio/clip_long.flac", "qwen_audio/small"), ("llasm/clip_0.mp3", "llasm")):
        expected = load_file(shared / "parity" / kit / "expected.safetensors")
        wanted = expected.get("frontend/wav", expected.get("frontend/wav0"))
        assert np.abs(load_audio(shared / "parity" / clip) - wanted).max() < 1e-6


def test_what_is_given_is_never_the_callers_own_memory():
    wave = tone(100)[:, 0].copy()
    loaded = load_audio(wave)
    loaded += 1
    assert np.abs(wave).max() < 1


def test_tensors_are_arrays_and_unreadable_ones_are_refused():
    import torch

    wave = torch.from_numpy(tone(100)[:, 0].copy())
    assert len(load_audio((wave, 8000))) == 200
    with pytest.raises(MediaError, match="float32"):
        load_audio(wave.to(torch.bfloat16))
    with pytest.raises(MediaError, match="float32"):
        load_audio(wave.clone().requires_grad_())
