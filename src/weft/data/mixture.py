"""Which sample stands at which position of training: a function of (seed, sizes, weights, position) and nothing else.

Every source runs through a permutation of its own, another one each epoch, so that no sample comes twice before each
has come once; sources are interleaved in proportion to their weights as evenly as whole numbers allow. Any position
can be asked for at once, which is what makes a run resumable by one integer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from absl import logging

logging.set_verbosity(logging.ERROR)  # importing grain warns that jax, which is not needed, is absent
import grain  # noqa: E402


class Mixture:
    """``mixture[position] -> (source, index)`` for every position from 0 on, without end.

    ``sizes`` are the numbers of samples of the sources; ``weights`` say how often each is drawn from (per sample, not
    per token; proportions are kept to about one percent of the smallest).
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float] | None = None, seed: int = 0) -> None:
        weights = list(weights) if weights is not None else [1.0] * len(sizes)
        if len(weights) != len(sizes) or not sizes or min(sizes) < 1 or min(weights) <= 0:
            raise ValueError(f"a mixture needs sizes >= 1 and as many weights > 0, got {sizes} and {weights}")
        self.sizes, self.weights = tuple(sizes), tuple(weights)
        seeds = np.random.SeedSequence([seed, 0x3E1]).generate_state(len(sizes))
        # grain advances a shuffle's seed by one each epoch, hence seeds far apart rather than seed + source
        parts = [
            grain.MapDataset.range(size).shuffle(seed=int(s)).repeat() for size, s in zip(sizes, seeds, strict=True)
        ]
        tagged = [part.map(_Tag(i)) for i, part in enumerate(parts)]
        self._dataset = tagged[0] if len(tagged) == 1 else grain.MapDataset.mix(tagged, weights=weights)

    def __getitem__(self, position: int) -> tuple[int, int]:
        return self._dataset[position]


class _Tag(grain.transforms.Map):
    """Names the source of an index."""

    def __init__(self, source: int) -> None:
        self.source = source

    def map(self, element: int) -> tuple[int, int]:
        return self.source, int(element)
