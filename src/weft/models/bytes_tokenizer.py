"""weft's own small tokenizer: bytes, and whole pieces of common words; an ordinary ``tokenizer.json``.

Any text can be written, nothing is unknown. Letters run together into pieces that are merged by byte-pair encoding,
learned once from words of prompts, numbers, places, things, sounds and everyday English (`benchmarks/merges.py`);
digits, spaces and signs stay single bytes, so a word is the same token after a space, at the start of a line and
between two times.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast


@cache
def merges() -> tuple[tuple[str, str], ...]:
    """Byte-pair merges, the first learned first."""
    lines = Path(__file__).with_name("merges.txt").read_text("utf-8").splitlines()
    return tuple((left, right) for left, right in map(str.split, lines))


def bytes_tokenizer(special_tokens: list[str] | None = None, count: int | None = None) -> PreTrainedTokenizerFast:
    """A fast tokenizer of 256 bytes, merges (``count`` at most), ``<|pad|>`` and ``special_tokens``, in this order.

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
