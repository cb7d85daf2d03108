"""Random changes to training media, with boxes and word times following: what there is, and what changes sound alone.

What changes a clip's length is in `clips`, what changes pictures in `augment_pictures`. Every random number is a
function of (seed, position), and there is no global state. Changes keep the meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from weft.frozen import Frozen


class Augment(Frozen):
    """Random changes to training media; boxes and word times follow. All off by default."""

    gain_db: float = Field(0.0, ge=0)  # uniform in +-; of the whole clip, and of each of the clips joined in it
    noise_db: tuple[float, float] | None = None  # signal-to-noise range of the noise added to half of the clips
    speed: float = Field(0.0, ge=0, lt=1)  # resampling factor between 1 / (1 + speed) and 1 + speed; times follow
    pad_seconds: float = Field(0.0, ge=0)  # up to this much silence before a clip, and after it, half of the time
    cut: float = Field(0.0, ge=0, le=1)  # chance that a clip with word times is cut to a random run of its words
    cut_words: float | None = Field(None, ge=0)  # such a run has at most so many words beside its first; None: any
    join: float = Field(0.0, ge=0, lt=1)  # chance of joining a clip with another of the same prompt, and again
    join_seconds: float = Field(10.0, gt=0)  # no joined clip is longer than this
    untimed: float = Field(0.0, ge=0, le=1)  # chance that a transcript with word times is asked for without them
    time_masks: int = Field(0, ge=0)  # SpecAugment, on half of the clips: at most so many stretches of time
    time_mask_frames: int = Field(0, ge=0)  # at most this long, and at most a quarter of the clip
    freq_masks: int = Field(0, ge=0)
    freq_mask_bands: int = Field(0, ge=0)
    color: float = Field(0.0, ge=0, lt=1)  # brightness, contrast and saturation factors in 1 +- color
    shift: float = Field(0.0, ge=0, le=1)  # translation in fractions of the image
    scale: float = Field(0.0, ge=0, le=2)  # zoom factor between 1 / (1 + scale) and 1 + scale
    flip: bool = False  # left-right, half of the time; never where text says left or right, or a clip might

    @property
    def edits(self) -> bool:
        """Whether it changes how long clips are, or what they are asked for."""
        return bool(self.speed or self.pad_seconds or self.cut or self.join or self.untimed)

    @property
    def pictures(self) -> bool:
        """Whether it changes pictures."""
        return bool(self.color or self.shift or self.scale or self.flip)


def color_sound(wave: np.ndarray, augment: Augment, rng: np.random.Generator) -> np.ndarray:
    """Gain on the whole clip, and noise on half of them: white, or softened to a random degree."""
    wave = wave * np.float32(10 ** (rng.uniform(-1, 1) * augment.gain_db / 20))
    if augment.noise_db is None or rng.random() < 0.5:
        return wave
    noise = rng.standard_normal(len(wave), dtype=np.float32)
    if rng.random() < 0.5 and len(wave) > 16:
        noise = np.convolve(noise, np.ones(int(rng.integers(2, 9)), np.float32), "same").astype(np.float32)
        noise /= max(float(noise.std()), 1e-6)
    power = float(np.mean(np.square(wave), dtype=np.float64)) + 1e-12
    return wave + noise * np.float32(np.sqrt(power) * 10 ** (-rng.uniform(*augment.noise_db) / 20))


def mask_features(features: Sequence[np.ndarray], augment: Augment, rng: np.random.Generator) -> list[np.ndarray]:
    """SpecAugment on log-mel windows [T, M]: stretches of time and bands set to the window's mean, on half of them."""
    masked = []
    for window in features:
        if (augment.time_masks or augment.freq_masks) and window.ndim == 2 and rng.random() < 0.5:
            window = window.copy()
            frames, bands = window.shape
            mean = window.mean()
            for _ in range(int(rng.integers(augment.time_masks + 1)) if augment.time_masks else 0):
                width = int(rng.integers(1, max(2, min(augment.time_mask_frames, frames // 4) + 1)))
                start = int(rng.integers(max(1, frames - width + 1)))
                window[start : start + width] = mean
            for _ in range(int(rng.integers(1, augment.freq_masks + 1)) if augment.freq_masks else 0):
                width = int(rng.integers(1, max(2, min(augment.freq_mask_bands, bands // 2) + 1)))
                start = int(rng.integers(max(1, bands - width + 1)))
                window[:, start : start + width] = mean
        masked.append(window)
    return masked
