"""Open-ended visual question answering: VQA soft accuracy (OK-VQA, VQAv2) and the VizWiz rule of MiniGPT-v2.

The official rule (GT-Vision-Lab/VQA, ``vqaEval.py``), with what it does beside what it says:

- prediction and answers are normalised, but only where the annotators' answers differ among themselves;
- a punctuation mark is removed where the answer has it beside a space, or has a comma between digits; else it becomes a
  space. Apostrophes, ampersands, colons and per cent signs stay;
- the pattern for periods has its look-behind mistyped, so every period goes that no digit follows, and since a flag
  stands where the count belongs, only the first 32 of them;
- "none" is the number 0, and of the numbers only those up to ten are recognised;
- the accuracy is the mean over annotators of min(1, agreeing others / 3).

MiniGPT-v2's (Vision-CAIR/MiniGPT-4 at d94738a, ``minigpt4/common/vqa_tools/vqa_eval.py``, which it has from LAVIS)
normalises the prediction always and whole, the annotators' answers only in their punctuation and only where they
differ, and compares exactly. So annotators' "two", "a red bus", "Frisbee." and "pizza!" can never be met, and its
figures are lower. It rounds to two digits of a per cent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from weft.evaluation.pairs import Pair, as_text
from weft.evaluation.published.rows import Row
from weft.evaluation.scorers import mean
from weft.named import beside

_TABLES = beside(__file__)
CONTRACTIONS = {word.replace("'", ""): word for word in _TABLES["whole"].split()}
for _word in _TABLES["double"].split():  # one apostrophe missing, either of them
    CONTRACTIONS |= {_word[:i] + _word[i + 1 :]: _word for i, c in enumerate(_word) if c == "'"}
CONTRACTIONS |= _TABLES["others"]
NUMBERS: dict[str, str] = _TABLES["numbers"]
ARTICLES = frozenset({"a", "an", "the"})
MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")


def without_marks(answer: str) -> str:
    """The official handling of punctuation marks and periods."""
    text = answer
    comma = _COMMA.search(answer) is not None
    for mark in MARKS:
        spaced = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if spaced or comma else " ")
    return _PERIOD.sub("", text, count=32)


def normalize(answer: str) -> str:
    """The official normalisation: marks, periods, case, numbers, articles, contractions; in this order."""
    words = [NUMBERS.get(word, word) for word in without_marks(answer).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def trimmed(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def soft_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The official accuracy of one answer, 0..1, not rounded."""
    prediction, answers = trimmed(prediction), [trimmed(a) for a in answers]
    if len(set(answers)) > 1:
        prediction, answers = normalize(prediction), [normalize(a) for a in answers]
    return _agreement([a.lower() == prediction.lower() for a in answers])


def original_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The accuracy of one answer by MiniGPT-v2's copy, 0..1, not rounded."""
    # The evaluation script lower-cases answers and removes <unk> before it hands them over.
    prediction = normalize(trimmed(prediction.lower().replace("<unk>", "")))
    if len(set(answers)) > 1:
        answers = [without_marks(a) for a in answers]
    return _agreement([a == prediction for a in answers])


def _agreement(agree: Sequence[bool]) -> float:
    """Each annotator is left out once."""
    total = sum(agree)
    return mean([min(1.0, (total - one) / 3) for one in agree])


def original_vizwiz(prediction: str, answers: Sequence[str]) -> float:
    """The accuracy of one answer by MiniGPT-v2's VizWiz rule, 0..1. It joins the answers with ``_`` and splits them."""
    return min(sum(a.lower() == prediction.lower() for a in "_".join(answers).split("_")) / 3, 1.0)


def read_row(row: Row, task: str) -> Pair:
    """References: ``answers``, one string an annotator."""
    answers = tuple(row.reference.strings("answers"))
    return Pair(task, as_text(answers[0]), (), references=answers).said(row.prediction)
