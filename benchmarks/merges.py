"""Learns the byte-pair merges of weft's own tokenizer, ``src/weft/models/merges.txt``, from the words beside this file.

    .venv/bin/python benchmarks/merges.py > merges.txt

In blocks, the more telling words first; before them those of `chatml`'s wordings and the names of languages.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tokenizers import Regex, pre_tokenizers

from weft.dialects.chatml import WORDINGS
from weft.dialects.turns import LANGUAGES

MERGES = 768
WORDS = Path(__file__).with_name("words.txt")


def merges(count: int = MERGES) -> tuple[tuple[str, str], ...]:
    """Byte-pair merges learned from the word list: the most frequent pair first, ties in alphabetical order."""
    split = pre_tokenizers.Split(Regex(r"\p{L}+"), "isolated")
    counts: Counter[tuple[str, ...]] = Counter()
    wording = " ".join(" ".join(pair) for pair in WORDINGS.values()) + " " + " ".join(LANGUAGES.values())
    blocks = [wording, *WORDS.read_text("utf-8").strip().split("\n\n")]
    for weight, block in enumerate(reversed(blocks), 1):
        for letters, _ in split.pre_tokenize_str(block):
            if letters.isalpha():
                counts[tuple(letters)] += weight**2
    words = {"".join(letters): letters for letters in counts}
    weights = {word: counts[letters] for word, letters in words.items()}
    pairs: Counter[tuple[str, str]] = Counter()
    for word, pieces in words.items():
        for pair in zip(pieces, pieces[1:], strict=False):
            pairs[pair] += weights[word]
    found: list[tuple[str, str]] = []
    while len(found) < count and pairs:
        most = max(pairs.values())
        best = min(pair for pair, n in pairs.items() if n == most)
        found.append(best)
        for word, pieces in words.items():
            if best[0] + best[1] in word and (merged := _merged(pieces, best)) != pieces:
                words[word] = merged
                for pair in zip(pieces, pieces[1:], strict=False):
                    pairs[pair] -= weights[word]
                for pair in zip(merged, merged[1:], strict=False):
                    pairs[pair] += weights[word]
        pairs = +pairs
    return tuple(found)


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return tuple(out)


if __name__ == "__main__":
    for left, right in merges():
        print(left, right)
