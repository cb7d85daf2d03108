"""What readers of recordings with times share: segments, their words, and the samples that come of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from weft.data.converters.base import BadEntry, Job, Part, Sample, audio, sample, task, transcript

TIMED = ("transcribe", "segments")
_SPEAKER = re.compile(r"^\s*\[?\[SPEAKER_\d+\]\]?:? ?")  # what WhisperX's writers put before a segment


class Span(NamedTuple):
    """A word, or what else has a start and an end, in seconds of its recording."""

    start: float
    end: float
    text: str


class Segment(NamedTuple):
    """A stretch of a recording and what is said there; ``words`` where their times are known."""

    start: float
    end: float
    text: str
    words: Sequence[Span] = ()


def spoken(job: Job, name: str, clip: str, segments: Sequence[Segment], language: str | None) -> Iterator[Sample]:
    """The whole recording with its times: of words, or of segments whose words have none.

    With ``--task segments`` every segment as a clip of its own; its words keep their times, from the clip's start.
    Segments without text, and names of speakers that WhisperX wrote before one, are counted.
    """
    if named := sum(bool(_SPEAKER.match(s.text)) for s in segments):
        job.notes["speakers are not used"] += named
        segments = [s._replace(text=_SPEAKER.sub("", s.text)) for s in segments]
    said = [s for s in sorted(segments, key=lambda s: (s.start, s.end)) if s.text.strip() or s.words]
    if empty := len(segments) - len(said):
        job.notes["segments without text"] += empty
    if not said:
        raise BadEntry("holds no text with times", reason="no answer")
    if job.task != "segments":
        spans = [w for s in said for w in s.words or (Span(s.start, s.end, s.text.strip()),)]
        yield timed(name, clip, spans, language)
        return
    for number, s in enumerate(said):
        start, end = min([s.start, *(w.start for w in s.words)]), max([s.end, *(w.end for w in s.words)])
        cut, place = job.stretch(f"{name}-{number}", clip, start, end), f"{name}-{number}"
        start = start if cut != clip else 0.0
        if s.words:
            yield timed(place, cut, [w._replace(start=w.start - start, end=w.end - start) for w in s.words], language)
        else:
            yield transcript(place, cut, s.text.strip(), language)


def timed(name: str, clip: str, spans: Sequence[Span], language: str | None, kind: str = "transcribe") -> Sample:
    """A clip whose answer is words with times, whatever the words are (``kind``: speakers)."""
    words = [{"text": s.text.strip(), "start": round(s.start, 6), "end": round(s.end, 6)} for s in spans]
    fields = {} if language is None else {"language": language}
    asked: list[Part] = [audio(clip), task(kind, **fields, **({"timestamps": True} if kind == "transcribe" else {}))]
    return sample(name, asked, [{"type": "words", "words": words}])


def code(language: Any) -> str | None:
    """The code of a language that may be an English name (``English``: ``en``) or have a region (``zh-CN``: ``zh``)."""
    if not isinstance(language, str) or not language:
        return None
    first = re.split("[-_]", language)[0].lower()
    if len(first) <= 3:
        return first
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    return TO_LANGUAGE_CODE.get(language.lower(), language)
