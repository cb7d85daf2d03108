"""A file of requests to a file of answers: in batches, and resumable after any kind of end.

Requests are sample lines (``{"id", "messages"}``); where one ends with an answer, that is left out and asked for.
Answers are JSON Lines, ``{"id", "text", "parts", "raw", "tokens", "finished", "windows", "malformed", "run"}``, or
``{"id", "error", "run"}``, and ``"asked"`` in both; each is appended in one write as soon as it is there. A later run
finds out which requests are answered, drops a last line that was cut, and goes on. When all are answered, the file is
put into the order of the requests.

``run`` stands for the model and the options, ``asked`` for the words of the request: answers of other weights are never
mixed, and a request that has changed since it was answered is asked again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from weft.conversation import Conversation, SampleError, WeftError
from weft.conversation.roots import within
from weft.conversation.samples import iter_lines, parse_line
from weft.files import lock, whole_file
from weft.generation.engine import Model
from weft.generation.identity import identity
from weft.generation.reply import Options, Reply
from weft.generation.workers import Workers
from weft.media import image_size

Progress = Callable[[int, int], None]  # answered, of
BEGINS = b'{"id": '  # every answer


@dataclass(frozen=True)
class Summary:
    total: int
    before: int  # answered by an earlier run
    errors: int  # of all, recorded instead of an answer


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
    progress: Progress | None = None,
) -> Summary:
    """Answers every request that has none yet.

    ``on_bad_sample``: "fail" stops at the first request that cannot be asked (answers so far stay), "skip" records its
    error as its answer. ``restart`` begins anew. ``media_root``: the folder that media lie in, links followed.
    Raises WeftError where the answers belong to another model, other options or other requests.
    """
    options = options or Options()
    if Path(answers).exists() and Path(answers).samefile(requests):
        raise WeftError(f"{answers} holds the requests themselves; give another -o for the answers")
    who = model.identity if isinstance(model, Workers) else identity(model)
    run = _digits(who | asdict(options))
    asked = _Requests(Path(requests), on_bad_sample, within(media_root))
    with _AnswerFile(Path(answers), run, restart) as file:
        before = file.done(dict(zip(asked.ids, asked.marks, strict=True)), Path(requests))
        todo = [i for i, name in enumerate(asked.ids) if name not in before]
        errors = sum(before.values())
        if progress is not None:
            progress(len(before), len(asked.ids))
        for done, (k, reply) in enumerate(
            model.replies((asked[i] for i in todo), options, batch_size=batch_size), len(before) + 1
        ):
            name = asked.ids[todo[k]]
            mark = {"asked": asked.marks[todo[k]]}
            if isinstance(reply, Reply):
                file.append({"id": name, **reply.as_dict(), **mark})
            elif on_bad_sample == "fail":
                raise WeftError(f"request {name!r}: {reply}")
            else:
                errors += 1
                file.append({"id": name, "error": str(reply), **mark})
            if progress is not None:
                progress(done, len(asked.ids))
        file.sort(asked.ids)
    return Summary(len(asked.ids), len(before), errors)


def _digits(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


class _Requests:
    """Request lines by place; only ids are kept, a conversation is read again when its turn comes."""

    def __init__(self, path: Path, on_bad_sample: Literal["fail", "skip"], exists: Callable[[str], bool]) -> None:
        self._path, self._exists = path, exists
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
        return str(name) if isinstance(name, str | int) else f"line-{number}", _digits(messages)


def _is_fragment(line: bytes) -> bool:
    """Whether a line is an answer that was cut in the middle of its write, and not somebody's file without an end."""
    if line.endswith(b"\n") or not (line.startswith(BEGINS) or BEGINS.startswith(line)):
        return False
    try:
        return "run" in json.loads(line)  # all but its newline
    except ValueError:
        return True


class _AnswerFile:
    """Lines appended one write at a time, by one process at a time."""

    def __init__(self, path: Path, run: str, restart: bool) -> None:
        self._path, self._run, self._restart = path, run, restart
        self._held, self._file = ExitStack(), -1

    def __enter__(self) -> _AnswerFile:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        place = Path(os.path.realpath(self._path))
        with ExitStack() as held:
            said = "is writing it; wait for it or give another -o"
            taken = lock(place.with_name(f".{place.name}.lock"), lambda who: WeftError(f"{self._path}: {who} {said}"))
            held.enter_context(taken)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            held.callback(os.close, self._file)
            if self._restart:
                self._check_answers()
                os.ftruncate(self._file, 0)
            self._held = held.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def _check_answers(self) -> None:
        """Nothing but answers may be overwritten."""
        first = next(iter(self._lines()), b"")
        try:
            if not _is_fragment(first):
                json.loads(first)["run"]
        except (ValueError, KeyError, TypeError):
            said = "is no answer of weft, so --restart leaves it alone; give another -o"
            raise SampleError(said, file=str(self._path), line=1) from None

    def done(self, marks: dict[str, str], requests: Path) -> dict[str, bool]:
        """Answered ids, each with whether its answer is an error. A last line that was cut is dropped.

        ``marks``: of every request, by its id; an answer to other words under the same id does not count.
        """
        found, end = {}, 0
        for number, raw in enumerate(self._lines(), 1):
            if _is_fragment(raw):
                break
            try:
                answer = json.loads(raw)
                name, run = str(answer["id"]), answer["run"]
            except (ValueError, KeyError, TypeError):
                raise SampleError(
                    "is no answer of weft; move the file away or give another -o", file=str(self._path), line=number
                ) from None
            if run != self._run:
                raise WeftError(
                    f"{self._path} was begun with another model or other options; give another -o, or --restart to "
                    f"throw its answers away"
                )
            if name not in marks:
                raise WeftError(
                    f"{self._path} answers {name!r}, which is not in {requests}; give another -o, or --restart to "
                    f"throw its answers away"
                )
            if answer.get("asked") == marks[name]:
                found[name] = "error" in answer
            end += len(raw)
        if end < os.fstat(self._file).st_size:
            os.ftruncate(self._file, end)
        return found

    def _lines(self) -> Iterator[bytes]:
        with open(self._path, "rb") as file:
            yield from file

    def append(self, answer: dict[str, Any]) -> None:
        data = (json.dumps(answer | {"run": self._run}, ensure_ascii=False) + "\n").encode()
        start = os.fstat(self._file).st_size
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError:
            os.ftruncate(self._file, start)
            raise

    def sort(self, ids: list[str]) -> None:
        """Puts the lines into the order of the requests, the last of each, whole or not at all."""
        by_name = {json.loads(raw)["id"]: raw for raw in self._lines()}
        with whole_file(self._path, "wb") as file:
            file.writelines(by_name[name] for name in ids)
