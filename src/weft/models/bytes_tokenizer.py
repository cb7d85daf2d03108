"""weft's own small tokenizer: bytes, and whole pieces of common words; an ordinary ``tokenizer.json``.

Any text can be written, nothing is unknown. Letters run together into pieces that are merged by byte-pair encoding
learned from a list of words, always with the same result; digits, spaces and signs stay single bytes, so a word is
the same token after a space, at the start of a line and between two times.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from weft.dialects.chatml import WORDINGS
from weft.dialects.turns import LANGUAGES

MERGES = 768
# Words of prompts, numbers, places, things, sounds and everyday English: in blocks, the more telling ones first.
WORDS = Path(__file__).with_name("words.txt")


@lru_cache(maxsize=1)
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


def bytes_tokenizer(special_tokens: list[str] | None = None, count: int = MERGES) -> PreTrainedTokenizerFast:
    """A fast tokenizer of 256 bytes, ``count`` merges at most, ``<|pad|>`` and ``special_tokens``, in this order.

    No beginning-of-text token; the end of text is ``<|im_end|>`` where the special tokens have it. With ``count`` 0 it
    is pure bytes.
    """
    pairs = merges()[:count]
    vocabulary = {char: i for i, char in enumerate(sorted(ByteLevel.alphabet()))}
    for left, right in pairs:
        vocabulary.setdefault(left + right, len(vocabulary))
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=list(pairs)))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{L}+|[^\p{L}]"), "isolated"),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    tokens = ["<|pad|>", *dict.fromkeys(special_tokens or [])]
    backend.add_special_tokens(tokens)
    eos = "<|im_end|>" if "<|im_end|>" in tokens else None
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<|pad|>", eos_token=eos)
