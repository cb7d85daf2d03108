"""Translation: BLEU as Qwen-Audio scores CoVoST 2, and weft's.

The original (QwenLM/Qwen-Audio at b50fb95, ``eval_audio/evaluate_st.py``) is sacrebleu's ``corpus_bleu`` a direction,
with the tokenizer of the target language (``zh``; ``ja-mecab``; ``13a`` for all others) and no normalising. weft's is
sacrebleu too, over all rows, with ``zh`` for Chinese and ``char`` for languages without spaces: no dictionary needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import sacrebleu

from weft.conversation import Text
from weft.evaluation import scorers
from weft.evaluation.metrics import METRICS, Pair
from weft.evaluation.metrics import score as score_pairs
from weft.evaluation.published import speech
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
    spoken = [speech.spoken(row, language) for row in rows]
    codes = [code for code, _ in spoken]
    pairs = [Pair("translate", (Text(x),), (Text(y),), *z) for x, y, z in zip(expected, given, spoken, strict=True)]
    sound = score_pairs(pairs, [METRICS["bleu"], METRICS["hallucinated_words_per_minute"]], baseline=False)
    figures: dict[str, float | None] = {"bleu": None, **sound.metrics["translate"]}
    says = {name: METRICS[name].says for name in figures}
    kinds = sorted({code or "" for code in codes})
    notes = sound.notes
    for kind in kinds:
        where = [i for i, code in enumerate(codes) if (code or "") == kind]
        name = "qwen_audio_bleu" if len(kinds) == 1 else f"qwen_audio_bleu_{kind or 'unnamed'}"
        figures[name] = original_bleu([expected[i] for i in where], [given[i] for i in where], kind)
        says[name] = SAYS["qwen_audio_bleu"]
        if figures[name] is None:
            notes.append(f"{name} needs the Japanese dictionary of sacrebleu: pip install 'sacrebleu[ja]'")
    settings = {
        "languages": [kind or "not given" for kind in kinds],
        "normaliser": "none",
        "sacrebleu": {kind or "not given": scorers.bleu_signature(kind or None) for kind in kinds},
    }
    return Scores(figures, sound.samples, says, ("sacrebleu",), settings, notes)


SAYS = {
    "qwen_audio_bleu": "0..100: sacrebleu's corpus_bleu with 13a, zh or ja-mecab, as Qwen-Audio's evaluate_st.py",
}
