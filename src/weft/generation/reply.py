"""What generation is asked for and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass

from weft.conversation import Box, Part, Words


@dataclass(frozen=True, slots=True)
class Options:
    """Decoding options. The default is greedy."""

    max_new_tokens: int = 256
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    num_beams: int = 1
    repetition_penalty: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its text as generated, and its parts as data."""

    text: str  # parts written for a person: words and labels, without special tokens
    raw: str  # exactly what was generated, special tokens kept, stop token removed
    parts: tuple[Part, ...]
    tokens: int  # generated tokens
    finished: bool  # False where max_new_tokens cut the answer
    windows: int = 1  # how many windows a long clip was split into

    @property
    def boxes(self) -> tuple[Box, ...]:
        return tuple(p for p in self.parts if isinstance(p, Box))

    @property
    def words(self) -> tuple[Words, ...]:
        return tuple(p for p in self.parts if isinstance(p, Words))
