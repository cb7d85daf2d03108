"""A file of requests to a file of answers: in batches, and resumable after any kind of end.

Requests are sample lines (``{"id", "messages"}``); where one ends with an answer, that is left out and asked for. What
a file of answers holds, and how it is gone on with, is in `answers`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from weft.conversation import Conversation, SampleError, WeftError
from weft.conversation.roots import within
from weft.conversation.samples import iter_lines, parse_line
from weft.files import digits
from weft.generation.answers import ALONE, Progress, Ranks, Summary, answer_all
from weft.generation.engine import Model
from weft.generation.reply import Options
from weft.generation.workers import Workers
from weft.media import image_size


def answer_file(
    model: Model | Workers,
    requests: str | os.PathLike[str],
    answers: str | os.PathLike[str],
    options: Options | None = None,
    *,
    batch_size: int = 16,
    on_bad_sample: Literal["fail", "skip"] = "fail",
    restart: bool = False,
    media_root: str | os.PathLike[str] | None = None,
    ranks: Ranks = ALONE,
    progress: Progress | None = None,
) -> Summary:
    """Answers every request that has none yet.

    ``on_bad_sample``: "fail" stops at the first request that cannot be asked (answers so far stay), "skip" records its
    error as its answer. ``restart`` begins anew. ``media_root``: the folder that media lie in, links followed.
    ``ranks``: processes that answer the same file, each in its share. Raises WeftError where the answers belong to
    another model, other options or other requests.
    """
    if Path(answers).exists() and Path(answers).samefile(requests):
        raise WeftError(f"{answers} holds the requests themselves; give another -o for the answers")
    return answer_all(
        model,
        _Requests(Path(requests), on_bad_sample, within(media_root)),
        answers,
        options,
        batch_size=batch_size,
        on_bad_sample=on_bad_sample,
        restart=restart,
        ranks=ranks,
        progress=progress,
    )


class _Requests:
    """Request lines by place; only ids are kept, a conversation is read again when its turn comes."""

    def __init__(self, path: Path, on_bad_sample: Literal["fail", "skip"], exists: Callable[[str], bool]) -> None:
        self._path, self._exists, self.name = path, exists, str(path)
        self._lines: list[tuple[int, bytes]] = list(iter_lines(path))
        if not self._lines:
            raise SampleError("no requests in it: write one JSON object a line", file=str(path))
        self.ids: list[str] = []
        self.marks: list[str] = []  # of each request's words, its own final answer aside
        seen: dict[str, int] = {}
        for number, raw in self._lines:
            name, mark = self._name(number, raw)
            if name in seen:
                raise SampleError(
                    f"id {name!r} stands in line {seen[name]} already; give each its own", file=str(path), line=number
                )
            seen[name] = number
            self.ids.append(name)
            self.marks.append(mark)
        if on_bad_sample == "fail":  # say what is wrong before hours of work, not after
            for i in range(len(self._lines)):
                self._read(i)

    def __getitem__(self, i: int) -> Conversation | WeftError:
        try:
            return self._read(i)
        except WeftError as error:
            return error

    def _read(self, i: int) -> Conversation:
        number, raw = self._lines[i]
        conversation = parse_line(
            raw, where=str(self._path), line=number, root=self._path.parent, probe=image_size, exists=self._exists
        )
        return Conversation(conversation.prompt().messages, self.ids[i])

    @staticmethod
    def _name(number: int, raw: bytes) -> tuple[str, str]:
        """The request's id, or one from its line, and a mark of what is asked."""
        try:
            line = json.loads(raw)
            name, messages = line.get("id"), list(line.get("messages", ()))
            if messages and messages[-1]["role"] == "assistant":
                messages.pop()
        except (ValueError, AttributeError, TypeError, KeyError):
            name, messages = None, [raw.decode(errors="replace")]
        return str(name) if isinstance(name, str | int) else f"line-{number}", digits(messages)
