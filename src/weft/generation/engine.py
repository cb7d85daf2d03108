"""The engine: conversations in, replies out.

`Model` holds a weft model and its processor. Everything that generates goes through it (chat, requests, evaluation),
so that prompts, batching, stop tokens and parsing are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import torch

from weft.conversation import Conversation, WeftError
from weft.conversation.samples import parse_messages
from weft.generation.answer import Windows
from weft.generation.batch import Row, RunningBatch
from weft.generation.embedding import Embedder
from weft.generation.prompts import Prompts
from weft.generation.reply import MOST_TOGETHER, Options, Reply
from weft.generation.windows import WindowPrompt, merge
from weft.media import image_size
from weft.models.processing import WeftProcessor
from weft.named import Named

Asked = Conversation | Sequence[Any] | str

SEARCH = Named[Any]({"beams": "weft.generation.beams:searched"})  # what a running batch does not do
TURNS = Named[Any]({"kept": "weft.generation.turns:Turns"})  # what turns leave for later ones of the conversation
SCORES = Named[Any]({"answers": "weft.generation.scoring:score"})  # of answers that are there already
CHUNK_BATCHES = 8  # conversations are sorted by length within this many batches, so that answers come as they are made


@dataclass
class _Job:
    """One prompt: all of a conversation, or one window of it. ``index`` is the conversation's place in the input."""

    index: int
    conversation: Conversation
    encoded: Any  # `models.encoding.Encoded`; None once it is answered, for it holds pictures and sound
    reply: Reply | None = None


@dataclass
class _Request:
    """One conversation with its prompts."""

    jobs: list[_Job] = field(default_factory=list)
    windows: list[WindowPrompt] | None = None
    error: WeftError | None = None
    typed: Any = None  # `spoken.Typed`, where it was asked in other words

    def result(self) -> Reply | WeftError | None:
        """The reply once every prompt has one."""
        if self.error is not None:
            return self.error
        replies = [job.reply for job in self.jobs if job.reply is not None]
        if len(replies) < len(self.jobs):
            return None
        whole = merge(replies, self.windows) if self.windows else replies[0]
        return self.typed.told(whole) if self.typed is not None else whole


class Model(Prompts):
    """A model with its processor, ready to answer.

    ``model`` and ``processor`` are the `transformers` objects. Replies do not depend on how conversations are batched
    (up to the rounding of the compute type; in float32 the tokens are the same).
    """

    def __init__(self, model: Any, processor: WeftProcessor, name: str = "") -> None:
        ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        super().__init__(model.config, processor, ends)
        self.model = model.eval()
        self.name = name

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def chat(self, messages: Asked, options: Options | None = None, **changes: Any) -> Reply:
        """The answer to a conversation that ends with a user message.

        ``messages``: a message list, a `Conversation` or a plain question; ``changes`` are fields of `Options`.
        """
        return self.chat_batch([messages], options, **changes)[0]

    def chat_batch(
        self,
        conversations: Iterable[Asked],
        options: Options | None = None,
        *,
        batch_size: int = 16,
        batch_tokens: int = 16384,
        **changes: Any,
    ) -> list[Reply]:
        """The answers to many conversations, in their order. The first that cannot be asked raises its error."""
        if isinstance(conversations, str):
            raise WeftError("chat_batch takes a list of conversations; chat takes one")
        replies: dict[int, Reply] = {}
        options = Options.of(options, changes)
        for index, reply in self.replies(conversations, options, batch_size=batch_size, batch_tokens=batch_tokens):
            if isinstance(reply, WeftError):
                raise reply
            replies[index] = reply
        return [replies[i] for i in range(len(replies))]

    def replies(
        self,
        conversations: Iterable[Asked | WeftError],
        options: Options | None = None,
        *,
        batch_size: int = 16,
        batch_tokens: int = 16384,
    ) -> Iterator[tuple[int, Reply | WeftError]]:
        """Yields ``(index, reply)`` as answers are made, not in order; what cannot be asked yields its error.

        An error in the place of a conversation (one that could not even be read) is passed through.

        A batch has at most ``batch_size`` prompts and ``batch_tokens`` tokens, padding and room for answers included.
        """
        options = options or Options()
        if not 1 <= batch_size <= MOST_TOGETHER:
            raise WeftError(f"batch_size is {batch_size}; it must be at least 1 and at most {MOST_TOGETHER:,}")
        together = partial(SEARCH["beams"], self) if options.num_beams > 1 else self._decoded
        numbered = iter(enumerate(conversations))
        while chunk := list(islice(numbered, batch_size * CHUNK_BATCHES)):
            read = self._read([asked for _, asked in chunk], batch_size=batch_size, batch_tokens=batch_tokens)
            requests = {index: self._request(index, asked) for (index, _), asked in zip(chunk, read, strict=True)}
            for index in [i for i, r in requests.items() if r.error]:
                yield index, requests.pop(index).error  # type: ignore[misc]
            jobs = [job for request in requests.values() for job in request.jobs]
            jobs.sort(key=lambda job: -len(job.encoded.input_ids))  # memory is then most strained at the start
            for index in together(jobs, options, batch_size, batch_tokens):
                if (result := requests[index].result()) is not None:
                    yield index, result

    def stream(
        self, messages: Asked, options: Options | None = None, *, turns: Embedder | None = None, **changes: Any
    ) -> Stream:
        """Iterates over the answer's text as it is generated; ``.reply`` holds the whole once it is through.

        Special tokens are not shown and a character is held back until all its bytes are there. With beams, the text
        comes at once at the end. ``turns``: what the turns before left (`turns`), so that only what is new is read.
        """
        return Stream(self, messages, Options.of(options, changes), turns)

    def turns(self) -> Embedder:
        """What `stream` is given with each turn of one conversation."""
        return TURNS["kept"](self.model, self.processor)  # type: ignore[no-any-return]

    def score(self, messages: Asked) -> float:
        """The log-probability (natural, summed) of all that the assistant says, given what comes before it.

        That is every token with a loss flag in training: the assistant's messages, their end tokens included, but for
        those that say ``"learn": false``, which are context as a question is.
        """
        return SCORES["answers"](self, *self._read([messages]))  # type: ignore[no-any-return]

    def _request(self, index: int, read: Conversation | WeftError) -> _Request:
        """The prompts of one conversation, encoded; what is wrong with it is kept, not raised."""
        if isinstance(read, WeftError):
            return _Request(error=read)
        try:
            typed = None if self.written is None else self.written.typed(read)
            conversation: Conversation = read if typed is None else typed.conversation
            request = _Request(windows=self.windows(conversation), typed=typed)
            prompts = [w.conversation for w in request.windows] if request.windows else [conversation]
            request.jobs = [_Job(index, prompt, self.prepare(prompt)) for prompt in prompts]
            return request
        except WeftError as error:
            return _Request(error=error)

    def _read(self, conversations: Sequence[Asked | WeftError], **size: int) -> list[Conversation | WeftError]:
        """Conversations, or what is wrong with one; what is spoken in them is written down, where the model does."""
        read = [_readable(asked) for asked in conversations]
        if self.written is not None:
            self.written.first(self, read, **size)
        return read

    def _decoded(self, jobs: list[_Job], options: Options, batch_size: int, batch_tokens: int) -> Iterator[int]:
        """Answers prompts in a running batch; yields the place of the conversation of each that is answered."""
        batch = self.batch(batch_size, batch_tokens)
        waiting = {}
        for job in jobs:
            row = Row(job.encoded, options, self.room(job.encoded, options.max_new_tokens))
            waiting[row] = job
            batch.add(row)
        for row, _ in _tokens(batch):
            if row.ended:
                yield self.answered(waiting.pop(row), row.ids)

    def answered(self, job: _Job, ids: Sequence[int]) -> int:
        """Gives a prompt its reply; returns the place of its conversation."""
        answer = self.answer(job.conversation, job.encoded)
        answer.take(ids)
        job.reply, job.encoded = answer.finish()[1], None
        return job.index

    def batch(self, most: int = 16, tokens: int = 16384, embedder: Embedder | None = None) -> RunningBatch:
        """A running batch of this model (`generation.batch`). ``embedder``: with what it has encoded before."""
        return RunningBatch(self.model, embedder or self.embedder(), self.stop, most, tokens)

    def embedder(self) -> Embedder:
        """Embeds prompts for `batch`. It keeps what the weights made of media: not for a model in training."""
        return Embedder(self.model, self.processor)

    def collated(self, encoded: Sequence[Any]) -> dict[str, torch.Tensor]:
        """What the model takes for some prompts, on its device."""
        collated = self.processor.collate(encoded, padding_side="left")
        return {k: v.to(self.device) for k, v in collated.items() if k != "labels"}


class Stream:
    """The text of one answer as it is generated. Iterate once; then ``reply`` is the whole answer."""

    def __init__(self, model: Model, messages: Asked, options: Options, turns: Embedder | None = None) -> None:
        self._turns, self._request = turns, model._request(0, *model._read([messages]))
        if self._request.error is not None:
            raise self._request.error
        self.heard: str = self._request.typed.words if self._request.typed else ""  # of a spoken turn, if written down
        self._texts = self._run(model, options)
        self._reply: Reply | None = None

    def __iter__(self) -> Iterator[str]:
        return self._texts

    def __next__(self) -> str:
        return next(self._texts)

    def close(self) -> None:
        """Stops generating."""
        self._texts.close()

    @property
    def reply(self) -> Reply:
        """The whole answer; what is left of it is generated first."""
        for _ in self._texts:
            pass
        if self._reply is None:
            raise WeftError("the stream was closed before the answer was complete, so there is no reply")
        return self._reply

    def _run(self, model: Model, options: Options) -> Generator[str, None, None]:
        windows, several = Windows(), len(self._request.jobs) > 1
        for job in self._request.jobs:
            windows.turn()
            for delta in self._one(model, job, options):
                yield windows.push(delta) if several else delta
        result = self._request.result()
        assert isinstance(result, Reply)
        self._reply = result

    def _one(self, model: Model, job: _Job, options: Options) -> Iterator[str]:
        if options.num_beams > 1:
            list(SEARCH["beams"](model, [job], options, 1, 1))
            assert job.reply is not None
            yield job.reply.text
            return
        answer, batch = model.answer(job.conversation, job.encoded), model.batch(1, embedder=self._turns)
        batch.add(Row(job.encoded, options, model.room(job.encoded, options.max_new_tokens)))
        for _, token in _tokens(batch):
            yield answer.push(token)
        rest, job.reply = answer.finish()
        yield rest


def _tokens(batch: RunningBatch) -> Iterator[tuple[Row, int]]:
    """Each row's next token until all have ended; what goes wrong with one is raised."""
    while len(batch):
        for made in batch.step():
            if made.token is None:
                raise made.row.error or AssertionError("neither a token nor an error")
            yield made.row, made.token.id


def _readable(asked: Asked | WeftError) -> Conversation | WeftError:
    try:
        return asked if isinstance(asked, WeftError) else _conversation(asked)
    except WeftError as error:
        return error


def _conversation(asked: Asked) -> Conversation:
    if isinstance(asked, str):
        asked = [{"role": "user", "content": asked}]
    return parse_messages(asked, probe=image_size)
