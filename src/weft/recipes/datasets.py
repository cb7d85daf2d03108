"""The data sets that published recipes name: ``datasets/NAME/train.jsonl``, which the user makes, once, with a command.

Nothing is downloaded. A file that is not there is answered with the command that makes it from the data set's own
files; ``--data NAME=FILE`` says that it lies elsewhere. Samples that weft draws itself (`weft.playground`) are at
``playground/NAME/train.jsonl`` and are made when they are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from weft.conversation import WeftError
from weft.data.augment import Augment
from weft.playground.tasks import make_if_named
from weft.training.recipe import Recipe, Source

# name -> arguments of `weft data convert`; "" where the layout has no reader and the lines must be written by hand.
READERS: dict[str, str] = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))


def data(name: str, weight: float = 1.0, augment: Augment | None = None) -> Source:
    """A data set by its name; ``weight``: how often a sample of it is drawn."""
    return Source(path=f"datasets/{name}/train.jsonl", name=name, weight=weight, augment=augment)


def play(name: str, weight: float = 1.0) -> Source:
    """Samples of one task of the playground."""
    return Source(path=f"playground/{name}/train.jsonl", name=name, weight=weight)


def how_to_make(path: str | Path) -> str:
    """What to say of a file ``datasets/NAME/train.jsonl`` that is not there; "" for other files."""
    parts = Path(path).parts
    if len(parts) != 3 or parts[0] != "datasets":
        return ""
    reader = READERS.get(parts[1])
    if reader:
        return f"make it with: weft data convert {reader} -o {path}; or "
    return "weft has no reader for it: write one conversation a line (docs/samples.md); or "


def with_files(recipe: Recipe, files: Sequence[tuple[str | None, str]]) -> Recipe:
    """The recipe with ``(name, path)`` in place of its sources' paths, all made absolute.

    The name may be None where there is one source. Samples of the playground that are not there are made. Raises
    `WeftError` where a file is not there, or no source.
    """
    names = list(dict.fromkeys(s.name or Path(s.path).stem for stage in recipe.stages for s in stage.mixture))
    given: dict[str, str] = {}
    for name, path in files:
        if name is None and len(names) == 1:
            name = names[0]
        if name not in names:
            wanted = f"no source {name}" if name else f"{path}: which source is it?"
            raise WeftError(f"--data {wanted}; write NAME=FILE, with a name of: {', '.join(names)}")
        given[name] = path
    stages = []
    for stage in recipe.stages:
        sources = []
        for source in stage.mixture:
            label = source.name or Path(source.path).stem
            file = Path(given.get(label, source.path))
            if not file.is_file() and not make_if_named(file):
                how = how_to_make(file)
                raise WeftError(f"{file}: no such file; {how}say where it is with --data {label}=FILE")
            sources.append(source.model_copy(update={"path": str(file.absolute())}))
        stages.append(stage.model_copy(update={"mixture": tuple(sources)}))
    return recipe.model_copy(update={"stages": tuple(stages)})
