"""Scores of one answer against what was expected, as counts that pool over a corpus.

Every scorer but BLEU and CIDEr gives a `Tally` per sample: a numerator and a denominator. The corpus figure is the sum
of the numerators over the sum of the denominators, so that long samples weigh more in WER and each sample weighs the
same in an accuracy. Nothing here knows of models, conversations or files: strings, boxes ``(left, top, right,
bottom)`` and words with times in seconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import jiwer
import numpy as np
import sacrebleu
from rapidfuzz.distance import Levenshtein  # what jiwer counts with, without its report

from weft.conversation import Word
from weft.evaluation.text import UNSPACED, canonical, normalized, primary, units, unspaced

IOU_THRESHOLD = 0.5

SIGMA = 6.0  # of CIDEr-D's length penalty

BoxTuple = tuple[float, float, float, float]
Gram = tuple[str, ...]


class Tally(NamedTuple):
    """A score as ``amount / out_of``; both add up over samples."""

    amount: float
    out_of: float

    @property
    def value(self) -> float | None:
        """The rate; None where there is nothing to divide by (nothing was matched, nothing was asked)."""
        return self.amount / self.out_of if self.out_of else None


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def pooled(tallies: Sequence[Tally]) -> Tally:
    return Tally(sum(t.amount for t in tallies), sum(t.out_of for t in tallies))


# --- text -------------------------------------------------------------------------------------------------------------


def word_errors(expected: str, given: str) -> Tally:
    """Substitutions, deletions and insertions over expected `units` (jiwer). Case and punctuation count."""
    return unit_errors(units(expected), units(given))


def unit_errors(expected: Sequence[str], given: Sequence[str]) -> Tally:
    return Tally(Levenshtein.distance(expected, given), len(expected)) if expected else Tally(0, 0)


def exact(expected: str, given: str, language: str | None = None) -> Tally:
    return Tally(float(canonical(expected, language) == canonical(given, language)), 1)


def bleu_tokenizer(language: str | None, text: str = "") -> str:
    """sacrebleu's tokenizer: its default for spaced languages, characters for the others (no extra dictionary).

    Where no language is named, ``text`` tells.
    """
    code = primary(language)
    if code in ("zh", "yue"):
        return "zh"
    return "char" if code in UNSPACED or not code and unspaced(text) else "13a"


def bleu(expected: Sequence[str], given: Sequence[str], languages: Sequence[str | None]) -> float:
    """Corpus BLEU in 0..1 (sacrebleu, one reference each); every text is tokenised as its own language asks."""
    metrics = [_bleu(bleu_tokenizer(code, text)) for code, text in zip(languages, expected, strict=True)]
    sides = ([m.tokenizer(text) for m, text in zip(metrics, texts, strict=True)] for texts in (given, expected))
    given, expected = sides
    return _bleu("none").corpus_score(given, [expected]).score / 100


def sentence_bleu(expected: str, given: str, language: str | None = None) -> float:
    """BLEU of one sentence in 0..1, with sacrebleu's exponential smoothing and effective order."""
    metric = sacrebleu.BLEU(tokenize=bleu_tokenizer(language, expected), effective_order=True)
    return metric.sentence_score(given, [expected]).score / 100


def bleu_signature(language: str | None = None) -> str:
    metric = sacrebleu.BLEU(tokenize=bleu_tokenizer(language))
    metric.corpus_score(["a"], [["a"]])  # the signature is complete only after a first use
    return str(metric.get_signature())


@cache
def _bleu(tokenizer: str) -> sacrebleu.BLEU:
    return sacrebleu.BLEU(tokenize=tokenizer, force=True)


def cider_d(references: Sequence[Sequence[Sequence[str]]], candidates: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of every candidate, 0..10, from tokens; the corpus figure is the mean. ``references[i]`` are those of i.

    The formula of pycocoevalcap's ``Cider`` (Vedantam et al., arXiv 1411.5726, with clipping and a length penalty of
    sigma 6; tf-idf over n-grams of 1 to 4, document frequencies over the samples of the references, times 10), equal to
    it to rounding. One sample alone scores 0: no n-gram is rare in one document.
    """
    cooked = [[_grams(tokens) for tokens in several] for several in references]
    frequency = Counter(gram for several in cooked for gram in set().union(*several))
    documents = math.log(max(len(references), 1))

    def vectors(grams: Counter[Gram]) -> tuple[list[dict[Gram, float]], list[float], int]:
        made: list[dict[Gram, float]] = [{}, {}, {}, {}]
        for gram, count in grams.items():
            made[len(gram) - 1][gram] = count * (documents - math.log(max(1, frequency[gram])))
        bigrams = sum(count for gram, count in grams.items() if len(gram) == 2)  # the length that the penalty compares
        return made, [math.sqrt(sum(v * v for v in vector.values())) for vector in made], bigrams

    scores = []
    for several, tokens in zip(cooked, candidates, strict=True):
        hyp, hyp_norm, hyp_length = vectors(_grams(tokens))
        total = 0.0
        for grams in several:
            ref, ref_norm, ref_length = vectors(grams)
            penalty = math.exp(-((hyp_length - ref_length) ** 2) / (2 * SIGMA**2))
            for n in range(4):
                norm = hyp_norm[n] * ref_norm[n]
                dot = sum(min(v, ref[n][g]) * ref[n][g] for g, v in hyp[n].items() if g in ref[n])
                total += penalty * (dot / norm if norm else dot)
        scores.append(10 * total / 4 / len(several))
    return scores


def _grams(tokens: Sequence[str]) -> Counter[Gram]:
    return Counter(tuple(tokens[i : i + n]) for n in range(1, 5) for i in range(len(tokens) - n + 1))


# --- word times -------------------------------------------------------------------------------------------------------


class TimeScore(NamedTuple):
    """``error``: milliseconds over matched words; ``coverage``: matched words over expected words."""

    error: Tally
    coverage: Tally


def match_words(expected: Sequence[Word], given: Sequence[Word]) -> list[tuple[int, int]]:
    """Index pairs of words that are equal by weft's normaliser, in the minimum-edit alignment (jiwer)."""
    if not expected or not given:
        return []
    result = jiwer.process_words(" ".join(map(_key, expected)), " ".join(map(_key, given)))
    pairs: list[tuple[int, int]] = []
    for chunk in result.alignments[0]:
        if chunk.type == "equal":
            pairs += zip(
                range(chunk.ref_start_idx, chunk.ref_end_idx),
                range(chunk.hyp_start_idx, chunk.hyp_end_idx),
                strict=True,
            )
    return pairs


def word_times(expected: Sequence[Word], given: Sequence[Word]) -> TimeScore:
    """Mean of start and end error over matched words, in milliseconds, and the share of expected words matched.

    Each matched word counts ``(|start error| + |end error|) / 2``. Unmatched words do not enter the error, so it is
    always to be read beside the coverage.
    """
    pairs = match_words(expected, given)
    error = sum(abs(expected[i].start - given[j].start) + abs(expected[i].end - given[j].end) for i, j in pairs)
    return TimeScore(Tally(error * 500, len(pairs)), Tally(len(pairs), len(expected)))


def _key(word: Word) -> str:
    """One alignment token: never empty and without spaces inside, so that indices stay those of the words."""
    return normalized(word.text).replace(" ", "_") or "_".join(word.text.split()) or "_"


# --- boxes ------------------------------------------------------------------------------------------------------------


def iou(a: Sequence[BoxTuple] | np.ndarray, b: Sequence[BoxTuple] | np.ndarray) -> np.ndarray:
    """Intersection over union of every box in ``a`` with every box in ``b``: float64 [len(a), len(b)]."""
    A, B = np.asarray(a, float).reshape(-1, 1, 4), np.asarray(b, float).reshape(1, -1, 4)
    size = np.clip(np.minimum(A[..., 2:], B[..., 2:]) - np.maximum(A[..., :2], B[..., :2]), 0, None)
    inter = size[..., 0] * size[..., 1]
    area = lambda x: np.clip(x[..., 2] - x[..., 0], 0, None) * np.clip(x[..., 3] - x[..., 1], 0, None)  # noqa: E731
    union = area(A) + area(B) - inter
    return np.divide(inter, union, out=np.zeros_like(union), where=union > 0)


def match_boxes(expected: Sequence[BoxTuple], given: Sequence[BoxTuple]) -> list[tuple[int, int]]:
    """Index pairs of a largest one-to-one matching at IoU >= 0.5 (optimal in the number of pairs, not greedy)."""
    if not expected or not given:
        return []
    # Better overlaps are tried first.
    return one_to_one([[int(j) for j in np.argsort(-row) if row[j] >= IOU_THRESHOLD] for row in iou(expected, given)])


def one_to_one(allowed: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Index pairs of a largest matching (augmenting paths), where ``allowed[i]`` are the partners that i may have."""
    owner: dict[int, int] = {}

    def place(i: int, seen: set[int]) -> bool:
        for j in allowed[i]:
            if j not in seen:
                seen.add(j)
                if j not in owner or place(owner[j], seen):
                    owner[j] = i
                    return True
        return False

    for i in range(len(allowed)):
        place(i, set())
    return sorted((i, j) for j, i in owner.items())


def box_f1(expected: Sequence[BoxTuple], given: Sequence[BoxTuple]) -> Tally:
    """F1 as ``2 matched / (expected + given)``; pooled over samples it is the micro F1."""
    return Tally(2 * len(match_boxes(expected, given)), len(expected) + len(given))
