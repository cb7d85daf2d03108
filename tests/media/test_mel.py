import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from marks import slow
from weft.media import MediaError, load_audio, log_mel, mel_filters

CLIP = 480000


def _clip(samples: int, kind: str) -> np.ndarray:
    rng = np.random.default_rng(samples)
    time = np.arange(samples)
    wave = {
        "noise": rng.normal(0, 0.1, samples),
        "tone": 0.9 * np.sin(time * 2 * np.pi * 440 / 16000),
        "quiet": rng.normal(0, 1e-4, samples),
        "click at the end": (time == samples - 1).astype(float),
        "silence": np.zeros(samples),
    }[kind]
    return wave.astype(np.float32)


KINDS = ("noise", "tone", "quiet", "click at the end", "silence")
EDGES = (1, 159, 160, 200, 201, 400, 16000, 16039, 16041, 479800, 479960, 479999, 480000)


@pytest.mark.parametrize("n_mels", [80, slow(128)])
def test_it_equals_whispers_front_end(n_mels):
    from transformers import WhisperFeatureExtractor

    reference = WhisperFeatureExtractor(feature_size=n_mels)
    assert np.abs(mel_filters(n_mels) - reference.mel_filters).max() < 1e-12
    for i, samples in enumerate(EDGES):
        wave = _clip(samples, KINDS[i % len(KINDS)])
        wanted = reference(wave, sampling_rate=16000, return_tensors="np").input_features[0].T
        assert np.abs(log_mel(wave, n_mels, pad_to=CLIP) - wanted).max() < 1e-4
        assert np.abs(log_mel(wave, n_mels) - wanted[: samples // 160]).max(initial=0) < 1e-4


@given(samples=st.one_of(st.integers(0, 1000), st.integers(0, 40000)), kind=st.sampled_from(KINDS))
@examples(40)
def test_unpadded_frames_are_those_of_the_padded_clip(samples, kind):
    wave = _clip(samples, kind)
    alone, padded = log_mel(wave), log_mel(wave, pad_to=CLIP)
    assert alone.shape == (samples // 160, 80) and padded.shape == (3000, 80)
    assert alone.dtype == np.float32
    assert (alone == padded[: len(alone)]).all()


def test_padding_to_another_length_mirrors_there_as_the_reference_does():
    from transformers import WhisperFeatureExtractor

    wave = _clip(32000, "noise")
    reference = WhisperFeatureExtractor()(wave, sampling_rate=16000, padding=False, return_tensors="np")
    assert np.abs(log_mel(wave, pad_to=32000) - reference.input_features[0].T).max() < 1e-4


def test_a_clip_longer_than_thirty_seconds_has_all_its_frames():
    assert log_mel(np.zeros(CLIP + 16000)).shape == (3100, 80)


def test_too_few_samples_give_no_frame_and_too_many_are_not_cut():
    assert log_mel(np.zeros(159)).shape == (0, 80)
    assert log_mel(np.zeros(0), 128).shape == (0, 128)
    with pytest.raises(MediaError, match="do not fit"):
        log_mel(np.zeros(1000), pad_to=999)
    with pytest.raises(MediaError, match="one channel"):
        log_mel(np.zeros((1000, 2)))


def test_silence_is_finite():
    assert (log_mel(np.zeros(1600)) == -1.5).all()


def test_it_equals_the_mel_of_qwen_audio(shared):
    from safetensors.numpy import load_file

    kit = shared / "parity" / "qwen_audio"
    expected = load_file(kit / "small" / "expected.safetensors")
    for clip, key in (("clip_long.flac", "frontend/mel"), ("clip_short.wav", "frontend/mel_short")):
        wanted_TM = expected[key].T
        wave = load_audio(kit / clip)
        padded_TM = log_mel(wave, pad_to=CLIP)[: len(wanted_TM)]
        assert np.abs(padded_TM - wanted_TM).max() < 1e-4
        alone_TM = log_mel(wave)
        assert np.abs(alone_TM - wanted_TM[: len(alone_TM)]).max() < 1e-4
