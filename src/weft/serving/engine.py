"""Who generates: the protocol that an engine keeps, and the local one, a running batch in a thread of its own.

An engine prepares the prompt of a conversation (which may block, and raises what is wrong with it), then takes it and
gives its tokens as they are made. Whoever does not want the rest says so. What ids mean is not the engine's business:
`generation.answer` reads them with the model's processor.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from weft.conversation import Conversation
from weft.generation import Model, Options
from weft.generation.answer import Answer
from weft.generation.batch import Made, Row, RunningBatch, Token, failed
from weft.generation.embedding import Embedder
from weft.generation.spoken import Written
from weft.generation.until import Until
from weft.generation.windows import WindowPrompt
from weft.models.encoding import Encoded


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation, or a window of one, as the engine takes it. ``room``: the most tokens an answer can have."""

    conversation: Conversation
    encoded: Encoded
    room: int

    def tokens(self, modality: str | None = None) -> int:
        """Of the whole prompt, or those that stand for its pictures ("image") or clips ("audio")."""
        if modality is None:
            return len(self.encoded)
        return sum(span.length for span in self.encoded.spans if span.modality == modality)


class Generation(Protocol):
    """The tokens of one answer, as they are made."""

    def __aiter__(self) -> AsyncIterator[list[Token]]:
        """Lists of those that have come since the last; raises where the engine fails."""

    def cancel(self) -> None:
        """Nobody wants the rest."""


class Engine(Protocol):
    processor: Any
    written: Written | None  # of spoken turns that are written down before they are asked

    @property
    def alive(self) -> bool:
        """Whether it can answer."""

    def start(self) -> None:
        """Within the event loop that will ask."""

    def stop(self) -> None: ...

    def windows(self, conversation: Conversation) -> list[WindowPrompt] | None:
        """The windows that a conversation is asked in one by one; None for most."""

    def prepare(self, conversation: Conversation) -> Prompt:
        """Blocks. Raises `WeftError` where the conversation cannot be asked."""

    def answer(self, prompt: Prompt, until: Sequence[str]) -> Answer: ...

    def submit(self, prompt: Prompt, options: Options, top: int | None) -> Generation: ...

    def counts(self) -> dict[str, int]:
        """For the metrics: rows running and waiting, encoded media reused and made, their bytes."""


class LocalEngine:
    """A `Model` behind the protocol. One thread runs the batch; all else is called in the event loop's thread, but for
    `prepare` and `windows`, which any may call."""

    def __init__(self, model: Model, most: int = 16, tokens: int = 1 << 16) -> None:
        self.processor, self._model, self._size = model.processor, model, (most, tokens)
        self.written: Written | None = model.written
        self._embedder: Embedder = model.embedder()
        self._batch = self._new_batch()
        self._coming: list[Row] = []
        self._under_way: dict[Row, LocalGeneration] = {}
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="weft engine", daemon=True)

    def _new_batch(self) -> RunningBatch:
        return self._model.batch(*self._size, self._embedder)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def windows(self, conversation: Conversation) -> list[WindowPrompt] | None:
        return self._model.windows(conversation)

    def prepare(self, conversation: Conversation) -> Prompt:
        encoded = self._model.prepare(conversation)
        return Prompt(conversation, encoded, self._model.room(encoded, 1 << 30))

    def answer(self, prompt: Prompt, until: Sequence[str]) -> Answer:
        return self._model.answer(prompt.conversation, prompt.encoded, partial(Until, until))

    def submit(self, prompt: Prompt, options: Options, top: int | None) -> LocalGeneration:
        row = Row(prompt.encoded, options, min(options.max_new_tokens, prompt.room), top)
        made = self._under_way[row] = LocalGeneration(row, lambda row: self._under_way.pop(row, None))
        with self._wake:
            self._coming.append(row)
            self._wake.notify()
        return made

    def counts(self) -> dict[str, int]:
        media = self._embedder
        waiting = len(self._batch.waiting) + len(self._coming)
        return {
            "rows_running": len(self._batch.running),
            "rows_waiting": waiting,
            "media_reused": media.hits,
            "media_encoded": media.misses,
            "media_bytes": media.bytes,
        }

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._stopping or self._coming or len(self._batch)):
                    self._wake.wait()
                if self._stopping:
                    return
                coming, self._coming = self._coming, []
            for row in coming:
                self._batch.add(row)
            try:
                made = self._batch.step()
            except Exception as error:  # not of the model, whose errors are those of rows: begin anew
                made = failed([*self._batch.running, *self._batch.waiting], error)
                self._batch = self._new_batch()
            self._loop.call_soon_threadsafe(self._deliver, made)

    def _deliver(self, made: list[Made]) -> None:
        for one in made:
            if (generation := self._under_way.get(one.row)) is not None:
                generation.take(one)
                if one.last:
                    del self._under_way[one.row]


class LocalGeneration:
    """``forget``: called where nobody waits for the row any more."""

    def __init__(self, row: Row, forget: Callable[[Row], Any]) -> None:
        self._row, self._forget, self._new = row, forget, asyncio.Event()
        self._tokens: list[Token] = []
        self._over = False

    def take(self, made: Made) -> None:
        if made.token is not None:
            self._tokens.append(made.token)
        self._over = made.last
        self._new.set()

    async def __aiter__(self) -> AsyncIterator[list[Token]]:
        over = False
        while not over:
            await self._new.wait()
            self._new.clear()
            tokens, self._tokens, over = self._tokens, [], self._over
            if tokens:
                yield tokens
        if self._row.error is not None:
            raise EngineError from self._row.error

    def cancel(self) -> None:
        self._row.ended = True
        self._forget(self._row)


class EngineError(RuntimeError):
    """The engine failed on an answer; its cause is none of the client's business."""
