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

from weft.evaluation.published.rows import Row, Scores, mean

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


def score(rows: Sequence[Row]) -> Scores:
    """References: ``text``, a note as Qwen-Audio writes it."""
    expected = [read_note(row.reference.string("text", "answer")) for row in rows]
    given = [read_note(row.prediction) for row in rows]
    place = {pitch: i for i, pitch in enumerate(sorted({note.pitch for note in expected + given}))}
    each: list[dict[str, float | None]] = []
    for x, y in zip(expected, given, strict=True):
        one: dict[str, float | None] = {
            "qwen_audio_pitch_accuracy": float(x.pitch == y.pitch),
            "qwen_audio_chroma_accuracy": float(place[x.pitch] % 12 == place[y.pitch] % 12),
            "qwen_audio_velocity_accuracy": float(x.velocity == y.velocity),
            "qwen_audio_instrument_accuracy": float(x.instrument == y.instrument),
        }
        if x.pitch != NONE:
            one["chroma_accuracy"] = float(y.pitch != NONE and x.pitch % 12 == y.pitch % 12)
        each.append(one)
    figures: dict[str, float | None] = {}
    for name in SAYS:
        values = [value for one in each if (value := one.get(name)) is not None]
        figures[name] = mean(values) if values else None
    figures["qwen_audio_qualities_map"] = macro_average_precision(
        [note.qualities for note in expected], [note.qualities for note in given]
    )
    return Scores(figures, each, SAYS)


SAYS = {
    "qwen_audio_qualities_map": "0..1: average precision over hard labels, mean over the qualities that occur",
    "qwen_audio_instrument_accuracy": "0..1: equal instrument names",
    "qwen_audio_pitch_accuracy": "0..1: equal MIDI pitches",
    "qwen_audio_chroma_accuracy": "0..1: equal places modulo 12 among the pitches that occur, as the original has it",
    "chroma_accuracy": "0..1: equal pitch modulo 12, over references that have a pitch",
    "qwen_audio_velocity_accuracy": "0..1: equal MIDI velocities",
}
