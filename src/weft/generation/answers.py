"""A file of answers: in batches, by one process or several, and resumable after any kind of end.

Answers are JSON Lines, ``{"id", "text", "parts", "raw", "tokens", "finished", "windows", "malformed", "run"}``
(and ``"heard"`` of a spoken turn that was written down first), or
``{"id", "error", "run"}``, and ``"asked"`` in both; each is appended in one write as soon as it is there. A later run
finds out which requests are answered, drops a last line that was cut, and goes on. When all are answered, the file is
put into the order of the requests.

``run`` stands for the model and the options, ``asked`` for the words of the request: answers of other weights are never
mixed, and a request that has changed since it was answered is asked again.

Several ranks, on one machine or many with one folder, answer every so-manieth request each. The first writes the file;
each other one a file beside it, ``NAME.rank-N``, which the first takes in when all are through, or when it begins the
next time, on whatever number of ranks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import timedelta
from glob import escape
from pathlib import Path
from typing import Any, Literal, Protocol

from weft.conversation import Box, Conversation, Part, SampleError, Text, WeftError, Word, Words
from weft.files import digits, lock, on_disk, whole_file
from weft.generation.engine import Model
from weft.generation.identity import identity
from weft.generation.reply import Options, Reply
from weft.generation.workers import Workers

Progress = Callable[[int, int], None]  # answered, of
BEGINS = b'{"id": '  # every answer
LONGEST = timedelta(days=30)  # that a rank waits for the others' answers; torchrun ends it where one is lost


@dataclass(frozen=True)
class Summary:
    total: int
    before: int  # answered by an earlier run
    errors: int  # of all, recorded instead of an answer


class Asked(Protocol):
    """Requests by place. ``ids`` differ; ``marks`` are of each request's words; ``name`` is for messages."""

    name: str

    @property
    def ids(self) -> Sequence[str]: ...

    @property
    def marks(self) -> Sequence[str]: ...

    def __getitem__(self, i: int) -> Conversation | WeftError: ...


class Ranks(Protocol):
    """Processes that answer together; `weft.training.ranks.Ranks` is one."""

    @property
    def rank(self) -> int: ...

    @property
    def world(self) -> int: ...

    @property
    def store(self) -> Any: ...  # torch.distributed's


@dataclass(frozen=True)
class One:
    rank: int = 0
    world: int = 1
    store: Any = None
    device: str | None = None  # whichever there is


ALONE = One()


def answer_all(
    model: Model | Workers,
    asked: Asked,
    answers: str | os.PathLike[str],
    options: Options | None = None,
    *,
    batch_size: int = 16,
    on_bad_sample: Literal["fail", "skip"] = "fail",
    restart: bool = False,
    ranks: Ranks = ALONE,
    progress: Progress | None = None,
) -> Summary:
    """Answers every request that has none yet, as `requests.answer_file` says. All ranks return together."""
    options, path = options or Options(), Path(answers)
    run, first = digits(whose(model) | asdict(options)), ranks.rank == 0
    own = path if first else path.with_name(f"{path.name}.rank-{ranks.rank}")
    marks = dict(zip(asked.ids, asked.marks, strict=True))
    with ExitStack() as held:
        if not first:
            _wait(ranks, f"begun {path}", [0])  # by which what is beside the file has been taken in
        file = held.enter_context(AnswerFile(own, run, restart))
        if first:
            file.take_in(drop=restart)
        before = file.done(marks, asked.name)
        if first:
            _say(ranks, f"begun {path}")
        else:
            before |= answered(path, run, marks, asked.name)[0]
        share = range(ranks.rank, len(asked.ids), ranks.world)
        todo = [i for i in share if asked.ids[i] not in before]
        if progress is not None:
            progress(len(share) - len(todo), len(share))
        for done, (k, reply) in enumerate(
            model.replies((asked[i] for i in todo), options, batch_size=batch_size), len(share) - len(todo) + 1
        ):
            name = asked.ids[todo[k]]
            mark = {"asked": asked.marks[todo[k]]}
            if isinstance(reply, Reply):
                file.append({"id": name, **reply.as_dict(), **mark})
            elif on_bad_sample == "fail":
                raise WeftError(f"request {name!r}: {reply}")
            else:
                file.append({"id": name, "error": str(reply), **mark})
            if progress is not None:
                progress(done, len(share))
        if not first:
            held.close()  # its file is whole, and the first's
            _say(ranks, f"through {path}")
            _wait(ranks, f"whole {path}", [0])
            return Summary(len(asked.ids), len(before), 0)
        _wait(ranks, f"through {path}", range(1, ranks.world))
        file.take_in()
        errors = file.sort(asked.ids)
        _say(ranks, f"whole {path}")
    return Summary(len(asked.ids), len(before), errors)


def whose(model: Model | Workers) -> dict[str, Any]:
    """What answers depend on besides what is asked and how."""
    return model.identity if isinstance(model, Workers) else identity(model)


def replies(answers: str | os.PathLike[str]) -> Iterator[tuple[str, Reply | WeftError]]:
    """The ids of a whole file of answers, each with what its line says."""
    with open(answers, "rb") as file:
        for raw in file:
            line = json.loads(raw)
            yield line["id"], WeftError(line["error"]) if "error" in line else _reply(line)


def _reply(line: dict[str, Any]) -> Reply:
    """What `Reply.as_dict` says, as it was: an answer is not held to what a sample must be."""
    plain = {key: line[key] for key in ("text", "raw", "tokens", "finished", "windows")}
    return Reply(
        **plain, parts=tuple(map(_part, line["parts"])), malformed=tuple(line["malformed"]), heard=line.get("heard", "")
    )


def _part(part: dict[str, Any]) -> Part:
    if part["type"] == "box":
        return Box(tuple((a, b, c, d) for a, b, c, d in part["boxes"]), part.get("label"), part.get("image"))
    if part["type"] == "words":
        return Words(tuple(Word(**word) for word in part["words"]), part.get("audio"))
    return Text(part["text"])


def _say(ranks: Ranks, what: str) -> None:
    if ranks.world > 1:
        ranks.store.set(f"{what} {ranks.rank}", "")


def _wait(ranks: Ranks, what: str, whom: Sequence[int]) -> None:
    if ranks.world > 1:
        ranks.store.wait([f"{what} {rank}" for rank in whom], LONGEST)


def _is_fragment(line: bytes) -> bool:
    """Whether a line is an answer that was cut in the middle of its write, and not somebody's file without an end."""
    if line.endswith(b"\n") or not (line.startswith(BEGINS) or BEGINS.startswith(line)):
        return False
    try:
        return "run" in json.loads(line)  # all but its newline
    except ValueError:
        return True


def answered(path: Path, run: str, marks: dict[str, str], requests: str) -> tuple[dict[str, bool], int]:
    """Answered ids, each with whether its answer is an error, and where the last line ends that was not cut.

    ``marks``: of every request, by its id; an answer to other words under the same id does not count.
    """
    found, end = {}, 0
    with open(path, "rb") as file:
        for number, raw in enumerate(file, 1):
            if _is_fragment(raw):
                break
            try:
                answer = json.loads(raw)
                name, made = str(answer["id"]), answer["run"]
            except (ValueError, KeyError, TypeError):
                raise SampleError(
                    "is no answer of weft; move the file away or give another -o", file=str(path), line=number
                ) from None
            if made != run:
                raise WeftError(
                    f"{path} was begun with another model or other options; give another -o, or --restart to "
                    f"throw its answers away"
                )
            if name not in marks:
                raise WeftError(
                    f"{path} answers {name!r}, which is not in {requests}; give another -o, or --restart to "
                    f"throw its answers away"
                )
            if answer.get("asked") == marks[name]:
                found[name] = "error" in answer
            end += len(raw)
    return found, end


class AnswerFile:
    """Lines appended one write at a time, by one process at a time."""

    def __init__(self, path: Path, run: str, restart: bool) -> None:
        self._path, self._run, self._restart = path, run, restart
        self._held, self._file = ExitStack(), -1

    def __enter__(self) -> AnswerFile:
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

    def done(self, marks: dict[str, str], requests: str) -> dict[str, bool]:
        """As `answered`; a last line that was cut is dropped."""
        found, end = answered(self._path, self._run, marks, requests)
        if end < os.fstat(self._file).st_size:
            os.ftruncate(self._file, end)
        return found

    def take_in(self, drop: bool = False) -> None:
        """Appends the whole lines of what other ranks have left beside the file, or drops them; then that is gone."""
        for part in sorted(self._path.parent.glob(f"{escape(self._path.name)}.rank-*")):
            if not drop:
                whole = sum(len(raw) for raw in self._lines() if not _is_fragment(raw))
                os.ftruncate(self._file, whole)  # a last line that was cut is dropped before others follow
                for raw in part.read_bytes().splitlines(keepends=True):
                    if not _is_fragment(raw):
                        self._write(raw)
                on_disk(self._file)
            part.unlink()

    def _lines(self) -> Iterator[bytes]:
        with open(self._path, "rb") as file:
            yield from file

    def append(self, answer: dict[str, Any]) -> None:
        self._write((json.dumps(answer | {"run": self._run}, ensure_ascii=False) + "\n").encode())

    def _write(self, data: bytes) -> None:
        start = os.fstat(self._file).st_size
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError:
            os.ftruncate(self._file, start)
            raise

    def sort(self, ids: Sequence[str]) -> int:
        """Puts the lines into the order of the requests, the last of each, whole or not at all; counts the errors."""
        by_name, errors = {}, {}
        for raw in self._lines():
            line = json.loads(raw)
            by_name[line["id"]], errors[line["id"]] = raw, "error" in line
        with whole_file(self._path, "wb") as file:
            file.writelines(by_name[name] for name in ids)
        return sum(errors[name] for name in ids)
