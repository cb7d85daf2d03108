"""Checks sample files: every mistake with file, line and field, and a summary of what is in them.

The quick check reads every line, applies the whole sample format, makes sure that every media file is there and not
empty, and compares word times with the length that the header of their clip tells; image headers are read only where a
box needs the image's size. The deep check also decodes every picture and every recording as training would, and warns
of what is left out or guessed in that.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from weft.conversation import Conversation, SampleError, WeftError
from weft.conversation.grounding import end_problem
from weft.conversation.roots import within
from weft.conversation.samples import BOM, iter_lines, parse_line
from weft.data.counts import Counts, facts_of
from weft.data.quick import Facts, QuickLines
from weft.data.source import is_shards

LISTED_AFTER = 16  # questions about one folder before it is listed instead of asked file by file
PENDING = 256  # decodings under way or waiting, so that memory does not grow with the file


@dataclass
class Summary(Counts):
    """What is in the files that were checked. Samples with a mistake are counted in ``mistakes`` and nowhere else."""

    mistakes: int = 0
    warnings: int = 0
    image_files: int = 0  # different ones
    clip_files: int = 0
    repeated_ids: int = 0
    bytes: int = 0  # of the sample files
    media_bytes: int = 0  # of the different media files

    def as_dict(self) -> dict[str, Any]:
        counts = {"turns": sum(self.turns), "box_answers": len(self.boxes), "boxes": sum(self.boxes)}
        counts |= {"word_answers": len(self.words), "words": sum(self.words)}
        named = {"tasks": dict(self.tasks.most_common()), "languages": dict(self.languages.most_common())}
        return {**vars(self), **counts, **named, "learnable": asdict(self.learnable)}


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
    on_warning: Callable[[SampleError], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
    threads: int | None = None,
    media_root: str | os.PathLike[str] | None = None,
) -> Summary:
    """Checks sample files and says what is in them.

    ``on_mistake`` is called for each sample that breaks the format (its first mistake), in file order, and for each
    media file that is empty, that ends before its words do or, with ``deep``, that cannot be decoded; ``on_warning``
    for each of which something is left out or guessed, and for each box without area among others. ``on_progress`` is
    called with numbers of bytes read. A file that cannot be opened, or holds no samples, is a mistake too. ``threads``:
    how many decode (None: all cores). ``media_root``: a medium outside of this folder is a mistake
    (`weft.conversation.roots.within`).
    """
    check = _Check(deep, on_mistake or (lambda _: None), on_warning or (lambda _: None), threads, media_root)
    try:
        for path in paths:
            check.file(os.fspath(path), on_progress or (lambda _: None))
        return check.finish()
    finally:
        check.pool.shutdown(wait=True, cancel_futures=True)


class _Check:
    """One check. Every different picture and recording is looked at once, in threads: decoders let go of Python's lock.
    A clip's words are compared with its length at the end."""

    def __init__(
        self,
        deep: bool,
        on_mistake: Callable[[SampleError], None],
        on_warning: Callable[[SampleError], None],
        threads: int | None,
        media_root: str | os.PathLike[str] | None,
    ) -> None:
        self.summary = Summary()
        self.ids: set[str] = set()
        self.media: dict[tuple[str, str], tuple[str, int]] = {}  # (kind, path) -> file and line that first name it
        self.known: dict[str, set[str]] = {"image": set(), "audio": set()}  # the paths among them
        self.stored: set[tuple[str, Any]] = set()  # media that lie in shards
        self.deep, self.on_mistake, self.on_warning = deep, on_mistake, on_warning
        self.exists = within(media_root, Folders())
        self.probe = lru_cache(maxsize=1 << 16)(_image_size)
        self.pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
        self.pending: dict[Future[_Found], tuple[str, str, str, int, str]] = {}  # -> kind, source, file, line, field
        self.seen: set[tuple[str, str]] = set()
        self.clips: dict[str, _Found] = {}  # those that were looked at
        self.heard: set[str] = set()  # clips among them
        self.ends: list[tuple[str, float, str, int, int, int]] = []  # clip, end of its last word, where it is

    def _say(self, problem: str, file: str, line: int | None = None, field: str | None = None) -> None:
        self._report(SampleError(problem, file=file, line=line, field=field))

    def _report(self, mistake: SampleError) -> None:
        self.summary.mistakes += 1
        self.on_mistake(mistake)

    def file(self, path: str, on_progress: Callable[[int], None]) -> None:
        if is_shards(path):
            return self._shards(path)
        root, found = os.path.dirname(path), 0
        quick = QuickLines(root, self.exists)
        self.summary.files.append(path)
        try:
            for number, raw in iter_lines(path):
                found, size = found + 1, len(raw)
                on_progress(size)
                self.summary.bytes += size
                try:
                    sample = quick(raw) or parse_line(
                        raw, where=path, line=number, root=root, probe=self.probe, exists=self.exists
                    )
                except SampleError as e:
                    self._report(e)
                    if found == 1 and (
                        e.line is None or _is_foreign(raw)
                    ):  # each further line would be a mistake that says nothing new
                        return
                    continue
                self._add(sample, path, number)
        except SampleError as e:
            self._report(e)
            return
        if not found:
            self._say("no samples in it: write one JSON object a line", path)

    def _shards(self, path: str) -> None:
        from weft.data.shard_reading import samples_of
        from weft.data.shards import Shards

        self.summary.files.append(path)
        try:
            source = Shards(path)
            self.summary.bytes += source.bytes()
            for row, found in enumerate(samples_of(source)):
                if isinstance(found, SampleError):
                    self._report(found)
                else:
                    file, _, line = source.where(row).rpartition(":")
                    self._add(found, file, int(line))
        except WeftError as e:
            self._say(str(e).removeprefix(f"{path}: "), path)

    def _add(self, sample: Conversation | Facts, file: str, line: int) -> None:
        facts = facts_of(sample)
        self.summary.add(facts)
        if facts.id is not None:
            self.summary.repeated_ids += facts.id in self.ids
            self.ids.add(facts.id)
        for m, i, thin in facts.thin:
            field = f"messages[{m}].content[{i}].boxes[{thin}]"
            self._warn(["has no area: no answer can overlap with it"], file, line, field)
        new = self.deep
        for source, *_ in facts.images:
            if source not in self.known["image"]:
                self._named("image", source, file, line)
        known = self.known["audio"]
        clips = [source if source in known else self._named("audio", source, file, line) for source, *_ in facts.clips]
        for number, end, m, i in facts.ends:
            self.ends.append((clips[number], end, file, line, m, i))
            new = new or clips[number] not in self.heard
        if new:
            self._look_at(facts, clips, file, line)

    def _look_at(self, facts: Facts, clips: list[str], file: str, line: int) -> None:
        """Begins to look at media that nobody has looked at: all, or clips whose length their words hang on."""
        timed = {number for number, *_ in facts.ends}
        media = [
            (m, i, "audio", source, clips[number])
            for number, (source, m, i) in enumerate(facts.clips)
            if self.deep or number in timed
        ]
        media += [(m, i, "image", source, _key(source)) for source, m, i in facts.images if self.deep]
        for m, i, kind, source, key in sorted(media, key=lambda medium: medium[:2]):
            if (kind, key) not in self.seen:
                self.seen.add((kind, key))
                if kind == "audio":
                    self.heard.add(key)
                task = self.pool.submit(_look, kind, source, self.deep)
                self.pending[task] = kind, key, file, line, f"messages[{m}].content[{i}].{kind}"
        while len(self.pending) > PENDING:
            self._collect(next(iter(self.pending)))

    def _named(self, kind: str, source: str, file: str, line: int) -> str:
        """What is remembered of a medium."""
        if not isinstance(source, str):
            self.stored.add((kind, source))
        elif source.startswith("data:"):
            self.summary.media_bytes += len(source) * 3 // 4
        else:
            self.known[kind].add(source)
            self.media.setdefault((kind, source), (file, line))
        return _key(source)

    def _collect(self, task: Future[_Found]) -> None:
        kind, key, file, line, where = self.pending.pop(task)
        try:
            found = task.result()
        except WeftError as e:
            self._say(str(e), file, line, where)
            return
        if kind == "audio":
            self.clips[key] = found
        else:
            self._warn(found[1], file, line, where)

    def _warn(self, notes: Iterable[str], file: str, line: int, field: str) -> None:
        for note in notes:
            self.summary.warnings += 1
            self.on_warning(SampleError(note, file=file, line=line, field=field))

    def finish(self) -> Summary:
        s = self.summary
        sizes: dict[str, int] = {}
        for (kind, path), (file, line) in self.media.items():
            try:
                sizes[path] = os.stat(path).st_size
            except OSError as e:
                self._say(f"cannot be read ({e.strerror}): {path!r}", file, line, kind)
                continue
            if not sizes[path] and (kind, path) not in self.seen:  # who looks into it says so
                self._say(f"is empty (0 bytes): {path!r}", file, line, kind)
        while self.pending:
            self._collect(next(iter(self.pending)))
        for clip, end, file, line, m, i in self.ends:
            seconds, notes = self.clips.get(clip, (None, ()))
            problem = None if seconds is None else end_problem(end, seconds)
            if problem or notes:
                where = f"messages[{m}].content[{i}]"
                if problem:
                    self._say(problem, file, line, where)
                self._warn(notes, file, line, where)
                self.clips[clip] = seconds, ()  # said once
        kinds = Counter(kind for found in (self.media, self.stored) for kind, _ in found)
        s.image_files, s.clip_files, s.media_bytes = kinds["image"], kinds["audio"], s.media_bytes + sum(sizes.values())
        return s


def _key(source: Any) -> Any:
    """A path, or of what may be megabytes a number; a medium in a shard itself."""
    return f"data:{hash(source)}" if isinstance(source, str) and source.startswith("data:") else source


def _is_foreign(line: bytes) -> bool:
    """Whether a first line shows that the whole file is something else: a document, a table, no text."""
    line = line.removeprefix(BOM).strip()
    return line == b"{" or not line.startswith(b"{")


_Found = tuple[float | None, tuple[str, ...]]
"""A clip's seconds where they are known, and what is left out or guessed in reading the file."""


def _look(kind: str, source: str, deep: bool) -> _Found:
    """Decodes one item as training would, or reads of a clip what its header says."""
    from weft.media import audio_seconds, load_audio, load_image
    from weft.media.notes import audio_notes, image_notes

    if kind == "audio":
        return (len(load_audio(source, 16000)) / 16000 if deep else audio_seconds(source)), audio_notes(source)
    load_image(source)
    return None, image_notes(source)


def _image_size(source: str) -> tuple[int, int]:
    from weft.media import image_size

    return image_size(source)
