"""What the best constant answer gets: the figure a model that neither sees nor hears could reach.

Each constant is chosen in hindsight, on the very samples that are scored, so it is the strongest among the candidates
that its kind names (``constant`` in ``metrics.toml``). A result that does not beat it has not used its input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from weft.conversation import Box, Word, Words
from weft.evaluation.metrics import Figures, Metric
from weft.evaluation.pairs import Pair, answer_boxes, answer_text, answer_words
from weft.evaluation.published.boxes import written
from weft.evaluation.scorers import IOU_THRESHOLD, BoxTuple, iou
from weft.evaluation.text import units

# Searches stop growing here, so that a baseline takes seconds on any test set.
PAIRS = 40_000
TEXTS = 50
BOX_CANDIDATES = 300

# A constant answer as JSON-ready data, and what makes it the answer of a pair.
Candidate = tuple[object, Callable[[Pair], Pair]]
Table = dict[str, dict[str, Any]]


def baseline(figures: Figures) -> tuple[Table, Table]:
    """For every figure what the best constant answer gets, and that answer."""
    values: Table = {}
    answers: Table = {}
    for task, metric, pairs in figures.scored:
        given = answers.setdefault(task, {})
        if metric.constant != "none":
            values.setdefault(task, {})[metric.name], given[metric.name] = best_constant(metric, pairs)
    return values, answers


def best_constant(metric: Metric, pairs: Sequence[Pair]) -> tuple[float | None, object]:
    best: float | None = None
    found: object = ""
    for answer, give in KINDS[metric.constant](pairs) if pairs else ():
        value = metric.computed.corpus([give(pair) for pair in pairs])
        if value is not None and (best is None or (value < best if metric.better == "lower" else value > best)):
            best, found = value, answer
    return best, found


def _texts(pairs: Sequence[Pair], cost: int = 1) -> list[Candidate]:
    """The commonest right answers; of those that are equally common, those of middle length."""
    counted = Counter(text for pair in pairs for text in pair.texts)
    middle = median(map(len, counted.elements()))
    order = sorted(counted, key=lambda text: (-counted[text], abs(len(text) - middle), text))
    return [_saying(text) for text in order[: max(1, min(TEXTS, PAIRS // (cost * len(pairs))))]]


def _transcripts(pairs: Sequence[Pair]) -> list[Candidate]:
    """Nothing, the commonest words repeated, and the right answers."""
    spoken = [units(answer_text(pair.expected)) for pair in pairs]
    longest = min(sorted(map(len, spoken))[len(spoken) // 2] + 1, 12)
    words = Counter(word for said in spoken for word in said).most_common(3)
    repeated = [_saying(" ".join([word] * n)) for word, _ in words for n in range(1, longest + 1)]
    return [_saying(""), *repeated, *_texts(pairs)][: max(2, PAIRS // len(pairs))]


def _saying(text: str) -> Candidate:
    return text, lambda pair: pair.said(text)


def _box(pairs: Sequence[Pair]) -> Iterator[Candidate]:
    """The box that most expected ones overlap, and the median box."""
    expected = [answer_boxes(pair.expected)[0] for pair in pairs]
    for box in (best_box(expected), _edges(np.median(np.asarray(expected), 0))):
        yield list(box), lambda pair, box=box: _showing(pair, [box])  # type: ignore[misc]


def _box_set(pairs: Sequence[Pair]) -> list[Candidate]:
    boxes = best_box_set([answer_boxes(pair.expected) for pair in pairs])
    return [([list(box) for box in boxes], lambda pair: _showing(pair, boxes))]


def _showing(pair: Pair, boxes: Sequence[BoxTuple]) -> Pair:
    image = next((part.image for part in pair.expected if isinstance(part, Box)), None)
    return replace(pair, given=(Box(tuple(boxes), None, image),), raw="".join(map(written, boxes)))


def _times(pairs: Sequence[Pair]) -> list[Candidate]:
    """Every word said right, the k-th always at the median start and end of all k-th words.

    The text is given away because a constant transcript matches next to nothing; the median is the constant of least
    absolute error.
    """
    spoken = [answer_words(pair.expected) for pair in pairs]
    columns = [[words[k] for words in spoken if len(words) > k] for k in range(max(map(len, spoken)))]
    middle = [(median(w.start for w in column), median(w.end for w in column)) for column in columns]

    def give(pair: Pair) -> Pair:
        words = zip(answer_words(pair.expected), middle, strict=False)
        return replace(pair, given=(Words(tuple(Word(word.text, *times) for word, times in words)),))

    return [("the right words, the k-th at the median time of all k-th words", give)]


KINDS: dict[str, Callable[[Sequence[Pair]], Any]] = {
    "text": _texts,
    "caption": lambda pairs: _texts(pairs, 4),  # which takes longer to score
    "transcript": _transcripts,
    "box": _box,
    "boxes": _box_set,
    "times": _times,
}


def best_box(expected: Sequence[BoxTuple]) -> BoxTuple:
    """The box that most of ``expected`` overlap by IoU >= 0.5: the expected ones and their mean, moved edge by edge."""
    references = np.asarray(expected, float)
    candidates = np.concatenate([references.mean(0, keepdims=True), _thin(references)])

    def rank(boxes: np.ndarray) -> np.ndarray:
        overlap = iou(boxes, references)  # the mean breaks ties, so that the climb sees a slope
        return (overlap >= IOU_THRESHOLD).mean(1) + 1e-3 * overlap.mean(1)

    starts = candidates[np.argsort(-rank(candidates), kind="stable")[:8]]
    steps = np.array([s * e for s in (0.08, 0.03, 0.01) for e in np.concatenate([np.eye(4), -np.eye(4)])])
    return _edges(max((_climb(start, steps, rank) for start in starts), key=lambda found: found[0])[1])


def best_box_set(expected: Sequence[Sequence[BoxTuple]]) -> list[BoxTuple]:
    """The set of boxes of highest pooled F1, grown greedily from expected boxes and the best single box."""
    counts = np.array([len(boxes) for boxes in expected])
    if not counts.sum():
        return []
    references = np.concatenate([np.asarray(b, float).reshape(-1, 4) for b in expected])
    sample = np.repeat(np.arange(len(expected)), counts)
    candidates = np.concatenate([np.asarray(best_box([_edges(b) for b in references]))[None], _thin(references)])
    hits = iou(candidates, references) >= IOU_THRESHOLD  # [candidates, references]
    free = np.ones(len(references), bool)
    chosen: list[BoxTuple] = []
    matched, best = 0, 0.0
    while True:
        gains = np.array([len(np.unique(sample[row & free])) for row in hits])
        c = int(gains.argmax())
        f1 = 2 * (matched + gains[c]) / (counts.sum() + (len(chosen) + 1) * len(expected))
        if f1 <= best:
            return chosen
        best, matched = float(f1), matched + int(gains[c])
        chosen.append(_edges(candidates[c]))
        open_hits = np.flatnonzero(hits[c] & free)  # one expected box a sample is used up by the new constant
        free[open_hits[np.unique(sample[open_hits], return_index=True)[1]]] = False


def _thin(boxes: np.ndarray) -> np.ndarray:
    """At most `BOX_CANDIDATES` of them, evenly spread."""
    if len(boxes) <= BOX_CANDIDATES:
        return boxes
    return boxes[np.linspace(0, len(boxes) - 1, BOX_CANDIDATES).astype(int)]


def _edges(edges: np.ndarray) -> BoxTuple:
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
