"""Times in lines and tiers: CTM, STM and RTTM of NIST, ELAN, Audacity's labels.

Sources: sclite's manual, "ctm" and "stm" (NIST SCTK); the RT-09 evaluation plan, appendix A (RTTM); ELAN Annotation
Format 3.0 (its schema EAFv3.0.xsd); Audacity's manual, "Importing and Exporting Labels".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from weft.data.converters.base import BadEntry, Job, Read, Sample, xml
from weft.data.converters.jsonfile import Entry, lines
from weft.data.converters.timed import Segment, Span, spoken, timed

Fields = list[tuple[int, list[str]]]  # the number of a line, and what stands in it
SILENCE = ("<eps>", "sil", "<sil>", "SIL")
_LABEL = re.compile(r"^<[^<>]*>\s+")


def _by_recording(job: Job, pattern: str, least: int, place: int, parts: int = -1) -> Iterator[Entry]:
    """The lines of each recording, whose name stands at ``place``; ``parts``: the last one may hold blanks."""
    for file in job.files(pattern):
        held: dict[str, Fields] = {}
        for line in lines(file.value):
            if isinstance(line.value, Exception):
                yield line
            elif not line.value.startswith(";;"):
                found = line.value.split(None, parts)
                if len(found) < least:
                    yield line._replace(value=BadEntry(f"has {len(found)} fields, and needs {least}"))
                else:
                    held.setdefault(found[place], []).append((line.line or 0, found))
        yield from (Entry(rows, file.file, line=rows[0][0], name=name) for name, rows in held.items())


def _number(said: str, line: int) -> float:
    try:
        return float(said.replace(",", "."))
    except ValueError:
        raise BadEntry(f"line {line}: a time is a number of seconds, this is {said!r}") from None


def ctm(job: Job) -> Read:
    """Word times as NIST's CTM; verified on files of meeteval.

    Lines of recording, channel, start, duration, word and more that is not used; ``;;`` begins a comment. Words of both
    channels are merged by time, for weft hears all channels. Silence (``<eps>``) is passed over; alternatives
    (``<ALT_BEGIN>``) are a bad entry.
    """

    def make(e: Entry) -> Iterator[Sample]:
        words = []
        for line, (_, _, start, length, word, *_) in e.value:
            if word.startswith("<ALT"):
                raise BadEntry(f"line {line}: has alternatives, and weft has one text", reason="alternatives")
            begin = _number(start, line)
            words += [] if word in SILENCE else [Span(begin, begin + _number(length, line), word)]
        words.sort()
        whole = [Segment(words[0].start, words[-1].end, "", words)] if words else []
        yield from spoken(job, e.name or "", job.recording(e.name or ""), whole, job.language)

    yield from job.each(_by_recording(job, "*.ctm", 5, 0), make)


def stm(job: Job) -> Read:
    """Segments as NIST's STM; verified on files of meeteval.

    Lines of recording, channel, speaker, start, end, ``<label>`` (which may be missing) and text; ``;;`` begins a
    comment. Segments that scoring passes over (``ignore_time_segment_in_scoring``) have no text, and are counted.
    """

    def make(e: Entry) -> Iterator[Sample]:
        found = []
        for line, (_, _, _, start, end, *rest) in e.value:
            said = _LABEL.sub("", "".join(rest) + " ").strip()
            if said.lower() in ("ignore_time_segment_in_scoring", "inter_segment_gap"):
                said = ""
            found.append(Segment(_number(start, line), _number(end, line), said))
        yield from spoken(job, e.name or "", job.recording(e.name or ""), found, job.language)

    yield from job.each(_by_recording(job, "*.stm", 5, 0, 5), make)


def rttm(job: Job) -> Read:
    """Who speaks when, as NIST's RTTM; verified on files of pyannote.

    ``SPEAKER`` lines become an answer of the task ``speaker``: the name of each speaker, with the times of the turn.
    ``LEXEME`` lines are words: ``--task transcribe``. Lines of other types are counted.
    """
    wanted = job.task or "speaker"
    kind, place = ("LEXEME", 5) if wanted == "transcribe" else ("SPEAKER", 7)

    def make(e: Entry) -> Iterator[Sample]:
        spans = []
        for line, found in e.value:
            if found[0] != kind:
                job.notes[f"{found[0]} lines are not used"] += 1
                continue
            begin = _number(found[3], line)
            spans.append(Span(begin, begin + _number(found[4], line), found[place]))
        if not spans:
            raise BadEntry(f"has no {kind} line", reason="no answer")
        yield timed(e.name or "", job.recording(e.name or ""), sorted(spans), job.language, wanted)

    yield from job.each(_by_recording(job, "*.rttm", 9, 1), make)


def audacity(job: Job) -> Read:
    """Labels exported by Audacity; from documentation, not verified.

    Lines of start, end and label between tabs (``.txt``; WhisperX's ``.aud``); the recording has the file's name.
    Ranges of frequency (lines that begin with a backslash) are counted.
    """

    def make(e: Entry) -> Iterator[Sample]:
        found = []
        for line in lines(e.value):
            if isinstance(line.value, Exception):
                raise line.value
            start, *rest = line.value.split("\t")
            if start == "\\":
                job.notes["ranges of frequency are not used"] += 1
            elif not rest:
                raise BadEntry(f"line {line.line}: has no tab between start, end and label")
            else:
                begin, end = _number(start, line.line or 0), _number(rest[0], line.line or 0)
                found.append(Segment(begin, end, "\t".join(rest[1:])))
        yield from _paired(job, e, found)

    yield from job.each(job.files("*.txt", "*.aud"), make)


def elan(job: Job) -> Read:
    """ELAN's annotations (.eaf); verified on files of pympi.

    The tiers that depend on no other and hold times of their own are merged by time (``--tier NAME``: that tier alone);
    the others are counted. A medium whose ``TIME_ORIGIN`` is not 0 begins that many milliseconds before ELAN's time, so
    times are later by so much in the recording. An annotation that has no time at one of its ends is a bad entry. The
    recording is the one that the file names, or has the file's name.
    """

    def make(e: Entry) -> Iterator[Sample]:
        root = xml(e.value)
        times = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
        media = [m for m in root.iter("MEDIA_DESCRIPTOR") if not (m.get("MIME_TYPE") or "").startswith("image/")]
        late = int(media[0].get("TIME_ORIGIN") or 0) if media else 0
        found = []
        for tier in root.iter("TIER"):
            name = tier.get("TIER_ID") or ""
            held = tier.findall("ANNOTATION/ALIGNABLE_ANNOTATION")
            if (name != job.tier) if job.tier else (tier.get("PARENT_REF") or not held):
                job.notes[f'tier "{name}" is not used'] += 1
                continue
            for one in held:
                ends = [times.get(one.get(f"TIME_SLOT_REF{i}")) for i in (1, 2)]
                if None in ends:
                    raise BadEntry(f"annotation {one.get('ANNOTATION_ID')} has no time at one of its ends")
                start, end = ((int(x or 0) + late) / 1000 for x in ends)
                found.append(Segment(start, end, one.findtext("ANNOTATION_VALUE") or ""))
        named = [(m.get("RELATIVE_MEDIA_URL") or m.get("MEDIA_URL") or "").rpartition("/")[2] for m in media[:1]]
        yield from _paired(job, e, found, *named)

    yield from job.each(job.files("*.eaf"), make)


def _paired(job: Job, e: Entry, found: list[Segment], *named: str) -> Iterator[Sample]:
    """What a file says of the recording that lies beside it."""
    inside = job.inside(Path(e.file))
    beside = [str(inside.with_name(name)) for name in named if name]
    clip = job.recording(str(inside.with_suffix("")), *(str(Path(b).with_suffix("")) for b in beside), *beside)
    yield from spoken(job, str(inside.with_suffix("")), clip, found, job.language)
