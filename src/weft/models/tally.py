"""How many there are: what a detector writes behind its list of things.

A small language model reads a list and cannot count it, but it can look a word up and copy the number beside it. So the
things are counted where they are found: all of them first, then those of each word of their names.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

MOST, DIGITS = 99, 3  # the largest number, which stands for larger ones too, and tokens that spell one
VOCABULARY, BITS = 2**18, 32  # tokens of a language model that are told from each other, and how many in a number


class Tally(nn.Module):
    """Numbers and words as one language model writes them, which it is told once (`learn`)."""

    numbers: torch.Tensor  # int64 [MOST + 1, DIGITS] ids of a number's tokens; -1: none
    things: torch.Tensor  # int64 [4] of the word for things of all kinds
    begins: torch.Tensor  # int64 [VOCABULARY / BITS]: a bit of each token, whether words begin with it
    blank: torch.Tensor  # int64 []: the token of a blank alone, where words come without one

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("numbers", torch.full((MOST + 1, DIGITS), -1))
        self.register_buffer("things", torch.full((4,), -1))
        self.register_buffer("begins", torch.zeros(VOCABULARY // BITS, dtype=torch.long))
        self.register_buffer("blank", torch.tensor(-1))

    @torch.no_grad()
    def learn(self, tokenizer: Any, encode_text: Any) -> None:
        """How the language model spells numbers, and which of its tokens begin words."""
        for row, text in [*zip(self.numbers, map(str, range(MOST + 1)), strict=True), (self.things, " objects")]:
            ids = encode_text(text)[: len(row)]
            row[: len(ids)] = torch.tensor(ids)
        (*_, before), blank = encode_text("a"), encode_text(" ")
        texts = tokenizer.batch_decode([[before, token] for token in range(min(len(tokenizer), VOCABULARY))])
        known = torch.tensor([text.startswith("a ") for text in texts] + [False] * (VOCABULARY - len(texts)))
        self.begins[:] = (known.view(-1, BITS) << torch.arange(BITS)).sum(1)
        if blank == encode_text(" a")[: len(blank)]:
            self.blank.fill_(blank[0])

    def write(self, names: list[list[int]], room: int) -> list[int]:
        """Ids, ``room`` at most, of how many things there are, and how many of each word of their ``names``."""
        words = Counter(word for name in names for word in dict.fromkeys(self.words(name)))
        things = tuple(token for token in self.things.tolist() if token >= 0)
        ids: list[int] = []
        for word, count in [(things, len(names)), *words.most_common()]:
            number = [token for token in self.numbers[min(count, MOST)].tolist() if token >= 0]
            if len(ids) + len(number) + len(word) <= room:
                ids += [*number, *word]
        return ids

    def words(self, name: list[int]) -> list[tuple[int, ...]]:
        """A name's tokens by words: pieces of one stay together."""
        words: list[list[int]] = [[]]
        blank = int(self.blank)
        at = torch.tensor(name, dtype=torch.long).clamp(max=VOCABULARY - 1)
        for token, begins in zip(name, (self.begins[at // BITS].cpu() >> at % BITS & 1).tolist(), strict=True):
            if begins:
                words.append([])
            if token != blank:
                words[-1].append(token)
        return [tuple(word) for word in words if word]
