"""The files behind the sources that a recipe names: found, made where weft draws them itself, or asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from weft.conversation import WeftError
from weft.data.source import absolute, is_address, is_shards
from weft.playground import tasks
from weft.training.recipe import Recipe

# name -> arguments of `weft data convert`; "" where the layout has no reader and the lines must be written by hand.
READERS: dict[str, str] = json.loads(Path(__file__).with_name("datasets.json").read_text("utf-8"))


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
            path = given.get(label, source.path)
            if not is_there(path) and not _drawn(Path(path)):
                how = how_to_make(Path(path))
                raise WeftError(f"{path}: no such file; {how}say where it is with --data {label}=FILE")
            sources.append(source.model_copy(update={"path": absolute(path)}))
        stages.append(stage.model_copy(update={"mixture": tuple(sources)}))
    return recipe.model_copy(update={"stages": tuple(stages)})


def _drawn(path: Path) -> bool:
    """Whether the samples are weft's own, made now."""
    if path.parts[-3:-2] == ("world",):
        from weft.playground import world  # speech, sounds and scenes: what no other recipe names

        return world.make_if_named(path)
    return tasks.make_if_named(path)


def how_to_make(path: str | Path) -> str:
    """What to say of a file ``datasets/NAME/train.jsonl`` that is not there; "" for other files."""
    parts = Path(path).parts
    if len(parts) != 3 or parts[0] != "datasets":
        return ""
    reader = READERS.get(parts[1])
    if reader:
        return f"make it with: weft data convert {reader} -o {path}; or "
    return "weft has no reader for it: write one conversation a line (docs/samples.md); or "


def is_there(path: str | Path) -> bool:
    """Whether there may be samples at ``path``."""
    return is_address(path) or Path(path).is_file() or is_shards(path)
