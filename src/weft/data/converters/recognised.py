"""What recognisers of speech write: whisper, faster-whisper, WhisperX, whisper.cpp; and subtitles.

Sources: whisper/transcribe.py and utils.py of openai/whisper (20250625), faster_whisper/transcribe.py of
SYSTRAN/faster-whisper (1.2), whisperx/schema.py and alignment.py of m-bain/whisperX (3.8), examples/cli/cli.cpp of
ggml-org/whisper.cpp (its output_json); the verbose_json of OpenAI's API; the W3C's recommendation of WebVTT. SubRip has
no specification: what its readers share is read here.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from weft.data.converters.base import SOUNDS, BadEntry, Job, Read, Sample, get
from weft.data.converters.jsonfile import Entry, document
from weft.data.converters.tables import table
from weft.data.converters.timed import Segment, Span, code, spoken

_NUMBER = (int, float)
_TIME = r"(?:(\d+):)?(\d+):(\d+)[.,](\d{1,3})"
_CUE = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}")
_NEARLY = re.compile(r"\d+:\d+[.,:\d]*\s*-+>")  # a time line that is none
_TAG = re.compile(r"</?(?:i|b|u|s|c|v|lang|ruby|rt|font)(?:[.\s][^>]*)?>|\{\\[^}]*\}", re.IGNORECASE)
_INNER = re.compile(r"<(?:\d+:)?\d+:\d+\.\d+>")  # a word of a cue begins here; where it ends is not said
_APART = ("WEBVTT", "NOTE", "STYLE", "REGION")


def whisper(job: Job) -> Read:
    """Transcripts of Whisper's relatives as JSON; verified on files of the tools' own writers.

    PATH is a file or a folder of them; the recording has its name (``talk.json`` or ``talk.wav.json``: ``talk.wav``).
    ``{"segments": [{"start", "end", "text", "words": [{"word", "start", "end"}]}], "language"}`` (whisper, WhisperX,
    OpenAI's verbose_json, whose words stand beside the segments), a list of segments (faster-whisper's, dumped), or
    whisper.cpp's ``{"transcription": [{"offsets": {"from", "to"}, "text"}]}`` in milliseconds. WhisperX gives no times
    to words that it could not align (2014): their segment is one span, and is counted.
    """

    def make(e: Entry) -> Iterator[Sample]:
        doc, file = e.value, Path(e.file)
        said = doc if isinstance(doc, dict) else {"segments": doc}
        language = said.get("language")
        if "transcription" in said:
            language = get(said["result"], "language") if "result" in said else None
            found = [_cpp(s) for s in get(said, "transcription", list)]
        elif said.get("words") and not any("words" in s for s in said.get("segments") or []):
            words = [_word(w) for w in get(said, "words", list)]
            found = [Segment(words[0].start, words[-1].end, said.get("text") or "", words)]
        else:
            found = [_segment(job, s) for s in get(said, "segments", list)]
        name, clip, _ = _named(job, file)
        yield from spoken(job, name, clip, found, job.language or code(language))

    yield from job.each((document(e.value) for e in job.files("*.json")), make)


def _segment(job: Job, s: Any) -> Segment:
    start, end, said = get(s, "start", _NUMBER), get(s, "end", _NUMBER), get(s, "text")
    words = s.get("words") or []
    if any("start" not in w or "end" not in w for w in words):
        job.notes["segments with a word that has no times: one span each"] += 1
        words = []
    return Segment(start, end, said, [_word(w) for w in words if str(w.get("word")).strip()])


def _word(w: Any) -> Span:
    return Span(get(w, "start", _NUMBER), get(w, "end", _NUMBER), get(w, "word"))


def _cpp(s: Any) -> Segment:
    times = get(s, "offsets", dict)
    return Segment(get(times, "from", _NUMBER) / 1000, get(times, "to", _NUMBER) / 1000, get(s, "text"))


def _named(job: Job, file: Path) -> tuple[str, str, str | None]:
    """The name of a transcript, its recording, and the language of a name such as ``talk.en.srt``, which says ``talk``.

    ``talk.wav.srt`` says ``talk.wav``.
    """
    inside = str(job.inside(file).with_suffix(""))
    short = re.fullmatch(r"(.+)\.([a-z]{2,3})(?:-\w+)?", inside)
    clip = job.recording(inside, *([short[1]] if short else []))
    return inside, clip, short[2] if short and not inside.endswith(SOUNDS) else None


def subtitles(job: Job) -> Read:
    """SubRip (.srt), WebVTT (.vtt), Whisper's .tsv; verified on files of Whisper's writer and of two libraries'.

    PATH is a file or a folder of .srt and .vtt, of which one of each name is read and the others are counted; the
    recording has its name (``talk.srt``, ``talk.en.srt``: ``talk.wav``). Marks (``<i>``, ``<v Speaker>``,
    ``{\\an8}``) are taken out, in WebVTT ``&amp;`` and the like read; lines of a cue are joined by a blank. Times of
    words inside a cue, which say where they begin alone, are counted. What is no cue, no comment and no continuation
    of one is a bad entry. So are pieces of a stream (``X-TIMESTAMP-MAP``), whose clock is not that of a recording,
    and what Whisper writes with ``--highlight_words``: every text once for each of its words.
    """

    def make(e: Entry) -> Iterator[Sample]:
        file = Path(e.file)
        if file.suffix == ".vtt" and file != job.path and file.with_suffix(".srt").is_file():
            job.notes["files .vtt beside a .srt of their name are not used"] += 1
            return
        try:
            whole = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise BadEntry("is not UTF-8: save the file as UTF-8", reason="is not UTF-8") from None
        is_vtt = whole.startswith("WEBVTT")
        if "X-TIMESTAMP-MAP" in whole[:1000]:
            raise BadEntry("is a piece of a stream (X-TIMESTAMP-MAP): its times are not those of a recording")
        name, clip, language = _named(job, file)
        if is_vtt and (said := re.search(r"^Language: *(\w+)", whole.split("\n\n")[0], re.MULTILINE)):
            language = said[1]
        cues = list(_milliseconds(file) if file.suffix == ".tsv" else _cues(job, whole, is_vtt))
        if _repeats(cues, whole):
            problem = "repeats its text to underline each word: write it without --highlight_words, or take the JSON"
            raise BadEntry(problem, reason="repeated text")
        yield from spoken(job, name, clip, cues, job.language or language)

    yield from job.each(job.files("*.srt", "*.vtt"), make)


def _milliseconds(file: Path) -> Iterator[Segment]:
    """What Whisper writes as .tsv: start, end, text."""
    for row in table(file):
        if isinstance(row.value, Exception):
            raise row.value
        try:
            start, end = (int(get(row.value, key)) / 1000 for key in ("start", "end"))
        except ValueError:
            raise BadEntry(f"line {row.line}: start and end are whole milliseconds") from None
        yield Segment(start, end, get(row.value, "text"))


def _cues(job: Job, whole: str, is_vtt: bool) -> Iterator[Segment]:
    held: Segment | None = None
    for block in re.split(r"\n\s*\n", whole.strip()):
        lines = block.strip("\n").split("\n")
        times = next((m for line in lines[:2] if (m := _CUE.match(line))), None)
        said = lines[1 if times and _CUE.match(lines[0]) else 2 :] if times else lines
        if wrong := next((line for line in said if _NEARLY.search(line)), None):
            raise BadEntry(f"{wrong[:60]!r} is no line of times (00:00:01,000 --> 00:00:02,000)", reason="damaged cue")
        if is_vtt and not times and lines[0].startswith(_APART):
            continue
        text = " ".join(line.strip() for line in said)
        if n := len(_INNER.findall(text)):
            job.notes["times inside cues are not used"] += n
        if n := len(re.findall(r"<v[.\s]", text)):
            job.notes["speakers are not used"] += n
        text = _TAG.sub("", _INNER.sub("", text))
        text = html.unescape(text) if is_vtt else text
        if times:
            if held:
                yield held
            held = Segment(_seconds(times.groups()[:4]), _seconds(times.groups()[4:]), text)
        elif held is None or is_vtt:
            raise BadEntry(f"{block[:60]!r} belongs to no cue", reason="damaged cue")
        elif not block.strip().isdigit():
            held = held._replace(text=f"{held.text} {text}")  # SubRip's readers take a blank line for one of the text
    if held:
        yield held


def _repeats(cues: list[Segment], whole: str) -> bool:
    return "<u>" in whole and any(a.text == b.text and b.start <= a.end for a, b in pairwise(cues))


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, rest = parts
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0) + int((rest or "0").ljust(3, "0")) / 1000
