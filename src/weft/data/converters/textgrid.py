"""Word times from the Montreal Forced Aligner: Praat TextGrids.

Sources: Praat's manual, "TextGrid file formats" (a reader takes the free-standing numbers and strings in order and
passes over all else, which covers the long and the short form); the aligner's user guide, output formats (tiers
``words`` and ``phones``, with several speakers ``<speaker> - words``). From documentation, not verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from weft.conversation import WeftError
from weft.data.converters.base import BadEntry, Job, Read, Sample, audio, sample, task
from weft.data.converters.jsonfile import Entry

SILENCE = ("", "<eps>")  # "sil" and "sp", which older aligners wrote in the tier of phones, are words here
UNKNOWN = ("<unk>", "spn", "<spn>")  # something was said that the aligner had no word for

_TOKEN = re.compile(r'(?<!\S)("(?:[^"]|"")*"|-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|<exists>|<absent>)(?=\s|$)')


class Tier(NamedTuple):
    """``spans``: start and end in seconds, and the label. Point tiers have none."""

    name: str
    spans: list[tuple[float, float, str]]


def mfa(job: Job) -> Read:
    """Recordings with the times of their words; from documentation, not verified.

    PATH is a TextGrid or a folder of them, at any depth; a recording has the same name and place below ``--media``.
    ``--tier`` names another tier than ``words``. Empty intervals are silence. Where several speakers have tiers their
    words are merged by time. A recording with a word the aligner did not know (``<unk>``) is left out: its text is not
    whole.
    """

    def make(e: Entry) -> Iterator[Sample]:
        file: Path = e.value
        inside = job.inside(file).with_suffix("")
        words: list[dict[str, object]] = []
        for start, end, label in sorted(_words(job, file)):
            if label in UNKNOWN:
                raise BadEntry(f"{label} at {start:g} s: the aligner had no word for it", reason="word without text")
            words.append({"text": label, "start": start, "end": end})
        clip = job.recording(str(inside))
        fields = {} if job.language is None else {"language": job.language}
        asked = [audio(clip), task("transcribe", **fields, timestamps=True)]
        yield sample(str(inside), asked, [{"type": "words", "words": words}])

    yield from job.each(job.files("*.TextGrid"), make)


def _words(job: Job, file: Path) -> Iterator[tuple[float, float, str]]:
    tiers: dict[str, list[Tier]] = {}
    for tier in read_textgrid(file):
        tiers.setdefault(tier.name.rpartition(" - ")[2], []).append(tier)
    wanted = job.tier or "words"
    if wanted not in tiers:
        raise BadEntry(f'has no tier "{wanted}" (--tier names another)', reason="no word tier")
    for name in tiers.keys() - {wanted}:
        job.notes[f'tier "{name}" is not used'] += len(tiers[name])
    for tier in tiers[wanted]:
        for start, end, label in tier.spans:
            if label.strip() not in SILENCE:
                yield start, end, label.strip()


def read_textgrid(file: Path) -> list[Tier]:
    """The tiers of a TextGrid in the long or the short text form, UTF-8 or UTF-16."""
    try:
        raw = file.read_bytes()
        whole = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except OSError as e:
        raise BadEntry(f"cannot be read ({e.strerror})") from None
    except UnicodeDecodeError:
        raise BadEntry("is neither UTF-8 nor UTF-16 text: save it as a text file") from None
    tokens = iter(_TOKEN.findall(whole))
    try:
        if _string(next(tokens)) != "ooTextFile" or _string(next(tokens)) != "TextGrid":
            raise BadEntry("is no TextGrid in text form: save it in Praat as a text file")
        _skip(tokens, 2)  # the span of the whole
        if next(tokens) != "<exists>":
            return []
        return [_tier(tokens) for _ in range(int(float(next(tokens))))]
    except (StopIteration, RuntimeError, ValueError) as e:
        if isinstance(e, WeftError):
            raise
        raise BadEntry("ends too early or has a text where a number belongs", reason="damaged TextGrid") from None


def _tier(tokens: Iterator[str]) -> Tier:
    kind, name = _string(next(tokens)), _string(next(tokens))
    _skip(tokens, 2)  # the span of the tier
    count = int(float(next(tokens)))
    if kind == "TextTier":
        _skip(tokens, 2 * count)
        return Tier(name, [])
    spans = []
    for _ in range(count):
        spans.append((float(next(tokens)), float(next(tokens)), _string(next(tokens))))
    return Tier(name, spans)


def _skip(tokens: Iterator[str], count: int) -> None:
    for _ in range(count):
        next(tokens)


def _string(token: str) -> str:
    if not token.startswith('"'):
        raise ValueError(token)
    return token[1:-1].replace('""', '"')
