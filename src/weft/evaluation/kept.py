"""Answers of an evaluation that are kept as they are made, so that one that has ended goes on where it stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from weft.conversation import Conversation, WeftError
from weft.files import digits
from weft.generation import Options, Reply
from weft.generation.answers import ALONE, Ranks, answer_all, replies, whose


class Questions:
    """Conversations as requests, by their number."""

    def __init__(self, conversations: Sequence[Conversation], name: str) -> None:
        self._conversations, self.name = conversations, name
        self.ids = [str(i) for i in range(len(conversations))]
        self.marks = [hashlib.sha256(repr(c.messages).encode()).hexdigest()[:8] for c in conversations]

    def __getitem__(self, i: int) -> Conversation:
        return self._conversations[i]


class Keeper:
    """A model whose replies are on disk as soon as they are made, and are made once; else as the model itself.

    ``ranks``: processes that share the questions; each gets all replies. Files are ``answers-*.jsonl`` in ``folder``,
    of a name that stands for model, options and questions.
    """

    def __init__(
        self,
        model: Any,
        folder: Path,
        on_bad_sample: Literal["fail", "skip"] = "fail",
        ranks: Ranks = ALONE,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._model, self._folder, self._policy = model, folder, on_bad_sample
        self._ranks, self._progress = ranks, progress
        self.files: list[Path] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def replies(
        self, conversations: Sequence[Conversation], options: Options | None = None, *, batch_size: int = 16
    ) -> Iterator[tuple[int, Reply | WeftError]]:
        options, asked = options or Options(), Questions(list(conversations), "the samples")
        name = digits([whose(self._model), asdict(options), asked.marks])
        self.files.append(file := self._folder / f"answers-{name}.jsonl")
        answer_all(
            self._model,
            asked,
            file,
            options,
            batch_size=batch_size,
            on_bad_sample=self._policy,
            ranks=self._ranks,
            progress=self._progress,
        )
        for number, reply in replies(file):
            yield int(number), reply


@contextmanager
def kept(
    model: Any,
    folder: Path | None,
    on_bad_sample: Literal["fail", "skip"] = "fail",
    ranks: Ranks = ALONE,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Any]:
    """``model`` with its answers kept in ``folder`` until all ends well; as it is where no folder is given."""
    if folder is None:
        if ranks.world > 1:
            raise WeftError("several ranks leave their answers in the report's folder; give one that all see (-o)")
        yield model
        return
    keeper = Keeper(model, folder, on_bad_sample, ranks, progress)
    yield keeper
    if ranks.world > 1:
        ranks.store.set(f"read {ranks.rank}", "")
        ranks.store.wait([f"read {rank}" for rank in range(ranks.world)])
    if ranks.rank == 0:
        for file in keeper.files:
            file.unlink(missing_ok=True)
