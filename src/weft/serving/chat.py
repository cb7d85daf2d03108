"""`/v1/chat/completions`: a request to answers, whole or as they grow, in the shapes of OpenAI's API.

What weft adds stands under ``weft``, in a message and in the last chunk of a streamed answer's ``delta``: ``parts``
(text, boxes in fractions of the picture, words in seconds of the clip), ``raw`` (as it was generated), ``malformed``
(what looks like boxes or times and is none), ``windows`` (of a long clip) and ``heard`` (the words of a spoken turn
that was written down first).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from weft.conversation import dump_parts
from weft.generation import Reply
from weft.generation.batch import Token
from weft.serving.answers import Answering, Delta, Question, Usage
from weft.serving.errors import dumped, shaped
from weft.serving.limits import Limits
from weft.serving.schema import ChatRequest


class Chat:
    """The answers to one request; ``question`` is prepared, so nothing of the client's can be wrong any more."""

    def __init__(self, request: ChatRequest, question: Question, model: str, limits: Limits) -> None:
        self.usage = question.usage
        self._request, self._question, self._limits = request, question, limits
        self._top = (request.top_logprobs or 0) if request.logprobs else None
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self.first_token: float | None = None  # when it came, by time.monotonic

    def _answering(self, choice: int) -> Answering:
        options = self._request.options(choice, self._limits)
        return Answering(self._question, options, self._request.until, self._top)

    async def whole(self) -> dict[str, Any]:
        async with _ended([self._choice(i) for i in range(self._request.n or 1)]) as tasks:
            choices = await asyncio.gather(*tasks)
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage(self.usage)}

    async def _choice(self, index: int) -> dict[str, Any]:
        answering = self._answering(index)
        tokens: list[Token] = []
        async for delta in answering:
            self._seen(delta)
            tokens += delta.tokens
        reply = answering.reply
        message = {"role": "assistant", "content": reply.text, "refusal": None, "weft": extension(reply)}
        found = {"index": index, "message": message, "finish_reason": reason(reply), "logprobs": self._logprobs(tokens)}
        return found

    async def events(self) -> AsyncIterator[str]:
        """Server-sent events; an error of the engine's is one, and ends the stream without ``[DONE]``."""
        queue: asyncio.Queue[dict[str, Any] | Exception | None] = asyncio.Queue()
        count = self._request.n or 1
        options = self._request.stream_options
        counted = bool(options and options.include_usage)
        async with _ended([self._stream(i, queue) for i in range(count)]):
            while count:
                chunk = await queue.get()
                if isinstance(chunk, Exception):
                    yield _event(shaped(500, str(chunk)))
                    return
                if chunk is None:
                    count -= 1
                else:
                    yield self._chunk([chunk], {"usage": None} if counted else {})
            if counted:
                yield self._chunk([], {"usage": usage(self.usage)})
            yield "data: [DONE]\n\n"

    async def _stream(self, index: int, queue: asyncio.Queue[Any]) -> None:
        """The chunks of one choice, then None."""

        def give(delta: dict[str, Any], tokens: Sequence[Token] = (), finish: str | None = None) -> None:
            chunk = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": self._logprobs(tokens)}
            queue.put_nowait(chunk)

        try:
            give({"role": "assistant", "content": ""})
            answering = self._answering(index)
            async for delta in answering:
                self._seen(delta)
                if delta.text or delta.tokens and self._top is not None:
                    give({"content": delta.text}, delta.tokens)
            give({"weft": extension(answering.reply)}, finish=reason(answering.reply))
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)

    def _chunk(self, choices: list[dict[str, Any]], more: dict[str, Any]) -> str:
        return _event({**self._head, "object": "chat.completion.chunk", "choices": choices, **more})

    def _seen(self, delta: Delta) -> None:
        if self.first_token is None and delta.tokens:
            self.first_token = time.monotonic()

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if self._top is None or not tokens:
            return None
        content = []
        for token in tokens:
            top = [self._scored(i, value) for i, value in token.likeliest]
            content.append(self._scored(token.id, token.log_probability or 0.0) | {"top_logprobs": top})
        return {"content": content, "refusal": None}

    def _scored(self, token: int, value: float) -> dict[str, Any]:
        """An id as its own text; a part of a character has bytes that its text does not tell."""
        text = self._question.engine.processor.tokenizer.decode([token], skip_special_tokens=False)
        whole = "\ufffd" not in text
        return {"token": text, "logprob": max(value, -9999.0), "bytes": list(text.encode()) if whole else None}


@asynccontextmanager
async def _ended(calls: Sequence[Coroutine[Any, Any, Any]]) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """The calls as tasks; none goes on when the block is left, however it is."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


def extension(reply: Reply) -> dict[str, Any]:
    """What an answer holds beside its text."""
    return {
        "parts": dump_parts(reply.parts),
        "raw": reply.raw,
        "malformed": list(reply.malformed),
        "windows": reply.windows,
        **({"heard": reply.heard} if reply.heard else {}),
    }


def reason(reply: Reply) -> str:
    return "stop" if reply.finished else "length"


def usage(used: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": used.prompt,
        "completion_tokens": used.generated,
        "total_tokens": used.prompt + used.generated,
        "prompt_tokens_details": {"image_tokens": used.image, "audio_tokens": used.audio, "cached_tokens": 0},
    }


def _event(content: dict[str, Any]) -> str:
    return f"data: {dumped(content)}\n\n"
