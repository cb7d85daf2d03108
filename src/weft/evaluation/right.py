"""When a sample is right: when what its task asks for is right, and not only its words.

What is asked for follows from the task and from what the expected answer holds; `RULES` says it for the report.
Captions and translations have no one right answer: they are graded, and neither right nor wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from weft.conversation import Box, Part, Text, Word, Words
from weft.evaluation.metrics import Metric
from weft.evaluation.pairs import CAPTIONS, Pair, answer_boxes, answer_text, answer_words, asks_boxes
from weft.evaluation.scorers import BoxTuple, exact, match_boxes, one_to_one, word_errors
from weft.evaluation.text import normalized

TIME_TOLERANCE = 0.150  # seconds that a word's start and end may each be off: beyond it a listener hears another word
PLACES = frozenset({"refer", "detection"})  # asked for boxes; words beside them are not asked for

RULES = {
    "silence": "nothing is said where nothing is expected",
    "words": "no word differs as written (wer 0)",
    "times": f"every word or sound with times is there once, start and end within {1000 * TIME_TOLERANCE:.0f} ms",
    "boxes": "every expected region is found at IoU >= 0.5, under its name where there are several, and no other",
    "text": "the text is equal but for case and outer punctuation (exact)",
}
GRADED = "graded only: wording has no one right form"
FULL = {"rate": 1.0, "percent": 100.0}


def demands(pair: Pair) -> list[str]:
    """Those of `RULES` that a sample must meet; none where it is only graded."""
    if pair.silent:
        return ["silence"]
    timed = bool(answer_words(pair.expected))
    written = any(isinstance(part, Text) and part.text.strip() for part in pair.expected)
    places = pair.task in PLACES or asks_boxes(pair.expected)
    found = ["words"] if pair.task == "transcribe" else []
    found += ["times"] * timed + ["boxes"] * places
    if pair.task in CAPTIONS | PLACES | {"transcribe", "translate"}:
        return found
    return [*found, "text"] if written else found or ["silence"]


def is_right(pair: Pair, figure: Metric | None = None, scores: dict[str, float | None] | None = None) -> bool | None:
    """Whether all that is asked for is right, or as a benchmark's ``figure`` has it; None: a sample is only graded."""
    if figure is None or pair.silent or not _decides(figure):
        asked = demands(pair)
        return all(_MET[name](pair) for name in asked) if asked else None
    value, lower = (scores or {}).get(figure.name), figure.better == "lower"
    if value == (0.0 if lower else FULL[figure.unit]):
        return True
    return False if value == 0 or lower else None


def _decides(figure: Metric) -> bool:
    return figure.computed.each is not None and figure.unit in FULL


def rule(pairs: Sequence[Pair], figure: Metric | None = None) -> str:
    """By what rule the samples of a task are right, as a sentence."""
    if figure is not None and _decides(figure):
        full, none = ("0", "above 0") if figure.better == "lower" else ("full marks", "0; between, it is only graded")
        return f"{figure.name} of the sample is {full} (wrong: it is {none})"
    asked = {name for pair in pairs for name in demands(pair)}
    return "; ".join(said for name, said in RULES.items() if name in asked) or GRADED


def _words(pair: Pair) -> bool:
    return word_errors(answer_text(pair.expected), answer_text(pair.given)).amount == 0


def _times(pair: Pair) -> bool:
    """In any order: two sounds may begin together."""

    def groups(parts: Sequence[Part]) -> dict[object, list[Word]]:
        found: dict[object, list[Word]] = defaultdict(list)
        for part in parts:
            if isinstance(part, Words):
                for word in part.words:
                    found[part.audio or 0, normalized(word.text, pair.language) or word.text].append(word)
        return found

    def near(x: Word, y: Word) -> bool:
        return max(abs(x.start - y.start), abs(x.end - y.end)) <= TIME_TOLERANCE + 1e-9

    return _one_for_one(
        groups(pair.expected),
        groups(pair.given),
        lambda a, b: one_to_one([[j for j, y in enumerate(b) if near(x, y)] for x in a]),
    )


def _boxes(pair: Pair) -> bool:
    """Names count where the expected ones differ, but in captions, whose wording is graded."""
    labels = {normalized(part.label or "") for part in pair.expected if isinstance(part, Box)}
    named = len(labels) > 1 and pair.task not in CAPTIONS

    def groups(parts: Sequence[Part]) -> dict[object, list[BoxTuple]]:
        found: dict[object, list[BoxTuple]] = defaultdict(list)
        for part in parts:
            if isinstance(part, Box):
                found[part.image or 0, normalized(part.label or "") if named else ""] += part.boxes
        return found

    return _one_for_one(groups(pair.expected), groups(pair.given), match_boxes)


def _one_for_one(expected: dict, given: dict, matched: Callable[[list, list], list]) -> bool:
    """Whether each thing expected has its own in what is given, and nothing is over."""
    return all(
        len(matched(expected[key], given[key])) == len(expected[key]) == len(given[key]) for key in [*expected, *given]
    )


def _text(pair: Pair) -> bool:
    """The text parts alone where boxes or times are expected beside them, else all that is said."""
    expected, given = (
        [part for part in parts if isinstance(part, Text)] if demands(pair) != ["text"] else parts
        for parts in (pair.expected, pair.given)
    )
    return exact(answer_text(expected), answer_text(given), pair.language).amount == 1


def _silence(pair: Pair) -> bool:
    return not normalized(answer_text(pair.given), pair.language) and not answer_boxes(pair.given)


_MET = {"silence": _silence, "words": _words, "times": _times, "boxes": _boxes, "text": _text}
