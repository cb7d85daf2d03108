"""Captions: the tokens that published CIDEr figures are made of, without Java.

Published figures (Clotho in Qwen-Audio, COCO) are fed those of Stanford's PTB tokenizer, which is Java; `ptb_like`
follows its rules as far as captions need them, and is named for what it is. SPICE, and so SPIDEr, need Java programs
and are not made here.
"""

from __future__ import annotations

import regex

from weft.evaluation.pairs import Pair, as_text
from weft.evaluation.published.rows import Row

# What pycocoevalcap throws away after tokenising. Its list has brackets in upper case and the tokens are in lower, so
# brackets stay: they stay here too.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_TYPED = str.maketrans({"’": "'", "‘": "`", "“": "``", "”": "''", '"': "''", "–": "--", "—": "--", "…": "..."})
_SPLIT_WORDS = {"cannot": ["can", "not"], "gonna": ["gon", "na"], "gotta": ["got", "ta"], "wanna": ["wan", "na"]}
_ABBREVIATIONS = r"(?:mr|mrs|ms|dr|st|jr|sr|vs|etc|prof|inc|co|[a-z](?:\.[a-z])+)\."
_TOKEN = regex.compile(
    rf"""https?://\S+ | [\w.+-]+@[\w-]+(?:\.[\w-]+)+
    | {_ABBREVIATIONS}(?![a-z])
    | \d+(?:[.,:]\d+)+ | \d+/\d+  # numbers, times, fractions
    | \.{{2,}} | -{{2,}} | '' | `` | '(?:s|m|d|ll|re|ve)\b
    | [^\W_]+(?:[-_&/][^\W_]+)*(?:'[^\W_]+)*(?:-[^\W_]+)*  # words, hyphens inside
    | \S""",
    regex.VERBOSE,
)
_CLITIC = regex.compile(r"(.+?)(n't|'(?:s|m|d|ll|re|ve))$")


def ptb_like(text: str) -> list[str]:
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


def read_row(row: Row, task: str, language: str | None = None) -> Pair:
    """References: ``answers`` (or ``captions``, ``texts``): one string or a list of them."""
    texts = tuple(row.reference.strings("answers", "captions", "texts", "text", "answer", "caption"))
    return Pair(task, as_text(texts[0]), (), row.language(language), references=texts).said(row.prediction)
