"""Translation: BLEU as Qwen-Audio scores CoVoST 2, and weft's.

The original (QwenLM/Qwen-Audio at b50fb95, ``eval_audio/evaluate_st.py``) is sacrebleu's ``corpus_bleu`` a direction,
with the tokenizer of the target language (``zh``; ``ja-mecab``; ``13a`` for all others) and no normalising. weft's is
sacrebleu too, over all rows, with ``zh`` for Chinese and ``char`` for languages without spaces: no dictionary needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import sacrebleu

from weft.evaluation.pairs import Pair
from weft.evaluation.published.rows import Row
from weft.evaluation.published.speech import spoken

ORIGINAL_TOKENIZERS = {"zh": "zh", "ja": "ja-mecab"}


def original_bleu(pairs: Sequence[Pair]) -> float | None:
    """Corpus BLEU of one language, 0..100; None where the tokenizer of the language is not installed."""
    tokenizer = ORIGINAL_TOKENIZERS.get(pairs[0].language or "", "13a")
    try:
        given, expected = [pair.raw for pair in pairs], [pair.references[0] for pair in pairs]
        return float(sacrebleu.corpus_bleu(given, [expected], tokenize=tokenizer).score)
    except (ImportError, RuntimeError):  # sacrebleu says so in either way when a dictionary is missing
        if tokenizer != "ja-mecab":
            raise
        return None


def no_dictionary(pairs: Sequence[Pair]) -> str | None:
    if original_bleu(pairs) is not None:
        return None
    return "qwen_audio_bleu needs the Japanese dictionary of sacrebleu: pip install 'sacrebleu[ja]'"


def read_row(row: Row, task: str, language: str | None = None) -> Pair:
    """References: ``text``, and ``language``, that of the translation (or one given for all)."""
    return spoken(row, task, language, str.strip)
