"""Captions: CIDEr-D with any number of references, without Java.

The formula is that of pycocoevalcap's ``Cider`` (Vedantam et al., arXiv 1411.5726, with clipping and a length penalty
of sigma 6; tf-idf over n-grams of 1 to 4, document frequencies over the images of the references, times 10), and equals
it to rounding where both are fed the same tokens. Published figures (Clotho in Qwen-Audio, COCO) are fed those of
Stanford's PTB tokenizer, which is Java; `ptb_like` follows its rules as far as captions need them, and is named for
what it is. SPICE, and so SPIDEr, need Java programs and are not made here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

from weft.evaluation.published.rows import Row, Scores, mean
from weft.evaluation.text import normalized, units

Gram = tuple[str, ...]
SIGMA = 6.0

# What pycocoevalcap throws away after tokenising. Its list has brackets in upper case and the tokens are in lower, so
# brackets stay: they stay here too.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_TYPED = str.maketrans({"’": "'", "‘": "`", "“": "``", "”": "''", '"': "''", "–": "--", "—": "--", "…": "..."})
_SPLIT_WORDS = {"cannot": ["can", "not"], "gonna": ["gon", "na"], "gotta": ["got", "ta"], "wanna": ["wan", "na"]}
_ABBREVIATIONS = r"(?:mr|mrs|ms|dr|st|jr|sr|vs|etc|prof|inc|co|[a-z](?:\.[a-z])+)\."
_TOKEN = re.compile(
    rf"""https?://\S+ | [\w.+-]+@[\w-]+(?:\.[\w-]+)+
    | {_ABBREVIATIONS}(?![a-z])
    | \d+(?:[.,:]\d+)+ | \d+/\d+  # numbers, times, fractions
    | \.{{2,}} | -{{2,}} | '' | `` | '(?:s|m|d|ll|re|ve)\b
    | [^\W_]+(?:[-_&/][^\W_]+)*(?:'[^\W_]+)*(?:-[^\W_]+)*  # words, hyphens inside
    | \S""",
    re.VERBOSE,
)
_CLITIC = re.compile(r"(.+?)(n't|'(?:s|m|d|ll|re|ve))$")


def words(text: str, language: str | None = None) -> list[str]:
    """What weft's normaliser makes of it, as ``weft evaluate`` does."""
    return units(normalized(text, language))


def ptb_like(text: str, language: str | None = None) -> list[str]:
    """Penn Treebank tokens of a caption in lower case, punctuation removed: hyphenated words whole, clitics apart."""
    tokens: list[str] = []
    for token in _TOKEN.findall(text.lower().translate(_TYPED)):
        if token in _SPLIT_WORDS:
            tokens += _SPLIT_WORDS[token]
        elif clitic := _CLITIC.match(token):
            tokens += clitic.groups()
        else:
            tokens.append(_BRACKETS.get(token, token))
    return [t for t in tokens if t not in PUNCTUATION]


TOKENIZERS: dict[str, Callable[[str, str | None], list[str]]] = {"words": words, "ptb_like": ptb_like}


def cider_d(references: Sequence[Sequence[Sequence[str]]], candidates: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of every candidate, 0..10, from tokens; the corpus figure is the mean. ``references[i]`` are those of i.

    One sample alone scores 0: no n-gram is rare in one document.
    """
    cooked = [[_grams(tokens) for tokens in several] for several in references]
    frequency = Counter(gram for several in cooked for gram in set().union(*several))
    documents = math.log(max(len(references), 1))

    def vectors(grams: Counter[Gram]) -> tuple[list[dict[Gram, float]], list[float], int]:
        made: list[dict[Gram, float]] = [{}, {}, {}, {}]
        for gram, count in grams.items():
            made[len(gram) - 1][gram] = count * (documents - math.log(max(1, frequency[gram])))
        return made, [math.sqrt(sum(v * v for v in vector.values())) for vector in made], _bigrams(grams)

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


def _bigrams(grams: Counter[Gram]) -> int:
    """How many: the length that the penalty compares."""
    return sum(count for gram, count in grams.items() if len(gram) == 2)


def score(rows: Sequence[Row], language: str | None = None) -> Scores:
    """References: ``answers`` (or ``captions``, ``texts``): one string or a list of them."""
    texts = [row.reference.strings("answers", "captions", "texts", "text", "answer", "caption") for row in rows]
    codes = [row.language(language) for row in rows]
    found = {}
    for name, tokenize in TOKENIZERS.items():
        references = [[tokenize(t, code) for t in several] for several, code in zip(texts, codes, strict=True)]
        found[name] = cider_d(references, [tokenize(r.prediction, c) for r, c in zip(rows, codes, strict=True)])
    each: list[dict[str, float | None]] = [
        {"cider": a, "cider_ptb_like": b} for a, b in zip(found["words"], found["ptb_like"], strict=True)
    ]
    figures: dict[str, float | None] = {"cider": mean(found["words"]), "cider_ptb_like": mean(found["ptb_like"])}
    settings = {"tokenizer": {"cider": "words", "cider_ptb_like": "ptb_like"}}
    notes = ["one sample alone scores 0: CIDEr needs several"] if len(rows) == 1 else []
    return Scores(figures, each, SAYS, (), settings, notes)


SAYS = {
    "cider": "0..10: CIDEr-D, tokens: lower-cased words without punctuation, frequencies from the references scored",
    "cider_ptb_like": "0..10: CIDEr-D, tokens: like the Penn Treebank's (not Stanford's Java program), punctuation "
    "removed as pycocoevalcap does",
}
