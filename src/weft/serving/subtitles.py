"""Transcripts as files: segments of words or windows, SRT, WebVTT.

A segment that is shown ends at a pause, at the end of a sentence, or when it has grown too long to be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from weft.conversation import Word
from weft.dialects.base import join_words
from weft.generation import Reply
from weft.generation.windows import WindowPrompt

PAUSE, LONGEST, LETTERS = 0.8, 7.0, 84  # seconds, seconds, two lines of 42 letters
ENDS = (".", "?", "!", "。", "？", "！", "…")


@dataclass(frozen=True, slots=True)
class Segment:
    start: float
    end: float
    text: str


def segments(replies: Sequence[Reply], windows: Sequence[WindowPrompt]) -> list[Segment]:
    """Of the words with times, window by window; of what has none, one a window, as long as the window."""
    out: list[Segment] = []
    for reply, window in zip(replies, windows, strict=True):
        if words := window.words(reply):
            out += _cues(words)
        elif reply.text.strip():
            end = round(window.offset + window.seconds, 3)
            out.append(Segment(round(window.offset, 3), end, " ".join(reply.text.split())))
    return out


def srt(shown: Sequence[Segment]) -> str:
    cues = (f"{i}\n{_time(s.start, ',')} --> {_time(s.end, ',')}\n{s.text}\n\n" for i, s in enumerate(shown, 1))
    return "".join(cues)


def vtt(shown: Sequence[Segment]) -> str:
    cues = (f"{_time(s.start, '.')} --> {_time(s.end, '.')}\n{_escaped(s.text)}\n\n" for s in shown)
    return "WEBVTT\n\n" + "".join(cues)


def _cues(words: Sequence[Word]) -> list[Segment]:
    groups: list[list[Word]] = [[]]
    for word in words:
        group = groups[-1]
        if group and (
            word.start - group[-1].end > PAUSE
            or group[-1].text.endswith(ENDS)
            or word.end - group[0].start > LONGEST
            or len(join_words([w.text for w in [*group, word]])) > LETTERS
        ):
            groups.append([])
        groups[-1].append(word)
    return [Segment(g[0].start, g[-1].end, " ".join(join_words([w.text for w in g]).split())) for g in groups if g]


def _escaped(text: str) -> str:
    """WebVTT reads tags and entities in a cue."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(seconds: float, mark: str) -> str:
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{mark}{rest % 1000:03d}"
