"""Speech: word error rate, and word times (SRWT: average absolute shift), as Qwen-Audio scores them and soundly.

The originals are QwenLM/Qwen-Audio at b50fb95, ``eval_audio/evaluate_asr.py`` and ``evaluate_srwt.py``. What they do:

- WER removes tags, joins punctuation to the word before it and keeps it, lower-cases, and takes Chinese by the
  character; errors over reference units, pooled.
- AAS sums |start shift| and |end shift| over aligned words and divides by the words: *both* ends, so it is twice the
  mean boundary error, in seconds. Text before the first time and after the last is no word; ``<|sil|>`` is one.
- A line without any time is left out on its side alone; where that leaves unequal numbers of lines the script stops
  (its figure is None here), and where the numbers happen to agree it pairs lines that do not belong together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from weft.conversation import Part, Word, Words
from weft.evaluation.pairs import Pair, as_text
from weft.evaluation.published.rows import Row
from weft.evaluation.scorers import Tally, pooled

_TAG = re.compile(r"<\|.*?\|>")
_STAMP = re.compile(r"<\|\d{1,2}\.\d+\|>")


# --- words ------------------------------------------------------------------------------------------------------------


def original_units(text: str, language: str | None) -> list[str]:
    """The scoring units of Qwen-Audio's scripts: lower-cased words with their punctuation, or characters for ``zh``."""
    text = re.sub(r"\s+", " ", _TAG.sub(" ", text))
    units = re.sub(" ?([!,.?;:])", r"\1", text).lower().split()
    return list("".join(units)) if language == "zh" else units


def original_errors(pair: Pair) -> Tally:
    """Edits over reference units; with nothing expected, all that is given are edits."""
    reference, given = (original_units(text, pair.language) for text in (pair.references[0], pair.raw))
    return Tally(Levenshtein.distance(reference, given), len(reference))


def without_tags(text: str) -> str:
    """The words of an answer; what the tags of Qwen-Audio (times, languages, tasks) leave."""
    return " ".join(_TAG.sub(" ", text).split())


def spoken(row: Row, task: str, language: str | None, plain: Callable[[str], str]) -> Pair:
    """References: ``text``, ``language`` (or one given for all), and ``seconds`` of clips where nothing is said.

    ``plain``: the words of an answer.
    """
    text = row.reference.string("text", "answer")
    seconds = row.reference.number("seconds") if "seconds" in row.reference.fields else None
    read = lambda raw: as_text(plain(raw))  # noqa: E731
    return Pair(task, read(text), (), row.language(language), seconds, references=(text,), read=read).said(
        row.prediction
    )


def read_row(row: Row, task: str, language: str | None = None) -> Pair:
    return spoken(row, task, language, without_tags)


# --- word times -------------------------------------------------------------------------------------------------------


class Timed(NamedTuple):
    """``words[i]`` lies between ``times[i]`` and ``times[i + 1]``."""

    words: list[str]
    times: list[float]


def read_times(text: str) -> Timed | None:
    """Words between times, as the original reads them; None where there is no time at all."""
    text = text.replace("<|startoftranscript|>", "").replace("<|transcribe|>", "")
    text = text.replace("<|en|>" if "<|en|>" in text else "<|zh|>", "")
    stamps = [float(stamp[2:-2]) for stamp in _STAMP.findall(text)]
    return Timed(_STAMP.split(text)[1:-1], stamps) if stamps else None


def equal_pairs(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """Index pairs of equal items in the alignment that the PyPI package ``edit_distance`` finds.

    Among cheapest alignments it prefers, seen from the end, a match or replacement, then an insertion, then a deletion;
    jiwer breaks ties otherwise, so its pairs differ now and then.
    """
    rows = [list(range(len(b) + 1))]
    for i, x in enumerate(a, 1):
        row, above = [i], rows[-1]
        for j, y in enumerate(b, 1):
            row.append(min(row[j - 1] + 1, above[j] + 1, above[j - 1] + (x != y)))
        rows.append(row)
    i, j, pairs = len(a), len(b), []
    while i and j:
        same = a[i - 1] == b[j - 1]
        if rows[i][j] == rows[i - 1][j - 1] + (not same):
            i, j = i - 1, j - 1
            if same:
                pairs.append((i, j))
        elif rows[i][j] == rows[i][j - 1] + 1:
            j -= 1
        else:
            i -= 1
    return pairs[::-1]


def original_shift(expected: Timed, given: Timed) -> Tally:
    """Summed start and end shifts over aligned words, and how many are aligned."""
    # The original passes words through a joined string: no words are one empty word, and a tab splits one.
    a, b = "\t".join(expected.words).split("\t"), "\t".join(given.words).split("\t")
    pairs = equal_pairs(a, b)
    left = [i for i, _ in pairs if i < len(expected.times) - 1]
    right = [j for _, j in pairs if j < len(given.times) - 1]
    if len(left) != len(right):  # "length mismatch": the utterance is left out
        return Tally(0.0, 0)
    x, y = expected.times, given.times
    shift = 0.0
    for i, j in zip(left, right, strict=True):
        shift += abs(x[i] - y[j]) + abs(x[i + 1] - y[j + 1])
    return Tally(shift, len(left))


def original_aas(pairs: Sequence[Pair]) -> float | None:
    """Corpus AAS in seconds; None where the original script stops (unequal numbers of readable lines, no match)."""
    expected, given = ([t for text in texts if (t := read_times(text))] for texts in _both(pairs))
    if not expected:
        pairs[0].extra.wrong("text", "no reference has word times: write them as <|0.19|>glad<|0.45|>")
    if len(expected) != len(given):
        return None
    return pooled([original_shift(x, y) for x, y in zip(expected, given, strict=True)]).value


def each_aas(pairs: Sequence[Pair]) -> list[float | None]:
    both = [(read_times(expected), read_times(given)) for expected, given in zip(*_both(pairs), strict=True)]
    return [original_shift(x, y).value if x and y else None for x, y in both]


def _both(pairs: Sequence[Pair]) -> tuple[list[str], list[str]]:
    return [pair.references[0] for pair in pairs], [pair.raw for pair in pairs]


def malformed(pairs: Sequence[Pair]) -> str | None:
    if not (without := sum(read_times(pair.raw) is None for pair in pairs)):
        return None
    return (
        f"{without} of {len(pairs)} answers hold no time: the original's AAS stops where answers and references "
        "differ in that, and pairs wrong lines where the numbers agree"
    )


def spoken_words(text: str) -> list[Word]:
    """Words with times, soundly: the prompt's ``<|0.00|>`` is put back, ``<|sil|>`` is no word, tags are none."""
    if not re.match(r"\s*(?:<\|[a-z_]+\|>\s*)*<\|\d", text):
        text = "<|0.00|>" + text
    timed = read_times(text)
    if timed is None:
        return []
    words = zip((without_tags(w) for w in timed.words), timed.times[:-1], timed.times[1:], strict=True)
    return [Word(word, start, end) for word, start, end in words if word]


def timed_parts(text: str) -> tuple[Part, ...]:
    """Words with times, and the words behind the last time."""
    words = spoken_words(text)
    return ((Words(tuple(words)),) if words else ()) + as_text(without_tags(_STAMP.split(text)[-1]))


def read_timed_row(row: Row, task: str, language: str | None = None) -> Pair:
    """References: ``text`` with times (``<|0.19|>glad<|0.45|>``), and ``language`` (or one given for all)."""
    pair = read_row(row, task, language)
    timed = replace(pair, expected=timed_parts(pair.references[0]), read=timed_parts, extra=row.reference)
    return timed.said(row.prediction)
