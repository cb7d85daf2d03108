"""Answers that are right or wrong as strings: GQA, VSR, Hateful Memes, IconQA, and Qwen-Audio's classification sets.

Each released script has its own idea of equal, kept here by name; ``exact`` is weft's, the same for all.

- GQA, VSR, HM, IconQA: Vision-CAIR/MiniGPT-4 at d94738a, ``eval_scripts/eval_vqa.py``.
- CochlScene, TUT 2017, MELD, VocalSound, ClothoAQA: QwenLM/Qwen-Audio at b50fb95, ``eval_audio/evaluate_*.py``.
"""

from __future__ import annotations

from collections.abc import Callable

from weft.evaluation.pairs import Pair, as_text
from weft.evaluation.published.rows import Row


def _hateful(given: str, expected: str) -> bool:
    return {"yes": "1", "no": "0"}.get(given.lower().strip()) == {"yes": "1", "no": "0"}.get(expected.lower(), expected)


# When the original calls a given answer equal to the expected one.
EQUAL: dict[str, Callable[[str, str], bool]] = {
    "minigpt_v2_gqa_accuracy": lambda given, expected: given.lower() == expected,
    "minigpt_v2_vsr_accuracy": lambda given, expected: given.lower() == expected.lower(),
    "minigpt_v2_hm_accuracy": _hateful,
    "minigpt_v2_iconqa_accuracy": lambda given, expected: given == expected,
    # The original strips what was generated, and nothing else.
    "qwen_audio_accuracy": lambda given, expected: given.strip() == expected,
}


def equal(figure: str, pair: Pair) -> bool:
    return EQUAL[figure](pair.raw, pair.references[0])


def yes_or_no(pair: Pair) -> bool:
    """Whether the reference is, in any case: Qwen-Audio's binary figure is over these (ClothoAQA)."""
    return pair.references[0].lower() in ("yes", "no")


def read_row(row: Row, task: str) -> Pair:
    """References: ``answer`` (or ``text``), a string, or 0 or 1."""
    name, value = row.reference.need("answer", "text", "label")
    if isinstance(value, int):
        value = str(int(value))
    if not isinstance(value, str):
        row.reference.wrong(name, "must be a string, or 0 or 1")
    return Pair(task, as_text(value), (), references=(value,)).said(row.prediction)


def read_hateful(row: Row, task: str) -> Pair:
    """References: ``answer`` (or ``label``): yes, no, 0 or 1."""
    pair = read_row(row, task)
    word = {"1": "yes", "0": "no"}.get(pair.references[0], pair.references[0])
    return Pair(task, as_text(word), pair.given, raw=pair.raw, references=(word,))
