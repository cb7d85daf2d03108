"""Answers that are right or wrong as strings: GQA, VSR, Hateful Memes, IconQA, and Qwen-Audio's classification sets.

Each released script has its own idea of equal, kept here by name; ``exact`` is weft's, the same for all.

- GQA, VSR, HM, IconQA: Vision-CAIR/MiniGPT-4 at d94738a, ``eval_scripts/eval_vqa.py``.
- CochlScene, TUT 2017, MELD, VocalSound, ClothoAQA: QwenLM/Qwen-Audio at b50fb95, ``eval_audio/evaluate_*.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from weft.evaluation.published.rows import Row, Scores, mean
from weft.evaluation.scorers import exact

Equal = Callable[[str, str], bool]


def _hateful(given: str, expected: str) -> bool:
    label = {"yes": "1", "no": "0"}
    given = given.lower().strip()
    return given in label and label[given] == label.get(expected.lower(), expected)


# name: (when the original calls it right, what the figure says)
ORIGINALS: dict[str, tuple[str, Equal, str]] = {
    "gqa": (
        "minigpt_v2_gqa_accuracy",
        lambda given, expected: given.lower() == expected,
        "per cent: the lower-cased answer equals the label (MiniGPT-v2's eval_vqa.py)",
    ),
    "vsr": (
        "minigpt_v2_vsr_accuracy",
        lambda given, expected: given.lower() == expected.lower(),
        "per cent: answer and label (true or false) are equal but for case (MiniGPT-v2's eval_vqa.py)",
    ),
    "hm": (
        "minigpt_v2_hm_accuracy",
        _hateful,
        "per cent: yes is label 1, no is 0, all else is wrong (MiniGPT-v2's eval_vqa.py)",
    ),
    "iconqa": (
        "minigpt_v2_iconqa_accuracy",
        lambda given, expected: given == expected,
        "per cent: the choice of lowest loss is the answer (MiniGPT-v2's eval_vqa.py; the choice is made by the model)",
    ),
}
EXACT = "0..1: equal after NFKC, casefold, spaces collapsed and punctuation at both ends removed"


def scorer(name: str) -> Callable[[Sequence[Row]], Scores]:
    """The metric of one of MiniGPT-v2's sets. References: ``answer``; for ``hm`` yes, no, 0 or 1."""
    figure, equal, says = ORIGINALS[name]

    def score(rows: Sequence[Row]) -> Scores:
        each: list[dict[str, float | None]] = []
        for row in rows:
            answer = _answer(row)
            word = {"1": "yes", "0": "no"}.get(answer, answer) if name == "hm" else answer
            right = equal(row.prediction, answer)
            each.append({"exact": exact(word, row.prediction).amount, figure: 100.0 * right})
        figures: dict[str, float | None] = {
            "exact": mean([one["exact"] or 0.0 for one in each]),
            figure: sum(one[figure] == 100.0 for one in each) / len(each) * 100,
        }
        return Scores(figures, each, {"exact": EXACT, figure: says})

    return score


def accuracy(rows: Sequence[Row]) -> Scores:
    """Qwen-Audio's accuracy: equal strings. References: ``answer`` (or ``text``).

    The binary figure is over the references that are yes or no in any case, as for ClothoAQA; None without any.
    """
    each: list[dict[str, float | None]] = []
    binary = []
    for row in rows:
        answer = _answer(row)
        same = float(row.prediction.strip() == answer)  # the original strips what was generated, and nothing else
        one: dict[str, float | None] = {"exact": exact(answer, row.prediction).amount, "qwen_audio_accuracy": same}
        if answer.lower() in ("yes", "no"):
            one["qwen_audio_accuracy_binary"] = same
            binary.append(same)
        each.append(one)
    figures: dict[str, float | None] = {
        "exact": mean([one["exact"] or 0.0 for one in each]),
        "qwen_audio_accuracy": mean([one["qwen_audio_accuracy"] or 0.0 for one in each]),
        "qwen_audio_accuracy_binary": mean(binary) if binary else None,
    }
    return Scores(figures, each, SAYS)


def _answer(row: Row) -> str:
    name, value = row.reference.need("answer", "text", "label")
    if isinstance(value, int):
        return str(int(value))
    if not isinstance(value, str):
        row.reference.wrong(name, "must be a string, or 0 or 1")
    return value


SAYS = {
    "exact": EXACT,
    "qwen_audio_accuracy": "0..1: equal strings, case and punctuation included (Qwen-Audio's evaluate_*.py)",
    "qwen_audio_accuracy_binary": "0..1: the same over references that are yes or no (ClothoAQA, evaluate_aqa.py)",
}
