"""What one sample is drawn with: its chances, the split it is for, its language, and the marks it earns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

T = TypeVar("T")


@dataclass
class Chance:
    """``marks``: in what way a test sample is new to a model that learned from the training split."""

    rng: np.random.Generator
    split: str = "train"
    language: str = "en"
    marks: set[str] = field(default_factory=set)

    def one(self, items: Sequence[T], weights: Sequence[float] | None = None) -> T:
        if weights is None:
            return items[int(self.rng.integers(len(items)))]
        edges = np.cumsum(weights)
        return items[int(np.searchsorted(edges, self.rng.random() * edges[-1], side="right"))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        return [items[i] for i in self.rng.permutation(len(items))]

    def yes(self, probability: float = 0.5) -> bool:
        return bool(self.rng.random() < probability)

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))
