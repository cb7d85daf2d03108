"""Which sample stands at which position of training: a function of (seed, sizes, weights, position) and nothing else.

Every source runs through a permutation of its own, another one each epoch, so that no sample comes twice before each
has come once; sources are interleaved in proportion to their weights as evenly as whole numbers allow. Any position
can be asked for at once, which is what makes a run resumable by one integer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from absl import logging

logging.set_verbosity(logging.ERROR)  # importing grain warns that jax, which is not needed, is absent
import grain  # noqa: E402

FAR = 1 << 40  # more draws, or micro-steps, than any run makes
# Samples of a source whose order is computed place by place, for the whole of it takes 8 bytes a sample.
LARGE = 1 << 21


class Mixture:
    """``mixture[position] -> (source, index)`` for every position from 0 on, without end.

    ``sizes`` are the numbers of samples of the sources; ``weights`` say how often each is drawn from (per sample, not
    per token; proportions are kept to about one percent of the smallest).
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float] | None = None, seed: int = 0) -> None:
        weights = list(weights) if weights is not None else [1.0] * len(sizes)
        if len(weights) != len(sizes) or not sizes or min(sizes) < 1 or min(weights) <= 0:
            raise ValueError(f"a mixture needs sizes >= 1 and as many weights > 0, got {sizes} and {weights}")
        self.sizes, self.weights, self.seed = tuple(sizes), tuple(weights), seed
        draws = [grain.MapDataset.range(FAR).map(_Tag(i)) for i in range(len(sizes))]
        self._draws = draws[0] if len(draws) == 1 else grain.MapDataset.mix(draws, weights=weights)
        self._orders: OrderedDict[tuple[int, int], Sequence[int] | np.ndarray] = OrderedDict()

    def __getitem__(self, position: int) -> tuple[int, int]:
        source, draw = self._draws[position]
        epoch, place = divmod(draw, self.sizes[source])
        return source, int(self._order(source, epoch)[place])

    def _order(self, source: int, epoch: int) -> Sequence[int] | np.ndarray:
        """The permutation of one epoch. Grain's shuffle, a function of the place, searches 1.5 ms for one among few."""
        order = self._orders.get((source, epoch))
        if order is None:
            key, size = [self.seed, source, epoch], self.sizes[source]
            if size > LARGE:
                seed = int(np.random.SeedSequence(key).generate_state(1)[0])
                order = grain.MapDataset.range(size).shuffle(seed=seed)
            else:
                order = np.random.default_rng(key).permutation(size)
            self._orders[source, epoch] = order
            while len(self._orders) > 3 * len(self.sizes):
                self._orders.pop(next(iter(self._orders)), None)
        return order


class _Tag(grain.transforms.Map):
    """Names the source of a draw."""

    def __init__(self, source: int) -> None:
        self.source = source

    def map(self, element: int) -> tuple[int, int]:
        return self.source, int(element)
