"""Whisper's log-mel spectrogram, for clips of any length.

Source of every number: openai/whisper ``audio.py`` (Hann 400, hop 160, last frame dropped, power, mel, log10 clamped at
1e-10, floored at the maximum - 8, ``(x + 4) / 4``); Qwen-Audio uses the same with 80 filters, Whisper large-v3 128.

Shapes: ``T`` frames of 10 ms, ``F`` = 201 frequencies, ``M`` mel filters.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from weft.media.source import MediaError

RATE = 16000
N_FFT = 400
HOP = 160
_BLOCK = 256
WINDOW_SAMPLES = 30 * RATE
"""Whisper's clip: shorter ones are followed by silence up to here."""


def log_mel(wave: npt.ArrayLike, n_mels: int = 80, pad_to: int | None = None) -> npt.NDArray[np.float32]:
    """Mono sound at 16 kHz to float32 ``[T, n_mels]``, T = samples // 160: frame ``t`` is centred on sample ``160 t``.

    The frames are those that Whisper's front end gives for the clip padded with silence to 30 s, cut to the clip's own
    length: the last ones look into the silence, and the floor (8 below the loudest) is that of the padded clip. A clip
    of 30 s or more is mirrored at its end, as the original does. ``pad_to`` (in samples, at least the clip's length)
    pads to that length instead and returns all ``pad_to // 160`` frames. Fewer than 160 samples give no frame.
    """
    wave = np.asarray(wave)
    if wave.ndim != 1:
        raise MediaError(f"sound: has shape {list(wave.shape)}; log_mel takes one channel [samples]")
    n_samples = len(wave)
    if pad_to is not None and pad_to < n_samples:
        raise MediaError(f"sound: {n_samples} samples do not fit into {pad_to}; split it into windows first")
    total = max(n_samples, WINDOW_SAMPLES if pad_to is None else pad_to)
    frames = (n_samples if pad_to is None else pad_to) // HOP
    if frames == 0:
        return np.zeros((0, n_mels), dtype=np.float32)

    # Frames that look only at silence are -10 everywhere before the floor: compute those that touch the clip, no more.
    heard = min(total // HOP, (n_samples + N_FFT // 2) // HOP + 1)
    half = N_FFT // 2
    stop = min(total, heard * HOP + half)  # sound and silence that the computed frames can see
    padded = np.zeros(half + stop + half, dtype=np.float64)
    padded[half : half + n_samples] = wave[:stop]
    if stop > half:
        padded[:half] = padded[2 * half : half : -1]
        padded[half + stop :] = padded[half + stop - 2 : stop - 2 : -1]
    else:
        padded[: half + stop + half] = np.pad(padded[half : half + stop], half, mode="reflect")
    framed_TN = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[: heard * HOP : HOP]
    # In float64: at the floor, 8 decades below the peak, float32 transforms err by more than 1e-4. In blocks of frames,
    # so that the intermediate arrays stay in the processor's cache: a third faster.
    log_TM = np.empty((heard, n_mels))
    for t in range(0, heard, _BLOCK):
        spectrum_TF = np.fft.rfft(framed_TN[t : t + _BLOCK] * _hann())
        power_TF = spectrum_TF.real**2 + spectrum_TF.imag**2
        log_TM[t : t + _BLOCK] = np.log10(np.maximum(power_TF @ mel_filters(n_mels), 1e-10))
    floor = log_TM.max() - 8
    out_TM = np.full((frames, n_mels), max(-10.0, floor), dtype=np.float32)
    kept = min(frames, heard)
    out_TM[:kept] = np.maximum(log_TM[:kept], floor)
    return (out_TM + np.float32(4)) / np.float32(4)


@cache
def mel_filters(n_mels: int) -> npt.NDArray[np.float64]:
    """Slaney's triangular filters with equal area, 0 to 8 kHz: float64 ``[F, M]``; librosa's and Whisper's table."""
    if n_mels < 1:
        raise MediaError(f"n_mels: {n_mels} filters cannot be made; Whisper uses 80 or 128")
    frequencies_F = np.linspace(0, RATE / 2, N_FFT // 2 + 1)
    edges = _mel_to_hertz(np.linspace(0, float(_hertz_to_mel(RATE / 2)), n_mels + 2))
    widths = np.diff(edges)
    slopes_FE = edges[None, :] - frequencies_F[:, None]
    rising_FM = -slopes_FE[:, :-2] / widths[:-1]
    falling_FM = slopes_FE[:, 2:] / widths[1:]
    filters_FM = np.maximum(0, np.minimum(rising_FM, falling_FM)) * (2 / (edges[2:] - edges[:-2]))
    filters_FM.setflags(write=False)
    return filters_FM


# Slaney's scale: linear up to 1 kHz (15 mel), then logarithmic, 27 mel for a factor of 6.4.
_BREAK_MEL, _MEL_PER_LOG = 15.0, 27 / np.log(6.4)


def _hertz_to_mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else _BREAK_MEL + np.log(hertz / 1000) * _MEL_PER_LOG


def _mel_to_hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(mel < _BREAK_MEL, mel * 200 / 3, 1000 * np.exp((mel - _BREAK_MEL) / _MEL_PER_LOG))


@cache
def _hann() -> npt.NDArray[np.float64]:
    return np.hanning(N_FFT + 1)[:-1]  # periodic, as torch.hann_window
