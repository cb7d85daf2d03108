"""Samples of shards one after the other, for commands that go over all of them: to check, to measure, to ask."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

from weft.conversation import Conversation, SampleError, WeftError
from weft.data.shards import Shards
from weft.files import digits

READERS, AHEAD = 16, 512  # threads where shards are behind an address, and samples that they are ahead


def samples_of(source: Shards) -> Iterator[Conversation | SampleError]:
    """Every sample in order; what is none, or cannot be read after some tries, as its error."""
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(source), AHEAD):
            numbers = range(start, min(start + AHEAD, len(source)))
            yield from (
                map(_read, [source] * len(numbers), numbers)
                if source.home
                else pool.map(_read, [source] * len(numbers), numbers)
            )


def _read(source: Shards, number: int) -> Conversation | SampleError:
    try:
        return source[number]
    except SampleError as error:
        return error
    except WeftError as error:
        file, _, row = source.where(number).rpartition(":")
        problem = str(error).removeprefix(f"{file}:{row}: ")
        return SampleError(problem, file=file, line=int(row))


class ShardRequests:
    """The samples of shards as requests (`weft.generation.answers.Asked`); read once for their ids, then in their turn.

    A sample without an id has the name of its shard and its row. An id that stands twice is an error, and with
    ``on_bad_sample`` "fail" so is the first sample that cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], on_bad_sample: Literal["fail", "skip"]) -> None:
        self._source = Shards(os.fspath(path))
        self.name = self._source.path
        self.ids: list[str] = []
        self.marks: list[str] = []
        for number, found in enumerate(samples_of(self._source)):
            if isinstance(found, SampleError) and on_bad_sample == "fail":
                raise found
            name = None if isinstance(found, SampleError) else found.id
            self.ids.append(name or os.path.basename(self._source.where(number)))
            self.marks.append(digits(str(found) if isinstance(found, SampleError) else repr(found.prompt().messages)))
        name, count = Counter(self.ids).most_common(1)[0]
        if count > 1:
            raise SampleError(f"id {name!r} stands in {count} samples; give each its own", file=self.name)

    def __getitem__(self, i: int) -> Conversation | WeftError:
        found = _read(self._source, i)
        return found if isinstance(found, SampleError) else replace(found.prompt(), id=self.ids[i])
