"""The data sets that published recipes name: ``datasets/NAME/train.jsonl``, which the user makes, once, with a command.

Nothing is downloaded. A file that is not there is answered with the command that makes it from the data set's own
files; ``--data NAME=FILE`` says that it lies elsewhere. Samples that weft draws itself (`weft.playground`) are at
``playground/NAME/train.jsonl`` and are made when they are asked for.
"""

from __future__ import annotations

import json
from pathlib import Path

from weft.data.augment import Augment
from weft.training.recipe import Source

# name -> arguments of `weft data convert`; "" where the layout has no reader and the lines must be written by hand.
READERS: dict[str, str] = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))


def data(name: str, weight: float = 1.0, augment: Augment | None = None) -> Source:
    """A data set by its name; ``weight``: how often a sample of it is drawn."""
    return Source(path=f"datasets/{name}/train.jsonl", name=name, weight=weight, augment=augment)


def how_to_make(path: str | Path) -> str:
    """What to say of a file ``datasets/NAME/train.jsonl`` that is not there; "" for other files."""
    parts = Path(path).parts
    if len(parts) != 3 or parts[0] != "datasets":
        return ""
    reader = READERS.get(parts[1])
    if reader:
        return f"make it with: weft data convert {reader} -o {path}; or "
    return "weft has no reader for it: write one conversation a line (docs/samples.md); or "
