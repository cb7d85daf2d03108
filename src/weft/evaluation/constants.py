"""What the best constant answer gets: the figure a model that neither sees nor hears could reach.

Each constant is chosen in hindsight, on the very samples that are scored, so it is the strongest of its kind among the
candidates named in each docstring. A result that does not beat it has not used its input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median

import jiwer
import numpy as np

from weft.conversation import Word
from weft.evaluation.scorers import IOU_THRESHOLD, BoxTuple, bleu, cider, iou
from weft.evaluation.text import canonical

# Searches stop growing here, so that a baseline takes seconds on any test set.
PAIRS = 40_000
BOX_CANDIDATES = 300


def best_exact(expected: Sequence[str]) -> tuple[float, str]:
    """The most frequent answer, and its rate."""
    answer, count = Counter(map(canonical, expected)).most_common(1)[0]
    return count / len(expected), answer


def best_transcript(expected: Sequence[Sequence[str]]) -> tuple[float, str]:
    """The transcript of lowest WER among: nothing, the commonest words repeated, and the expected transcripts."""
    units = [" ".join(words) for words in expected]
    total = sum(len(text.split()) for text in units)
    if not total:
        return 0.0, ""
    words = Counter(word for text in units for word in text.split())
    longest = sorted(len(text.split()) for text in units)[len(units) // 2] + 1
    candidates = [" ".join([word] * n) for word, _ in words.most_common(3) for n in range(1, min(longest, 12) + 1)]
    candidates += [text for text, _ in Counter(units).most_common() if text]
    best = (1.0, "")
    for candidate in candidates[: max(1, PAIRS // len(units))]:
        result = jiwer.process_words(units, [candidate] * len(units))
        rate = (result.substitutions + result.deletions + result.insertions) / total
        best = min(best, (rate, candidate))
    return best


def best_word_times(expected: Sequence[Sequence[Word]]) -> tuple[float | None, str]:
    """Every word said right, the k-th always at the median start and end of all k-th words; milliseconds.

    The text is given away because a constant transcript matches next to nothing; the median is the constant of least
    absolute error.
    """
    error, n = 0.0, 0
    for k in range(max((len(words) for words in expected), default=0)):
        column = [words[k] for words in expected if len(words) > k]
        for times in ([w.start for w in column], [w.end for w in column]):
            middle = median(times)
            error += sum(abs(t - middle) for t in times)
        n += len(column)
    return (500 * error / n if n else None), "the right words, the k-th at the median time of all k-th words"


def best_box(expected: Sequence[BoxTuple]) -> tuple[float, BoxTuple]:
    """The box that most of ``expected`` overlap by IoU >= 0.5: the expected ones and their mean, moved edge by edge."""
    references = np.asarray(expected, float)
    candidates = np.concatenate([references.mean(0, keepdims=True), _thin(references)])

    def rank(boxes: np.ndarray) -> np.ndarray:
        overlap = iou(boxes, references)  # the mean breaks ties, so that the climb sees a slope
        return (overlap >= IOU_THRESHOLD).mean(1) + 1e-3 * overlap.mean(1)

    starts = candidates[np.argsort(-rank(candidates), kind="stable")[:8]]
    steps = np.array([s * e for s in (0.08, 0.03, 0.01) for e in np.concatenate([np.eye(4), -np.eye(4)])])
    best = max((_climb(start, steps, rank) for start in starts), key=lambda found: found[0])[1]
    return float((iou(best[None], references) >= IOU_THRESHOLD).mean()), _box(best)


def best_box_set(expected: Sequence[Sequence[BoxTuple]]) -> tuple[float, list[BoxTuple]]:
    """The set of boxes of highest pooled F1, grown greedily from expected boxes and the best single box."""
    counts = np.array([len(boxes) for boxes in expected])
    if not counts.sum():
        return 0.0, []
    references = np.concatenate([np.asarray(b, float).reshape(-1, 4) for b in expected])
    sample = np.repeat(np.arange(len(expected)), counts)
    candidates = np.concatenate([np.asarray(best_box([_box(b) for b in references])[1])[None], _thin(references)])
    hits = iou(candidates, references) >= IOU_THRESHOLD  # [candidates, references]
    free = np.ones(len(references), bool)
    chosen: list[BoxTuple] = []
    matched, best = 0, 0.0
    while True:
        gains = np.array([len(np.unique(sample[row & free])) for row in hits])
        c = int(gains.argmax())
        f1 = 2 * (matched + gains[c]) / (counts.sum() + (len(chosen) + 1) * len(expected))
        if f1 <= best:
            return best, chosen
        best, matched = float(f1), matched + int(gains[c])
        chosen.append(_box(candidates[c]))
        open_hits = np.flatnonzero(hits[c] & free)  # one expected box a sample is used up by the new constant
        free[open_hits[np.unique(sample[open_hits], return_index=True)[1]]] = False


def best_bleu(expected: Sequence[str], languages: Sequence[str | None]) -> tuple[float, str]:
    """The expected answer of highest corpus BLEU, the commonest tried first."""
    tried = _texts(expected)
    return max((bleu(expected, [text] * len(expected), languages), text) for text in tried)


def best_cider(expected: Sequence[str], languages: Sequence[str | None]) -> tuple[float, str]:
    """The expected answer of highest mean CIDEr, the commonest tried first."""
    tried = _texts(expected)
    return max((float(np.mean(cider(expected, [text] * len(expected), languages))), text) for text in tried)


def _texts(expected: Sequence[str]) -> list[str]:
    return [text for text, _ in Counter(expected).most_common(max(1, min(50, PAIRS // (4 * len(expected)))))]


def _thin(boxes: np.ndarray) -> np.ndarray:
    """At most `BOX_CANDIDATES` of them, evenly spread."""
    if len(boxes) <= BOX_CANDIDATES:
        return boxes
    return boxes[np.linspace(0, len(boxes) - 1, BOX_CANDIDATES).astype(int)]


def _box(edges: np.ndarray) -> BoxTuple:
    left, top, right, bottom = (round(float(x), 4) for x in edges)
    return left, top, right, bottom


def _climb(start: np.ndarray, steps: np.ndarray, rank: Callable[[np.ndarray], np.ndarray]) -> tuple[float, np.ndarray]:
    """Hill climbing: the best of all steps, until none is better."""
    here, value = start, float(rank(start[None])[0])
    for _ in range(60):
        around = np.clip(here + steps, 0, 1)
        values = rank(around)
        if values.max() <= value + 1e-9:
            break
        here, value = around[values.argmax()], float(values.max())
    return value, here
