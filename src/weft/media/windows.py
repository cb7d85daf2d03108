"""Sound longer than an encoder's window, cut into windows that together hold all of it exactly once."""

from __future__ import annotations

GRID = 160
"""Cuts fall on multiples of a mel frame (10 ms at 16 kHz), so no frame is lost at a cut and times stay on 0.01 s."""

MIN_SAMPLES = 1600
"""Shortest window made, 0.1 s at 16 kHz: any encoder makes at least one token of it (Qwen-Audio needs 0.03 s)."""


def split_windows(n_samples: int, window_samples: int, min_samples: int = MIN_SAMPLES) -> list[tuple[int, int]]:
    """``[(start, end), ...]`` in samples: in order, without gap or overlap, from 0 to ``n_samples``.

    Windows are full but for the last, which holds what is left. Where less than ``min_samples`` would be left, the last
    two windows share their sound evenly instead, so that a remainder of a few samples is heard with context and is
    never too short to encode. A clip that fits one window is one window, however short. No sound is no window.
    """
    if n_samples < 0 or window_samples < 1:
        raise ValueError(f"need n_samples >= 0 and window_samples >= 1, got {n_samples} and {window_samples}")
    if n_samples == 0:
        return []
    starts = list(range(0, n_samples, window_samples))
    if len(starts) > 1 and n_samples - starts[-1] < min_samples:
        shared = n_samples - starts[-2]
        half = (shared + 1) // 2
        on_grid = -(-half // GRID) * GRID
        starts[-1] = starts[-2] + (on_grid if on_grid < min(shared, window_samples) else half)
    return list(zip(starts, [*starts[1:], n_samples], strict=True))
