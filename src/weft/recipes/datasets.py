"""The data sets that published recipes name: ``datasets/NAME/train.jsonl``, which the user makes, once, with a command.

Nothing is downloaded. A file that is not there is answered with the command that makes it from the data set's own
files; ``--data NAME=FILE`` says that it lies elsewhere. Samples that weft draws itself (`weft.playground`) are at
``playground/TASK/train.jsonl`` or ``world/TASK/train.jsonl`` and are made when they are asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from weft.data.augment import Augment
from weft.training.recipe import Source


def data(name: str, weight: float = 1.0, augment: Augment | None = None) -> Source:
    """A data set by its name; ``weight``: how often a sample of it is drawn."""
    return Source(path=f"datasets/{name}/train.jsonl", name=name, weight=weight, augment=augment)


def drawn(folder: str, tasks: Sequence[str]) -> tuple[Source, ...]:
    """Tasks of `weft.playground.tasks` (``playground``) or `weft.playground.world` (``world``), as often as named."""
    counted = Counter(tasks).items()
    return tuple(Source(path=f"{folder}/{task}/train.jsonl", name=task, weight=times) for task, times in counted)
