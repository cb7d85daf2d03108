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
from collections.abc import Sequence
from typing import NamedTuple

import jiwer

from weft.conversation import Text, Word
from weft.evaluation import scorers
from weft.evaluation.metrics import METRICS, Pair, score
from weft.evaluation.published.rows import Row, Scores
from weft.evaluation.scorers import Tally, pooled
from weft.evaluation.text import NORMALISERS

RATES = ("wer", "wer_normalized", "cer_normalized", "wer_whisper", "hallucinated_words_per_minute")

_TAG = re.compile(r"<\|.*?\|>")
_STAMP = re.compile(r"<\|\d{1,2}\.\d+\|>")


# --- words ------------------------------------------------------------------------------------------------------------


def original_units(text: str, language: str | None) -> list[str]:
    """The scoring units of Qwen-Audio's scripts: lower-cased words with their punctuation, or characters for ``zh``."""
    text = re.sub(r"\s+", " ", _TAG.sub(" ", text))
    units = re.sub(" ?([!,.?;:])", r"\1", text).lower().split()
    return list("".join(units)) if language == "zh" else units


def original_errors(expected: str, given: str, language: str | None) -> Tally:
    """Edits over reference units; with nothing expected, all that is given are edits."""
    reference, hypothesis = original_units(expected, language), original_units(given, language)
    if not reference:
        return Tally(len(hypothesis), 0)
    # jiwer joins and splits at spaces; units hold none.
    found = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    return Tally(found.substitutions + found.deletions + found.insertions, len(reference))


def without_tags(text: str) -> str:
    """The words of an answer; what the tags of Qwen-Audio (times, languages, tasks) leave."""
    return " ".join(_TAG.sub(" ", text).split())


def spoken(row: Row, language: str | None) -> tuple[str | None, float | None]:
    """The language of a reference, and how long its clip is where it says so."""
    return row.language(language), row.reference.number("seconds") if "seconds" in row.reference.fields else None


def score_wer(rows: Sequence[Row], language: str | None = None) -> Scores:
    """References: ``text``, ``language`` (or one given for all), and ``seconds`` of clips where nothing is said."""
    texts = [row.reference.string("text", "answer") for row in rows]
    pairs = [
        Pair("transcribe", (Text(without_tags(text)),), (Text(without_tags(row.prediction)),), *spoken(row, language))
        for text, row in zip(texts, rows, strict=True)
    ]
    figures = score(pairs, [METRICS[name] for name in RATES], baseline=False)
    table = dict.fromkeys(RATES[:-1]) | figures.metrics["transcribe"]
    originals = [original_errors(t, r.prediction, p.language) for t, r, p in zip(texts, rows, pairs, strict=True)]
    return Scores(
        table | {"qwen_audio_wer": pooled(originals).value},
        [one | {"qwen_audio_wer": tally.value} for one, tally in zip(figures.samples, originals, strict=True)],
        {name: METRICS[name].says for name in table} | {"qwen_audio_wer": SAYS["qwen_audio_wer"]},
        ("jiwer", "whisper-normalizer"),
        {"languages": sorted({p.language or "not given" for p in pairs}), "normaliser": NORMALISERS},
        figures.notes,
    )


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


def original_aas(expected: Sequence[Timed | None], given: Sequence[Timed | None]) -> float | None:
    """Corpus AAS in seconds; None where the original script stops (unequal numbers of readable lines, no match)."""
    a, b = [t for t in expected if t], [t for t in given if t]
    if len(a) != len(b):
        return None
    return pooled([original_shift(x, y) for x, y in zip(a, b, strict=True)]).value


def spoken_words(text: str) -> list[Word]:
    """Words with times, soundly: the prompt's ``<|0.00|>`` is put back, ``<|sil|>`` is no word, tags are none."""
    if not re.match(r"\s*(?:<\|[a-z_]+\|>\s*)*<\|\d", text):
        text = "<|0.00|>" + text
    timed = read_times(text)
    if timed is None:
        return []
    words = zip((without_tags(w) for w in timed.words), timed.times[:-1], timed.times[1:], strict=True)
    return [Word(word, start, end) for word, start, end in words if word]


def score_srwt(rows: Sequence[Row], language: str | None = None) -> Scores:
    """References: ``text`` with times (``<|0.19|>glad<|0.45|>``), and ``language`` (or one given for all)."""
    words = score_wer(rows, language)
    texts = [row.reference.string("text", "answer") for row in rows]
    expected = [read_times(text) for text in texts]
    if not any(expected):
        rows[0].reference.wrong("text", "no reference has word times: write them as <|0.19|>glad<|0.45|>")
    given = [read_times(row.prediction) for row in rows]
    times = [scorers.word_times(spoken_words(t), spoken_words(r.prediction)) for t, r in zip(texts, rows, strict=True)]
    each: list[dict[str, float | None]] = []
    for one, time, x, y in zip(words.each, times, expected, given, strict=True):
        aas = original_shift(x, y).value if x and y else None
        each.append(
            {"qwen_audio_aas_seconds": aas, "word_time_ms": time.error.value, "word_time_coverage": time.coverage.value}
            | one
        )
    malformed = sum(y is None for y in given)
    figures = {
        "qwen_audio_aas_seconds": original_aas(expected, given),
        "word_time_ms": pooled([t.error for t in times]).value,
        "word_time_coverage": pooled([t.coverage for t in times]).value,
        "without_times": malformed / len(rows),
    } | words.figures
    notes = list(words.notes)
    if malformed:
        notes.append(
            f"{malformed} of {len(rows)} answers hold no time: the original's AAS stops where answers and references "
            "differ in that, and pairs wrong lines where the numbers agree"
        )
    return Scores(figures, each, SAYS | words.says, words.packages, words.settings, notes)


SAYS = {
    "qwen_audio_wer": "rate: Qwen-Audio's evaluate_asr.py and evaluate_srwt.py (lower case, punctuation kept, "
    "characters for zh alone), pooled",
    "qwen_audio_aas_seconds": "seconds: Qwen-Audio's evaluate_srwt.py, start and end shift summed over aligned words",
    "word_time_ms": "milliseconds: mean of |start error| and |end error| over words matched by jiwer's alignment "
    "(case and punctuation off, silences left out)",
    "word_time_coverage": "0..1: expected words that were matched, and so entered word_time_ms",
    "without_times": "0..1: answers without a single time",
}
