"""Checks sample files: every mistake with file, line and field, and a summary of what is in them.

The quick check reads every line, applies the whole sample format and makes sure that every media file is there and not
empty; image headers are read only where a box needs the image's size. The deep check also decodes every picture and
every recording as training would, and compares word times with the length of the clip.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from weft.conversation import Audio, Box, Conversation, Image, SampleError, Task, WeftError, Words, within
from weft.conversation.samples import is_foreign, iter_lines, parse_line
from weft.data.learnable import Learnable

LISTED_AFTER = 16  # questions about one folder before it is listed instead of asked file by file
PENDING = 256  # decodings under way or waiting, so that memory does not grow with the file
LATE = 0.05  # seconds a last word may end after its clip, as annotations round


@dataclass
class Summary:
    """What is in the files that were checked. Samples with a mistake are counted in ``mistakes`` and nowhere else."""

    files: list[str] = field(default_factory=list)
    samples: int = 0
    mistakes: int = 0
    messages: int = 0
    turns: int = 0  # answers
    tasks: dict[str, int] = field(default_factory=dict)  # "" counts user messages without a task
    languages: dict[str, int] = field(default_factory=dict)
    images: int = 0  # as the samples mention them
    clips: int = 0
    image_files: int = 0  # different ones
    clip_files: int = 0
    box_answers: int = 0
    boxes: int = 0
    word_answers: int = 0
    words: int = 0
    learnable: Learnable = field(default_factory=Learnable)  # what training learns of them
    repeated_ids: int = 0
    bytes: int = 0  # of the sample files
    media_bytes: int = 0  # of the different media files

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Folders:
    """Whether a file exists, answered from one listing per folder where many files of it are asked for."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self._asked: Counter[str] = Counter()

    def __call__(self, path: str) -> bool:
        folder, name = os.path.split(path)
        names = self._names.get(folder)
        if names is None:
            self._asked[folder] += 1
            if self._asked[folder] <= LISTED_AFTER:
                return os.path.isfile(path)
            names = self._names[folder] = _list(folder)
        return name in names or os.path.isfile(path)  # a file system may not tell capital letters apart


def _list(folder: str) -> set[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def validate(
    paths: Iterable[str | os.PathLike[str]],
    *,
    deep: bool = False,
    on_mistake: Callable[[SampleError], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
    threads: int | None = None,
    media_root: str | os.PathLike[str] | None = None,
) -> Summary:
    """Checks sample files and says what is in them.

    ``on_mistake`` is called for each sample that breaks the format (its first mistake), in file order, and for each
    media file that is empty or, with ``deep``, cannot be decoded. ``on_progress`` is called with numbers of bytes read.
    A file that cannot be opened, or holds no samples, is a mistake too. ``threads``: how many decode (None: all cores).
    ``media_root``: a medium outside of this folder is a mistake (`weft.conversation.within`).
    """
    check = _Check(deep, on_mistake or (lambda _: None), threads, within(media_root, Folders()))
    try:
        for path in paths:
            check.file(os.fspath(path), on_progress or (lambda _: None))
        return check.finish()
    finally:
        check.close()


class _Check:
    def __init__(
        self, deep: bool, on_mistake: Callable[[SampleError], None], threads: int | None, exists: Callable[[str], bool]
    ) -> None:
        self.summary = Summary()
        self.tasks: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.ids: set[str] = set()
        self.media: dict[tuple[str, str], tuple[str, int]] = {}  # (kind, path) -> file and line that first name it
        self.report = on_mistake
        self.exists = exists
        self.probe = lru_cache(maxsize=1 << 16)(_image_size)
        self.deep = _Decoder(self._say, threads) if deep else None

    def _say(self, mistake: SampleError) -> None:
        self.summary.mistakes += 1
        self.report(mistake)

    def close(self) -> None:
        if self.deep is not None:
            self.deep.close()

    def file(self, path: str, on_progress: Callable[[int], None]) -> None:
        root, found = os.path.dirname(path), 0
        self.summary.files.append(path)
        try:
            for number, raw in iter_lines(path):
                found += 1
                on_progress(len(raw))
                self.summary.bytes += len(raw)
                try:
                    conversation = parse_line(
                        raw, where=path, line=number, root=root, probe=self.probe, exists=self.exists
                    )
                except SampleError as e:
                    self._say(e)
                    if found == 1 and is_foreign(raw):  # each further line would be a mistake that says nothing new
                        return
                    continue
                self._count(conversation, path, number)
                if self.deep is not None:
                    self.deep.sample(conversation, path, number)
        except SampleError as e:
            self._say(e)
            return
        if not found:
            self._say(SampleError("no samples in it: write one JSON object a line", file=path))

    def _count(self, conversation: Conversation, file: str, line: int) -> None:
        s = self.summary
        s.samples += 1
        s.messages += len(conversation.messages)
        if conversation.id is not None:
            s.repeated_ids += conversation.id in self.ids
            self.ids.add(conversation.id)
        for message in conversation.messages:
            task = ""
            for part in message.parts:
                kind = type(part)
                if kind is Image or kind is Audio:
                    self._count_media(part, file, line)  # type: ignore[arg-type]
                elif kind is Task:
                    task = part.name  # type: ignore[union-attr]
                    for key in ("language", "to"):
                        if key in part.fields:  # type: ignore[union-attr]
                            self.languages[part.fields[key] or "to predict"] += 1  # type: ignore[union-attr]
                elif kind is Box and message.role == "assistant":
                    s.box_answers += 1
                    s.boxes += len(part.boxes)  # type: ignore[union-attr]
                elif kind is Words:
                    s.word_answers += 1
                    s.words += len(part.words)  # type: ignore[union-attr]
            if message.role == "assistant":
                s.turns += 1
            elif message.role == "user":
                self.tasks[task] += 1
        s.learnable.add(conversation)

    def _count_media(self, part: Image | Audio, file: str, line: int) -> None:
        if isinstance(part, Image):
            kind = "image"
            self.summary.images += 1
        else:
            kind = "audio"
            self.summary.clips += 1
        if part.source.startswith("data:"):
            self.summary.media_bytes += len(part.source) * 3 // 4
        elif (kind, part.source) not in self.media:
            self.media[kind, part.source] = file, line

    def finish(self) -> Summary:
        s = self.summary
        sizes: dict[str, int] = {}
        for (kind, path), (file, line) in self.media.items():
            try:
                sizes[path] = os.stat(path).st_size
            except OSError as e:
                self._say(SampleError(f"cannot be read ({e.strerror}): {path!r}", file=file, line=line, field=kind))
                continue
            if not sizes[path] and self.deep is None:  # the deep check says so itself
                self._say(SampleError(f"is empty (0 bytes): {path!r}", file=file, line=line, field=kind))
        if self.deep is not None:
            self.deep.finish()
        kinds = Counter(kind for kind, _ in self.media)
        s.image_files, s.clip_files, s.media_bytes = kinds["image"], kinds["audio"], s.media_bytes + sum(sizes.values())
        s.tasks, s.languages = dict(self.tasks.most_common()), dict(self.languages.most_common())
        return s


class _Decoder:
    """Decodes every different picture and recording once, in threads (the decoders let go of Python's lock)."""

    def __init__(self, report: Callable[[SampleError], None], threads: int | None) -> None:
        self.report = report
        self.pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
        self.pending: dict[Future[float], tuple[str, str, int, str]] = {}  # -> source, file, line, field
        self.seconds: dict[str, float] = {}  # length of each clip that was decoded
        self.seen: set[str] = set()
        self.ends: dict[str, list[tuple[float, str, int, str]]] = defaultdict(list)  # clip -> last word's end, where

    def sample(self, conversation: Conversation, file: str, line: int) -> None:
        clips: list[str] = []
        for where, part in _fields(conversation):
            if isinstance(part, Image | Audio):
                kind = type(part).__name__.lower()
                # A data URL may be megabytes: what is remembered of it is a number.
                key = part.source if not part.source.startswith("data:") else f"data:{hash(part.source)}"
                if kind == "audio":
                    clips.append(key)
                if f"{kind}:{key}" not in self.seen:
                    self.seen.add(f"{kind}:{key}")
                    task = self.pool.submit(_decode, kind, part.source)
                    self.pending[task] = key, file, line, f"{where}.{kind}"
            elif isinstance(part, Words) and part.words:
                last = max(word.end for word in part.words)
                self.ends[clips[part.audio or 0]].append((last, file, line, where))
        while len(self.pending) > PENDING:
            self._collect(next(iter(self.pending)))

    def _collect(self, task: Future[float]) -> None:
        key, file, line, where = self.pending.pop(task)
        try:
            self.seconds[key] = task.result()
        except WeftError as e:
            self.report(SampleError(str(e), file=file, line=line, field=where))

    def finish(self) -> None:
        while self.pending:
            self._collect(next(iter(self.pending)))
        for clip, ends in self.ends.items():
            for last, file, line, where in ends:
                if clip in self.seconds and (problem := end_problem(last, self.seconds[clip])):
                    self.report(SampleError(problem, file=file, line=line, field=where))

    def close(self) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)


def end_problem(last: float, seconds: float) -> str | None:
    """What is wrong where the last word of a clip of ``seconds`` ends at ``last``, or None."""
    return f"a word ends at {last:g} s, its clip at {seconds:.3f} s" if last > seconds + LATE else None


def _fields(conversation: Conversation) -> Iterator[tuple[str, Any]]:
    for m, message in enumerate(conversation.messages):
        for i, part in enumerate(message.parts):
            yield f"messages[{m}].content[{i}]", part


def _decode(kind: str, source: str) -> float:
    """Decodes one item as training would; the length of a clip in seconds, 0 for a picture."""
    from weft.media import load_audio, load_image

    if kind == "image":
        load_image(source)
        return 0.0
    return len(load_audio(source, 16000)) / 16000


def _image_size(source: str) -> tuple[int, int]:
    from weft.media import image_size

    return image_size(source)
