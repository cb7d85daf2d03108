"""One answer of the server: the windows of its conversation, generated together, as one text that grows.

A recording longer than the model's window is asked window by window; a few run in the batch at a time, and what they
say is given in the order of the clip.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from weft.conversation import Conversation
from weft.generation import Options, Reply
from weft.generation.answer import Windows
from weft.generation.batch import Token
from weft.generation.spoken import TOKENS, Typed
from weft.generation.windows import WindowPrompt, merge
from weft.serving.engine import Engine, Prompt

TOGETHER = 4  # windows of one recording in the batch, so that it leaves room for others

InThread = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that has become readable, and the tokens that came with it."""

    text: str
    tokens: Sequence[Token] = ()


@dataclass
class Usage:
    prompt: int = 0
    image: int = 0
    audio: int = 0
    generated: int = 0

    def add(self, other: Usage) -> None:
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Question:
    """What is asked, its first prompt encoded: what is wrong with it has been said by now."""

    engine: Engine
    in_thread: InThread
    first: Prompt
    windows: list[WindowPrompt] | None
    typed: Typed | None = None  # where what is spoken was written down first
    usage: Usage = field(default_factory=Usage)
    counted: set[int] = field(default_factory=set)  # windows whose prompts are in the usage, once for all choices

    @classmethod
    async def of(cls, conversation: Conversation, engine: Engine, in_thread: InThread, most: int = TOKENS) -> Question:
        """``most``: tokens of what is written down of a spoken turn, before the question itself."""
        typed, usage = None, Usage()
        if (written := engine.written) is not None:
            for mark, asked in (await in_thread(written.asks, conversation)).items():
                answering = Answering(await cls.of(asked, engine, in_thread), Options(max_new_tokens=most))
                async for _ in answering:
                    pass
                written.learn(mark, answering.reply)
                usage.add(answering.usage)
            typed = await in_thread(written.typed, conversation)
            written.trim()
            conversation = typed.conversation
        windows = await in_thread(engine.windows, conversation)
        first = await in_thread(engine.prepare, windows[0].conversation if windows else conversation)
        return cls(engine, in_thread, first, windows, typed, usage)

    @property
    def count(self) -> int:
        return len(self.windows) if self.windows else 1

    async def prompt(self, window: int) -> Prompt:
        prompt = self.first
        if window and self.windows is not None:
            prompt = await self.in_thread(self.engine.prepare, self.windows[window].conversation)
        if window not in self.counted:
            self.counted.add(window)
            self.usage.prompt += prompt.tokens()
            self.usage.image += prompt.tokens("image")
            self.usage.audio += prompt.tokens("audio")
        return prompt


class Answering:
    """Iterate once; then ``replies`` holds the reply to each window, and ``reply`` the whole."""

    def __init__(self, question: Question, options: Options, until: Sequence[str] = (), top: int | None = None) -> None:
        self._question, self._options, self._until, self._top = question, options, until, top
        self.replies: list[Reply] = []

    @property
    def reply(self) -> Reply:
        windows, typed = self._question.windows, self._question.typed
        whole = merge(self.replies, windows) if windows else self.replies[0]
        return typed.told(whole) if typed is not None else whole

    @property
    def usage(self) -> Usage:
        return self._question.usage

    async def __aiter__(self) -> AsyncIterator[Delta]:
        if self._question.windows is None:
            async for delta in self._window(0):
                if isinstance(delta, Reply):
                    self.replies.append(delta)
                else:
                    yield delta
            return
        queues: list[asyncio.Queue[Delta | Reply | BaseException]] = [
            asyncio.Queue() for _ in range(self._question.count)
        ]
        tasks: list[asyncio.Task[None]] = []
        together = Windows()
        try:
            for window, queue in enumerate(queues):
                while len(tasks) < min(window + TOGETHER, len(queues)):
                    tasks.append(asyncio.create_task(self._into(queues[len(tasks)], len(tasks))))
                together.turn()
                while not isinstance(found := await queue.get(), Reply):
                    if isinstance(found, BaseException):
                        raise found
                    yield Delta(together.push(found.text), found.tokens)
                self.replies.append(found)
        finally:
            for task in tasks:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _into(self, queue: asyncio.Queue[Any], window: int) -> None:
        try:
            async for delta in self._window(window):
                queue.put_nowait(delta)
        except Exception as error:
            queue.put_nowait(error)

    async def _window(self, window: int) -> AsyncIterator[Delta | Reply]:
        """The answer to one window as it grows; last, its reply."""
        engine, usage = self._question.engine, self._question.usage
        prompt = await self._question.prompt(window)
        answer = engine.answer(prompt, self._until)
        generation = engine.submit(prompt, self._options, self._top)
        try:
            async for tokens in generation:
                taken, text = [], ""
                for token in tokens:
                    text += answer.push(token.id)
                    taken.append(token)
                    if answer.ended:
                        break
                yield Delta(text, taken)
                if answer.ended:
                    break
        finally:
            generation.cancel()
            usage.generated += len(answer.ids)
        rest, reply = answer.finish()
        yield Delta(rest)
        yield reply
