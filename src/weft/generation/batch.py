"""The running batch: prompts join it at any step, answers leave it when they are done.

One step gives each row that runs its next token, and reads the prompts that join, which gives them their first. All
that decodes without beams goes through here: a chat is a batch of one, files of requests and servers keep theirs full.
An answer does not depend on its neighbours: rows are padded on the left and masked, and draw from generators of their
own. In float32 the tokens are those of the request alone.

Shapes: B rows, L columns, W the language model's width, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from weft.generation import rows as cached
from weft.generation.embedding import Embedder
from weft.generation.reply import Options
from weft.generation.sampling import choose, likeliest, seen_ids
from weft.models.encoding import Encoded

PROMPT_TOKENS = 4096  # of prompts that are read in one step, so that the rows that run do not wait for long
SPARE = 64  # columns that must be padding in every row before they are dropped


@dataclass(frozen=True, slots=True)
class Token:
    """One generated id; its log-probability and the likeliest ids at its place where they were asked for."""

    id: int
    log_probability: float | None = None
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclass(eq=False, slots=True)
class Row:
    """One prompt and its answer under way. ``ended`` once its last token is there or ``error`` says why there is none.

    ``limit``: the most tokens of its answer. ``top``: how many of the likeliest ids come with each token; None: not
    even its own log-probability.
    """

    prompt: Encoded | None
    options: Options
    limit: int
    top: int | None = None
    ids: list[int] = field(default_factory=list)
    ended: bool = False
    error: Exception | None = None
    length: int = 0  # of its prompt
    shown: bool = False  # media in it
    draws: Any = None
    seen: torch.Tensor | None = None

    def __post_init__(self) -> None:
        assert self.prompt is not None
        self.length, self.shown = len(self.prompt), bool(self.prompt.spans)
        self.draws = np.random.default_rng(self.options.seed)


@dataclass(frozen=True, slots=True)
class Made:
    """What a step gave a row: its next token, its ``last`` one, or none and the ``row.error`` why."""

    row: Row
    token: Token | None
    last: bool


class RunningBatch:
    """At most ``most`` rows of together ``tokens`` tokens, padding and room for answers included, and those that wait.

    ``stop``: the ids that end an answer. A single row may be longer than ``tokens``.
    """

    def __init__(self, model: Any, embedder: Embedder, stop: frozenset[int], most: int = 16, tokens: int = 16384):
        self.waiting: deque[Row] = deque()
        self.running: list[Row] = []
        self._model, self._embedder, self._stop, self._most, self._tokens = model, embedder, stop, most, tokens
        self._cache: Any = None
        self._mask_BL: Any = None

    def __len__(self) -> int:
        return len(self.waiting) + len(self.running)

    def add(self, row: Row) -> None:
        self.waiting.append(row)

    def drop(self, row: Row) -> None:
        """Ends a row before its time: it has no further token."""
        row.ended = True

    @torch.inference_mode()
    def step(self) -> list[Made]:
        """The next token of each row that runs or joins."""
        self._leave()
        made = self._advance() if self.running else []
        self._leave()
        for group in _alike(self._joining()):
            made += self._read(group)
        self._leave()
        return made

    def _advance(self) -> list[Made]:
        """One token more for all that run."""
        last_B1 = torch.tensor([[row.ids[-1]] for row in self.running], device=self._mask_BL.device)
        self._mask_BL = F.pad(self._mask_BL, (0, 1), value=1)
        try:
            out = self._forward(self.running, self._mask_BL, self._cache, input_ids=last_B1)
            return self._chosen(self.running, out)
        except Exception as error:  # memory, for instance: these rows are lost, those that wait are not
            return failed(self.running, error)

    def _read(self, rows: list[Row]) -> list[Made]:
        """Reads prompts and lets them join; where that fails each by itself, so that one harms no other."""
        try:
            made, cache, mask_BL = self._first(rows)
        except Exception as error:
            return failed(rows, error) if len(rows) == 1 else [one for row in rows for one in self._read([row])]
        if not self.running:
            self._cache, self._mask_BL = cache, mask_BL
        else:
            cached.join(self._cache, cache, (len(self.running), len(rows)))
            width = max(self._mask_BL.shape[1], mask_BL.shape[1])
            both = [F.pad(mask, (width - mask.shape[1], 0)) for mask in (self._mask_BL, mask_BL)]
            self._mask_BL = torch.cat(both)
        self.running += rows
        self._leave()
        return made

    def _first(self, rows: list[Row]) -> tuple[list[Made], Any, torch.Tensor]:
        """The first tokens of prompts, their cache, and which of its columns are real [B, L]."""
        prompts = [row.prompt for row in rows if row.prompt is not None]
        embeds_BLW = pad_sequence(self._embedder(prompts), True, 0.0, "left")
        real = [torch.ones(row.length, dtype=torch.long, device=embeds_BLW.device) for row in rows]
        mask_BL = pad_sequence(real, True, 0, "left")
        config = self._model.config.get_text_config()
        for row, prompt in zip(rows, prompts, strict=True):
            if row.options.repetition_penalty != 1:
                row.seen = seen_ids(prompt.input_ids, config.vocab_size, embeds_BLW.device)
        cache, known = self._embedder.begin(rows, embeds_BLW)
        out = self._forward(rows, mask_BL, cache, inputs_embeds=embeds_BLW[:, known:])
        made = self._chosen(rows, out)
        for row in rows:
            row.prompt = None  # pictures and features are not needed any more
        return made, cache, mask_BL

    def _forward(self, rows: list[Row], mask_BL: torch.Tensor, cache: Any, **inputs: torch.Tensor) -> torch.Tensor:
        """Logits [B, V] of the last column."""
        length = next(iter(inputs.values())).shape[1]
        positions_BL = (mask_BL.cumsum(-1) - 1).clamp(min=0)[:, -length:]
        known = {"attention_mask": mask_BL, "position_ids": positions_BL, "cache": cache, "use_cache": True}
        known |= {} if (gate := self._model.gate) is None else {"adapted": gate.told(rows, mask_BL.shape[1])}
        return self._model(**inputs, **known, logits_to_keep=1).logits[:, -1].float()

    def _chosen(self, rows: list[Row], logits_BV: torch.Tensor) -> list[Made]:
        plain_BV = logits_BV.clone() if any(row.seen is not None for row in rows) else logits_BV
        ids = choose(logits_BV, [r.options for r in rows], [r.draws for r in rows], [r.seen for r in rows])
        made: list[Made] = []
        for row, token, own_V in zip(rows, ids, plain_BV, strict=True):
            row.ids.append(token)
            row.ended = row.ended or token in self._stop or len(row.ids) >= row.limit
            if row.seen is not None:
                row.seen[token] = True
            value, top = (None, []) if row.top is None else likeliest(own_V, token, row.top)
            made.append(Made(row, Token(token, value, tuple(top)), row.ended))
        return made

    def _leave(self) -> None:
        """Drops the rows that have ended, and the columns that only they needed."""
        going = [i for i, row in enumerate(self.running) if not row.ended]
        if len(going) == len(self.running):
            return
        # The last take the places of those that left, so that the others' keys and values stay where they are.
        late = [i for i in going if i >= len(going)]
        going = [i if not self.running[i].ended else late.pop() for i in range(len(going))]
        self.running = [self.running[i] for i in going]
        if not going:
            self._cache = self._mask_BL = None
            return
        kept = torch.tensor(going, device=self._mask_BL.device)
        cached.keep(self._cache, kept)
        self._mask_BL = self._mask_BL[kept]
        longest = max(row.length + len(row.ids) - 1 for row in self.running)
        if (spare := self._mask_BL.shape[1] - longest) >= SPARE:
            cached.cut(self._cache, spare)
            self._mask_BL = self._mask_BL[:, spare:]

    def _joining(self) -> list[Row]:
        """Those of the waiting that fit, in their order."""
        joining: list[Row] = []
        width = max((row.length + row.limit for row in self.running), default=0)
        read = 0
        while self.waiting:
            row = self.waiting[0]
            rows = len(self.running) + len(joining) + 1
            width = max(width, row.length + row.limit)
            read += row.length
            full = rows > self._most or rows * width > self._tokens or joining and read > PROMPT_TOKENS
            if full and rows > 1 and not row.ended:
                break
            self.waiting.popleft()
            if not row.ended:
                joining.append(row)
        return joining


def _alike(rows: Sequence[Row]) -> list[list[Row]]:
    """Prompts in groups of similar length, so that little of what is read together is padding."""
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: -row.length):
        if groups and 4 * row.length >= 3 * groups[-1][0].length:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def failed(rows: Sequence[Row], error: Exception) -> list[Made]:
    """Ends rows by an error."""
    for row in rows:
        row.error, row.ended = error, True
    return [Made(row, None, True) for row in rows]
