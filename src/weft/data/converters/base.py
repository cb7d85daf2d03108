"""What every reader of another project's layout shares: the job, boxes and paths, and entries that do not fit.

A reader is a function ``read(job) -> Iterator[Found | BadEntry]``. It yields samples as JSON-ready data whose media
paths are those of this machine; `weft.data.converters.convert` checks each against the sample format and writes it.
What a reader cannot express as a sample is yielded as a `BadEntry`, never dropped.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import soundfile

from weft.conversation import SampleError, WeftError
from weft.data.converters.jsonfile import Entry, unread
from weft.data.validate import Folders

Sample = dict[str, Any]
Part = dict[str, Any]
T = TypeVar("T")

NO_ANSWER = "is empty, so there is no answer"
EMPTY_FILE = "media file is empty"
SOUNDS: tuple[str, ...] = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".mp4", ".webm", ".mkv", ".sph")
SOUNDS += (".oga", ".m4b", ".mka", ".mov", ".3gp", ".amr", ".aif", ".aiff", ".caf", ".au", ".w64")
ENDINGS = (*SOUNDS, *(ending.upper() for ending in SOUNDS))  # recorders write large letters
WHOLE = 0.05  # seconds by which the ends of a stretch may miss those of its recording, as annotations round
ASPECT = 0.02  # relative difference between the shapes of a picture and of what was annotated that rounding explains


class BadEntry(SampleError):
    """An entry that is no sample: the sentence says where it stands, ``reason`` is what the summary counts it as."""

    def __init__(self, problem: str, *, reason: str = "", entry: Entry | None = None, field: str | None = None):
        file, line, name = (entry.file, entry.line, entry.name) if entry else (None, None, None)
        super().__init__(problem, file=file, line=line, field=".".join(x for x in (name, field) if x) or None)
        self.reason, self.inner = reason or "does not fit its layout", field

    def at(self, entry: Entry) -> BadEntry:
        """The same, with its place."""
        return BadEntry(self.problem, reason=self.reason, entry=entry, field=self.inner)


class Found(NamedTuple):
    """A sample and the entry it was made from."""

    sample: Sample
    entry: Entry


Read = Iterator[Found | BadEntry]


@dataclass
class Job:
    """What is to be read and how. Fields a layout has no use for stay at their defaults (`Converter.takes`)."""

    path: Path
    out: Path
    media: Path | None = None  # folder of the pictures or recordings; None: where the annotations are
    annotations: Path | None = None  # the second file, where a layout has two
    task: str | None = None
    split: str | None = None
    language: str | None = None
    to: str | None = None
    tier: str | None = None  # of a timeline that has several
    answers: str = "majority"
    clean: bool = False  # the original's clean-up of text
    clip_boxes: bool = False
    max_area: float | None = None  # pixels
    notes: Counter[str] = field(default_factory=Counter)  # what was read and not used, for the report

    def __post_init__(self) -> None:
        self.kept: set[str] = set()  # files that were written beside the output
        self.exists = Folders()
        self.size = lru_cache(maxsize=1 << 16)(_size)
        self.seconds = lru_cache(maxsize=1 << 16)(_seconds)
        self.sound = lru_cache(maxsize=1)(_sound)  # of the recording whose stretches are being taken

    @property
    def folder(self) -> Path:
        """Where relative media paths start from."""
        return self.media or (self.path if self.path.is_dir() else self.path.parent)

    def find(self, *names: str, what: str = "file") -> str:
        """The first of these names (relative to the media folder, or absolute) that is a file.

        An address on the network stands for the file of that name in the media folder, where one is given.
        """
        for name in names:
            if not isinstance(name, str) or not name:
                raise BadEntry(f"must be the path of a {what}, this is {name!r}", field=what)
            if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", name):
                if self.media is None:
                    raise BadEntry(
                        f"{name!r} is on the network: download it and name the folder with --media",
                        reason="media on the network",
                        field=what,
                    )
                name = re.split(r"[?#]", name)[0].rsplit("/", 1)[-1]
            path = os.path.join(self.folder, name)
            if "\0" not in path and self.exists(path):
                if not os.path.getsize(path):
                    raise BadEntry(f"is empty (0 bytes): {path!r}", reason=EMPTY_FILE, field=what)
                return path
        raise BadEntry(
            f"no such file: {names[0]!r} (looked in {self.folder}; --media names another folder)",
            reason="media file is missing",
            field=what,
        )

    def files(self, *patterns: str) -> Iterator[Entry]:
        """PATH, or all files of these patterns below it, an `Entry` each; a folder without any is an error."""
        if not self.path.is_dir():
            return iter([Entry(self.path, str(self.path))])
        found = sorted({file for pattern in patterns for file in self.path.rglob(pattern) if file.is_file()})
        if not found:
            raise WeftError(f"{self.path}: holds no file {' or '.join(patterns)}: name a folder above them")
        return (Entry(file, str(file)) for file in found)

    def inside(self, file: Path) -> Path:
        """Where a file of PATH lies below it."""
        return file.relative_to(self.path if self.path.is_dir() else self.path.parent)

    def recording(self, *names: str) -> str:
        """The sound that an annotation of one of these names belongs to: the name itself, or with any ending of sound.

        As `find`, below the folder of the recordings.
        """
        return self.find(*(n + ending for n in names for ending in ("", *ENDINGS)), what="audio")

    def keep(self, name: str, data: bytes) -> str:
        """Writes a medium that lies inside a file of the layout into a folder beside the output; gives its path.

        ``samples.jsonl``: ``samples_media/<name>``; a name that was given before gets a number. No name leads out.
        """
        place = self._place(name)
        place.write_bytes(data)
        return str(place)

    def stretch(self, name: str, clip: str, start: float, end: float | None, channel: int | None = None) -> str:
        """A recording from ``start`` to ``end`` seconds (None: its own end), and of all channels or one.

        The recording itself where that is all of it; otherwise a FLAC of 16 bits at its rate, written as by `keep`.
        """
        seconds = self.seconds(clip)
        if channel is None and start <= WHOLE and (end is None or seconds is not None and end >= seconds - WHOLE):
            return clip
        wave, rate = self.sound(clip, channel)
        first, last = round(start * rate), len(wave) if end is None else round(end * rate)
        if not 0 <= first < last <= len(wave) + WHOLE * rate:
            length = f"{start:g} to {last / rate:g} s, and {clip} is {len(wave) / rate:.3f} s long"
            raise BadEntry(f"is said to be at {length}", reason="stretch outside its recording", field="audio")
        place = self._place(f"{name}.flac")
        soundfile.write(place, wave[first:last], rate, subtype="PCM_16")
        return str(place)

    def _place(self, name: str) -> Path:
        inside = os.path.normpath(name.replace("\\", "/"))
        stem, ending = os.path.splitext(os.path.basename(inside) if inside.startswith(("..", "/")) else inside)
        found, number = f"{stem}{ending}", 1
        while found in self.kept:
            number += 1
            found = f"{stem}-{number}{ending}"
        self.kept.add(found)
        place = self.out.parent / f"{self.out.stem}_media" / found
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def fractions(self, box: Sequence[float], size: tuple[float, float], image: str) -> list[float]:
        """``left, top, right, bottom`` in pixels of a picture of ``size`` (as annotated) in fractions of ``image``."""
        width, height = size
        if not (width > 0 and height > 0):
            raise BadEntry(f"a picture of {width:g} x {height:g} pixels has no place for boxes", field="width")
        seen_width, seen_height = self.size(image)
        if abs(seen_width * height / (seen_height * width) - 1) > ASPECT:
            raise BadEntry(
                f"was annotated at {width:g} x {height:g} pixels, and {image} is {seen_width} x {seen_height} as a "
                "person sees it: its boxes belong to another copy of the picture",
                reason="picture has another shape than its annotation",
            )
        inside = [box[0] / width, box[1] / height, box[2] / width, box[3] / height]
        return self.clipped(inside, (width, height))

    def clipped(self, box: list[float], size: tuple[float, float]) -> list[float]:
        """With ``clip_boxes``, what of a box lies inside its picture; otherwise the box as it is."""
        if not self.clip_boxes:
            return box
        cut = [min(max(x, 0.0), 1.0) for x in box]
        if cut[0] >= cut[2] and box[0] < box[2] or cut[1] >= cut[3] and box[1] < box[3]:
            raise BadEntry("its box lies wholly outside its picture", reason="box outside its picture")
        if any(abs(a - b) * side > 0.5 for a, b, side in zip(box, cut, (*size, *size), strict=True)):
            self.notes["boxes cut at the edge of their picture"] += 1
        return cut

    def unused(self, entry: Entry) -> None:
        """Counts the keys of an entry, at any depth, that its reader had no use for."""
        for path in unread(entry.value, entry.inside):
            self.notes[f'key "{path}" is not used'] += 1

    def each(self, found: Iterable[Entry], make: Callable[[Entry], Iterable[Sample]]) -> Read:
        """``make(entry)`` of every entry; what it raises becomes a `BadEntry` with the place."""
        for entry in found:
            if isinstance(entry.value, SampleError):
                problem = entry.value.problem
                reason = getattr(entry.value, "reason", "is not JSON" if "JSON" in problem else "is not UTF-8")
                yield BadEntry(problem, reason=reason, entry=entry)
                continue
            made, bad = list[Found](), None
            try:
                for sample in make(entry):
                    made.append(Found(sample, entry))
            except BadEntry as e:
                bad = e.at(entry)
            except SampleError as e:
                bad = BadEntry(e.problem, entry=entry, field=e.field)
            except WeftError as e:
                bad = BadEntry(str(e), reason="media file cannot be read", entry=entry)
            if made:
                self.unused(entry)
            yield from made
            if bad is not None:
                yield bad

    def pairs(
        self, found: Iterable[Entry], make: Callable[[Any], tuple[str, T]], *, count: bool = True
    ) -> Iterator[tuple[str, T]]:
        """What a second file holds, by id; a mistake in it ends the conversion: no sample can be trusted without it.

        ``count``: whether keys that ``make`` has no use for are counted; not where it hands the whole on.
        """
        for entry in found:
            if isinstance(entry.value, SampleError):
                raise BadEntry(entry.value.problem, entry=entry)
            try:
                yield make(entry.value)
            except BadEntry as e:
                raise e.at(entry) from None
            if count:
                self.unused(entry)

    def table(self, found: Iterable[Entry], make: Callable[[Any], tuple[str, T]]) -> dict[str, T]:
        """`pairs`, one for each id."""
        return dict(self.pairs(found, make))

    def groups(self, found: Iterable[Entry], make: Callable[[Any], tuple[str, T]]) -> dict[str, list[T]]:
        """`pairs`, several for each id, in their order."""
        held: dict[str, list[T]] = defaultdict(list)
        for key, value in self.pairs(found, make):
            held[key].append(value)
        return held


# ------------------------------------------------------------------------------------------------ fields of entries


def get(entry: Any, key: str, kind: type | tuple[type, ...] = str) -> Any:
    """``entry[key]``, of the kind that is said. Numbers that are written as strings stay strings."""
    if not isinstance(entry, dict):
        raise BadEntry(f"must be an object, this is {_kind(entry)}")
    if key not in entry:
        raise BadEntry("is missing", field=key)
    value = entry[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = " or ".join(_NAMES.get(k, k.__name__) for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise BadEntry(f"must be {wanted}, this is {_kind(value)}", field=key)
    return value


def answer(entry: Any, key: str) -> str:
    """What a question is answered with; an empty cell is no answer."""
    if isinstance(entry, dict) and key in entry and entry[key] in (None, ""):
        raise BadEntry(NO_ANSWER, reason="no answer", field=key)
    found: str = get(entry, key)
    return found


def identity(entry: Any, key: str) -> str:
    """An id, written as a number or a string."""
    return str(get(entry, key, (int, str)))


def numbers(value: Any, count: int, key: str) -> list[float]:
    if not isinstance(value, list) or len(value) != count:
        raise BadEntry(f"must be {count} numbers, this is {str(value)[:60]}", field=key)
    for x in value:
        if isinstance(x, bool) or not isinstance(x, int | float) or not isfinite(x):
            raise BadEntry(f"must be {count} numbers, this is {str(value)[:60]}", field=key)
    return [float(x) for x in value]


def corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    """``x, y, width, height`` as ``left, top, right, bottom``."""
    return box[0], box[1], box[0] + box[2], box[1] + box[3]


_NAMES: dict[type, str] = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}


def _kind(value: Any) -> str:
    return "null" if value is None else "true or false" if isinstance(value, bool) else _NAMES.get(type(value), "?")


def _size(image: str) -> tuple[int, int]:
    from weft.media import image_size

    return image_size(image)


def _seconds(clip: str) -> float | None:
    from weft.media import audio_seconds

    return audio_seconds(clip)


def _sound(clip: str, channel: int | None) -> tuple[Any, int]:
    """A recording at its own rate: all channels averaged, on the clock that weft hears it by, or one of them."""
    from weft.media import load_audio
    from weft.media.notes import audio_rate

    if channel is None:
        rate = audio_rate(clip)
        return load_audio(clip, rate), rate
    wave, rate = soundfile.read(clip, always_2d=True, dtype="float32")
    if channel >= wave.shape[1]:
        raise BadEntry(f"there is no channel {channel} in {clip}, which has {wave.shape[1]}", field="channel")
    return wave[:, channel], rate


def xml(file: str | Path) -> ET.Element:
    """The root of an XML document."""
    try:
        return ET.parse(file).getroot()
    except OSError as e:
        raise BadEntry(f"{file} cannot be read ({e.strerror})", reason="annotation is missing") from None
    except (ET.ParseError, ValueError) as e:
        raise BadEntry(f"{file} is no XML ({e})", reason="annotation is damaged") from None


# ------------------------------------------------------------------------------------------------ parts of samples


def text(words: str) -> Part:
    return {"type": "text", "text": words}


def image(path: str) -> Part:
    return {"type": "image", "image": path}


def audio(path: str) -> Part:
    return {"type": "audio", "audio": path}


def task(name: str, **fields: Any) -> Part:
    return {"type": "task", "task": name, **fields}


def boxes(found: Sequence[Sequence[float]], label: str | None = None) -> Part:
    part: Part = {"type": "box", "boxes": [list(b) for b in found]}
    return part if label is None else part | {"label": label}


def sample(name: str | None, asked: Sequence[Part], answer: str | Sequence[Part] | None) -> Sample:
    """One question and its answer; None: a request without one."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": list(asked)}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer if isinstance(answer, str) else list(answer)})
    return {"messages": messages} if name is None else {"id": name, "messages": messages}


def transcript(name: str | None, clip: str, said: str | None, language: str | None, **fields: Any) -> Sample:
    """What is said in a clip; None: a request."""
    asked = task("transcribe", **({} if language is None else {"language": language}), **fields)
    return sample(name, [audio(clip), asked], said)


# ------------------------------------------------------------------------------------------------ the originals' text

_BLIP = re.compile(r"([.!\"()*#:;~])")


def blip_caption(words: str, max_words: int = 50) -> str:
    """The text clean-up of MiniGPT-4's training data (minigpt4/processors/blip_processors.py at d94738a).

    Lower case, ``.!"()*#:;~`` to spaces, runs of blanks to one, no more than ``max_words`` words.
    """
    words = re.sub(r"\s{2,}", " ", _BLIP.sub(" ", words.lower())).rstrip("\n").strip(" ")
    return " ".join(words.split(" ")[:max_words])
