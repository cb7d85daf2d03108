"""The world as samples: sample ``n`` of a split follows from the split, the seed and ``n`` alone.

    sample(7, "train")                                  a conversation, its media in memory
    write(Path("data"), "train", 20000, workers=2)      data/train.jsonl, data/train/0000007-0.png ...

Picture tasks need nothing more; speech and what goes with it needs espeakng-loader.
"""

from __future__ import annotations

import multiprocessing
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import soundfile

from weft.conversation import Audio, Conversation, Image, Message, Part, WeftError, write_samples
from weft.playground.chance import Chance
from weft.playground.phrases import LANGUAGES
from weft.playground.picture_tasks import PICTURE_TASKS, Turns
from weft.playground.sound_tasks import SOUND_TASKS, SPEECH_TASKS
from weft.playground.together import TOGETHER

SPLITS = ("train", "dev", "test")
TASKS: dict[str, Callable[[Chance], Turns]] = {**PICTURE_TASKS, **SPEECH_TASKS, **SOUND_TASKS, **TOGETHER}
PLAYED = 2000  # samples of a task that a recipe names
CHUNK = 32  # samples that a worker makes at a time


def sample(
    n: int,
    split: str = "train",
    seed: int = 0,
    tasks: Mapping[str, float] | Sequence[str] = tuple(TASKS),
    languages: Sequence[str] = ("en",),
) -> Conversation:
    """Sample ``n``: its pictures PIL images, its clips ``(wave, rate)``.

    ``tasks``: which, or how often each is drawn. ``languages`` of what is asked and answered (of questions about
    sounds and of conversations there is English only). The id names split, task and number, and after "+" in what way
    a test sample is new: "test-refer-12+new_pair".
    """
    _check(split, tasks, languages)
    weights = [1.0] * len(tasks) if not isinstance(tasks, Mapping) else list(tasks.values())
    place = (SPLITS.index(split), seed, n)
    first = Chance(np.random.default_rng(place))
    task, language = first.one(tuple(tasks), weights), first.one(languages)
    chance = Chance(np.random.default_rng((*place, zlib.crc32(task.encode()))), split, language)
    messages = []
    for asked, answer in TASKS[task](chance):
        messages += [Message("user", tuple(asked)), Message("assistant", tuple(answer))]
    return Conversation(tuple(messages), "+".join([f"{split}-{task}-{n}", *sorted(chance.marks)]))


def write(
    folder: Path,
    split: str,
    count: int,
    seed: int = 0,
    tasks: Mapping[str, float] | Sequence[str] = tuple(TASKS),
    languages: Sequence[str] = ("en",),
    workers: int = 1,
) -> Path:
    """Writes samples 0 to ``count`` and their media, PNG and 16-bit WAV; gives the sample file.

    The same files for any number of ``workers``. The sample file appears last and whole.
    """
    _check(split, tasks, languages)
    (folder / split).mkdir(parents=True, exist_ok=True)
    path = folder / f"{split}.jsonl"
    some = partial(_file_some, folder=folder, split=split, count=count, seed=seed, tasks=tasks, languages=languages)
    starts = range(0, count, CHUNK)
    if workers < 2:
        write_samples(path, chain.from_iterable(map(some, starts)))
        return path
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        write_samples(path, chain.from_iterable(pool.imap(some, starts)))
    return path


def _file_some(start: int, *, folder: Path, split: str, count: int, **world: object) -> list[Conversation]:
    numbers = range(start, min(start + CHUNK, count))
    return [filed(sample(n, split, **world), folder / split, n) for n in numbers]  # type: ignore[arg-type]


def filed(made: Conversation, folder: Path, n: int) -> Conversation:
    """The sample with its media in files."""
    at: Iterator[int] = iter(range(1000))

    def filed(part: Part) -> Part:
        if isinstance(part, Image):
            path = folder / f"{n:07}-{next(at)}.png"
            part.source.save(path, compress_level=1)
            return Image(str(path))
        if isinstance(part, Audio):
            path = folder / f"{n:07}-{next(at)}.wav"
            soundfile.write(path, *part.source, subtype="PCM_16")
            return Audio(str(path))
        return part

    return replace(made, messages=tuple(replace(m, parts=tuple(map(filed, m.parts))) for m in made.messages))


def _check(split: str, tasks: Mapping[str, float] | Sequence[str], languages: Sequence[str]) -> None:
    for what, given, known in (("split", [split], SPLITS), ("task", tasks, TASKS), ("language", languages, LANGUAGES)):
        if not given:
            raise WeftError(f"the playground needs at least one {what} of {', '.join(known)}")
        for name in given:
            if name not in known:
                raise WeftError(f"the playground has no {what} {name!r}; it has {', '.join(known)}")


def make_if_named(path: Path) -> bool:
    """Makes a file ``.../world/TASK/train.jsonl``, which recipes name; False where ``path`` is none."""
    if path.parts[-3:-2] != ("world",) or path.name != "train.jsonl" or path.parts[-2] not in TASKS:
        return False
    write(path.parent, "train", PLAYED, tasks=[path.parts[-2]])
    return True
