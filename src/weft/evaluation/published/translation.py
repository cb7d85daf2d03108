"""Translation: BLEU as Qwen-Audio scores CoVoST 2, and weft's.

The original (QwenLM/Qwen-Audio at b50fb95, ``eval_audio/evaluate_st.py``) is sacrebleu's ``corpus_bleu`` a direction,
with the tokenizer of the target language (``zh``; ``ja-mecab``; ``13a`` for all others) and no normalising. weft's is
sacrebleu too, over all rows, with ``zh`` for Chinese and ``char`` for languages without spaces: no dictionary needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import sacrebleu

from weft.evaluation import scorers
from weft.evaluation.published.rows import Row, Scores

ORIGINAL_TOKENIZERS = {"zh": "zh", "ja": "ja-mecab"}


def original_bleu(expected: Sequence[str], given: Sequence[str], language: str | None) -> float | None:
    """Corpus BLEU, 0..100; None where the tokenizer of the language is not installed."""
    tokenizer = ORIGINAL_TOKENIZERS.get(language or "", "13a")
    try:
        return float(sacrebleu.corpus_bleu(list(given), [list(expected)], tokenize=tokenizer).score)
    except (ImportError, RuntimeError):  # sacrebleu says so in either way when a dictionary is missing
        if tokenizer != "ja-mecab":
            raise
        return None


def score(rows: Sequence[Row], language: str | None = None) -> Scores:
    """References: ``text``, and ``language``, that of the translation (or one given for all)."""
    expected = [row.reference.string("text", "answer") for row in rows]
    given = [row.prediction.strip() for row in rows]
    codes = [row.language(language) for row in rows]
    figures: dict[str, float | None] = {"bleu": scorers.bleu(expected, given, codes)}
    says = {"bleu": SAYS["bleu"]}
    kinds = sorted({code or "" for code in codes})
    notes = []
    for kind in kinds:
        where = [i for i, code in enumerate(codes) if (code or "") == kind]
        name = "qwen_audio_bleu" if len(kinds) == 1 else f"qwen_audio_bleu_{kind or 'unnamed'}"
        figures[name] = original_bleu([expected[i] for i in where], [given[i] for i in where], kind)
        says[name] = SAYS["qwen_audio_bleu"]
        if figures[name] is None:
            notes.append(f"{name} needs the Japanese dictionary of sacrebleu: pip install 'sacrebleu[ja]'")
    each: list[dict[str, float | None]] = [
        {"bleu": scorers.sentence_bleu(x, y, code)} for x, y, code in zip(expected, given, codes, strict=True)
    ]
    settings = {
        "languages": [kind or "not given" for kind in kinds],
        "normaliser": "none",
        "sacrebleu": {kind or "not given": scorers.bleu_signature(kind or None) for kind in kinds},
    }
    return Scores(figures, each, says, ("sacrebleu",), settings, notes)


SAYS = {
    "bleu": "0..1: sacrebleu, zh: tok:zh, other languages without spaces: tok:char, else tok:13a; exponential "
    "smoothing; a sample alone: with effective order",
    "qwen_audio_bleu": "0..100: sacrebleu's corpus_bleu with 13a, zh or ja-mecab, as Qwen-Audio's evaluate_st.py",
}
