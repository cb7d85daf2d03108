"""Musical notes: NSynth as Qwen-Audio scores it, and soundly.

The original is QwenLM/Qwen-Audio at b50fb95, ``eval_audio/evaluate_note_analysis.py``. An answer holds
``<|pitch|><|midi_pitch_60|>``, ``<|velocity|><|midi_velocity_100|>``, ``<|instrument|>name``, ``<|sonic|>a, b``; what
is missing is pitch and velocity 128 and an empty name. Qualities are ten; their average precision is over hard labels
and over the qualities that answers or references name at all. Chroma there is the *place of a pitch among the pitches
that occur*, modulo 12, which is the pitch class only where all 128 occur.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from weft.evaluation.pairs import Pair, as_text
from weft.evaluation.published.rows import Row
from weft.evaluation.scorers import mean

QUALITIES = frozenset(
    ("bright", "dark", "distortion", "fast_decay", "long_release", "multiphonic", "nonlinear_env", "percussive")
    + ("reverb", "tempo-synced")
)
NONE = 128  # beyond MIDI's last


class Note(NamedTuple):
    pitch: int
    velocity: int
    instrument: str
    qualities: frozenset[str]


def read_note(text: str) -> Note:
    """The note in an answer of Qwen-Audio, with `NONE` and empty names for what is not there."""

    def midi(name: str) -> int:
        found = re.search(rf"<\|{name}\|><\|midi_{name}_(.*?)\|>", text)
        try:
            return int(found[1]) if found else NONE
        except ValueError:
            return NONE

    def named(name: str) -> str:
        found = re.search(rf"<\|{name}\|>(.*)", text)
        return found[1].split("<")[0] if found else ""

    return Note(midi("pitch"), midi("velocity"), named("instrument"), frozenset(named("sonic").split(", ")) & QUALITIES)


def hard_average_precision(expected: Sequence[bool], given: Sequence[bool]) -> float:
    """Average precision of yes/no predictions, as scikit-learn's: two thresholds, the second taking everything."""
    n, positive, chosen = len(expected), sum(expected), sum(given)
    if not positive:
        return 0.0
    hits = sum(x and y for x, y in zip(expected, given, strict=True))
    recall = hits / positive
    return (recall * hits / chosen if chosen else 0.0) + (1 - recall) * positive / n


def macro_average_precision(expected: Sequence[frozenset[str]], given: Sequence[frozenset[str]]) -> float | None:
    """Mean over the labels that occur on either side; None where none does."""
    labels = sorted(frozenset().union(*expected, *given))
    if not labels:
        return None
    return mean([hard_average_precision([a in x for x in expected], [a in y for y in given]) for a in labels])


def read_row(row: Row, task: str) -> Pair:
    """References: ``text``, a note as Qwen-Audio writes it."""
    text = row.reference.string("text", "answer")
    return Pair(task, as_text(text), (), references=(text,)).said(row.prediction)


def notes(pair: Pair) -> tuple[Note, Note]:
    """The expected and the given one."""
    return read_note(pair.references[0]), read_note(pair.raw)


def same_places(pairs: Sequence[Pair]) -> list[float]:
    """Whether pitches have equal places modulo 12 among those that occur: what the original calls chroma."""
    both = [(x.pitch, y.pitch) for x, y in map(notes, pairs)]
    place = {pitch: i for i, pitch in enumerate(sorted({pitch for two in both for pitch in two}))}
    return [float(place[x] % 12 == place[y] % 12) for x, y in both]


def same_chroma(pair: Pair) -> bool:
    x, y = notes(pair)
    return y.pitch != NONE and x.pitch % 12 == y.pitch % 12


def qualities_map(pairs: Sequence[Pair]) -> float | None:
    both = [notes(pair) for pair in pairs]
    return macro_average_precision([x.qualities for x, _ in both], [y.qualities for _, y in both])
