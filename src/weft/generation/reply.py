"""What generation is asked for and what it gives back."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from weft.conversation import Box, Part, WeftError, Words, dump_parts

MOST_TOKENS = 1 << 20  # longer than the context of any model
MOST_BEAMS = 128  # each holds a cache of its own
MOST_TOGETHER = 1 << 16


@dataclass(frozen=True, slots=True)
class Options:
    """Decoding options. The default is greedy.

    ``seed`` makes sampling repeat; every conversation of a batch draws from a generator of its own, so that its answer
    does not depend on its neighbours. A sampling option other than its default needs ``do_sample``.
    """

    max_new_tokens: int = 256
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: no limit
    num_beams: int = 1
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "top_k", "num_beams", "seed"):
            value = getattr(self, name)
            if not (isinstance(value, int) or name == "seed" and value is None):
                raise WeftError(f"{name} is {value!r}; it must be a whole number")
        checks = (
            ("max_new_tokens", 1 <= self.max_new_tokens <= MOST_TOKENS, f"at least 1 and at most {MOST_TOKENS:,}"),
            ("temperature", 0 < self.temperature < math.inf, "above 0 (for greedy decoding leave sampling off)"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", 0 <= self.top_k < 1 << 31, "0 (no limit) or more, and no more than there are tokens"),
            ("num_beams", 1 <= self.num_beams <= MOST_BEAMS, f"at least 1 and at most {MOST_BEAMS}"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0, and finite"),
            ("seed", self.seed is None or 0 <= self.seed < 1 << 63, "0 or more, and below 2 to the power of 63"),
        )
        for name, holds, rule in checks:
            if not holds:
                raise WeftError(f"{name} is {getattr(self, name)}; it must be {rule}")
        if not self.do_sample and (self.temperature, self.top_p, self.top_k) != (1.0, 1.0, 0):
            raise WeftError("temperature, top_p and top_k need do_sample=True; without it decoding is greedy")

    @classmethod
    def of(cls, options: Options | None, changes: dict[str, Any]) -> Options:
        """``options`` (or the defaults) with ``changes``; a name that does not exist is an error."""
        names = {f.name for f in fields(cls)}
        for name in changes:
            if name not in names:
                raise WeftError(f"there is no generation option {name!r}; there are {', '.join(sorted(names))}")
        base = {name: getattr(options, name) for name in names} if options is not None else {}
        return cls(**{**base, **changes})


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its text as generated, and its parts as data."""

    text: str  # parts written for a person: words and labels, without special tokens
    raw: str  # exactly what was generated, special tokens kept, stop token removed
    parts: tuple[Part, ...]
    tokens: int  # generated tokens
    finished: bool  # False where max_new_tokens cut the answer
    windows: int = 1  # how many windows a long clip was split into
    malformed: tuple[str, ...] = ()  # what looks like boxes or times and is none; it is in the text, as it was written
    heard: str = ""  # the words of a spoken turn, where the model wrote them down first (`spoken`)

    @property
    def boxes(self) -> tuple[Box, ...]:
        return tuple(p for p in self.parts if isinstance(p, Box))

    @property
    def words(self) -> tuple[Words, ...]:
        return tuple(p for p in self.parts if isinstance(p, Words))

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it: what ``weft chat --json`` prints and an answer file has."""
        return {
            "text": self.text,
            "parts": dump_parts(self.parts),
            "raw": self.raw,
            "tokens": self.tokens,
            "finished": self.finished,
            "windows": self.windows,
            "malformed": list(self.malformed),
            **({"heard": self.heard} if self.heard else {}),
        }
