"""The engine: conversations in, replies out.

`Model` holds a weft model and its processor. Everything that generates goes through it (chat, requests, evaluation),
so that prompts, batching, stop tokens and parsing are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from weft.conversation import Conversation, WeftError
from weft.conversation.samples import parse_messages
from weft.dialects.base import join_words
from weft.generation.decode import Inputs, beams, decode
from weft.generation.detokenize import Detokenizer
from weft.generation.reply import MOST_TOGETHER, Options, Reply
from weft.generation.windows import WindowPrompt, merge, split_transcription
from weft.media import image_size

Asked = Conversation | Sequence[Any] | str

CHUNK_BATCHES = 8  # conversations are sorted by length within this many batches, so that answers come as they are made


@dataclass
class _Job:
    """One prompt: all of a conversation, or one window of it. ``index`` is the conversation's place in the input."""

    index: int
    conversation: Conversation
    encoded: Any = None
    reply: Reply | None = None


@dataclass
class _Request:
    """One conversation with its prompts."""

    jobs: list[_Job] = field(default_factory=list)
    windows: list[WindowPrompt] | None = None
    error: WeftError | None = None

    def result(self) -> Reply | WeftError | None:
        """The reply once every prompt has one."""
        if self.error is not None:
            return self.error
        replies = [job.reply for job in self.jobs if job.reply is not None]
        if len(replies) < len(self.jobs):
            return None
        return merge(replies, self.windows) if self.windows else replies[0]


class Model:
    """A model with its processor, ready to answer.

    ``model`` and ``processor`` are the `transformers` objects. Replies do not depend on how conversations are batched
    (up to the rounding of the compute type; in float32 the tokens are the same).
    """

    def __init__(self, model: Any, processor: Any, name: str = "") -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self._stop = _stop_ids(model, processor)

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
        numbered = iter(enumerate(conversations))
        while chunk := list(islice(numbered, batch_size * CHUNK_BATCHES)):
            requests = {index: self._request(index, asked) for index, asked in chunk}
            for index in [i for i, r in requests.items() if r.error]:
                yield index, requests.pop(index).error  # type: ignore[misc]
            jobs = [job for request in requests.values() for job in request.jobs]
            for batch in _batches(jobs, options.max_new_tokens, batch_size, batch_tokens):
                self._answer(batch, options)
                for index in dict.fromkeys(job.index for job in batch):
                    if (result := requests[index].result()) is not None:
                        yield index, result

    def stream(self, messages: Asked, options: Options | None = None, **changes: Any) -> Stream:
        """Iterates over the answer's text as it is generated; ``.reply`` holds the whole once it is through.

        Special tokens are not shown and a character is held back until all its bytes are there. With beams, the text
        comes at once at the end.
        """
        return Stream(self, messages, Options.of(options, changes))

    def score(self, messages: Asked) -> float:
        """The log-probability (natural, summed) of all that the assistant says, given what comes before it.

        That is every token with a loss flag in training: the assistant's messages, their end tokens included, but for
        those that say ``"learn": false``, which are context as a question is.
        `score_batch` takes many conversations.
        """
        conversation = _conversation(messages)
        encoded = self._fits(self.processor.encode(conversation), conversation, 0)
        inputs = self._collate([encoded])
        inputs.pop("labels", None)
        flagged = torch.as_tensor(encoded.loss_mask).nonzero()[:, 0]
        flagged = flagged[flagged > 0]
        if not len(flagged):
            answered = any(m.role == "assistant" for m in conversation.messages)
            why = 'every answer says "learn": false' if answered else "the conversation has no assistant message"
            raise WeftError(f"there is no answer to score: {why}")
        first = int(flagged[0])
        length = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            # Only positions from the first answer on are needed; logits at position i are about the token at i + 1.
            logits_LV = self.model(**inputs, logits_to_keep=length - first + 1).logits[0].float()
        target = inputs["input_ids"][0, flagged]
        chosen = logits_LV[flagged - first].log_softmax(-1).gather(1, target[:, None].to(logits_LV.device))
        return float(chosen.sum())

    def score_batch(self, conversations: Iterable[Asked]) -> list[float]:
        """`score` of each conversation."""
        return [self.score(asked) for asked in conversations]

    def _request(self, index: int, asked: Asked | WeftError) -> _Request:
        """The prompts of one conversation, encoded; what is wrong with it is kept, not raised."""
        if isinstance(asked, WeftError):
            return _Request(error=asked)
        try:
            conversation = _conversation(asked)
            if not conversation.messages or conversation.messages[-1].role != "user":
                raise WeftError(f"{_called(conversation)} does not end with a user message, so nothing is asked")
            request = _Request(windows=self._windows(conversation))
            prompts = [w.conversation for w in request.windows] if request.windows else [conversation]
            for prompt in prompts:
                encoded = self.processor.encode(prompt, generate=True)
                request.jobs.append(_Job(index, prompt, self._fits(encoded, prompt, 1)))
            return request
        except WeftError as error:
            return _Request(error=error)

    def _windows(self, conversation: Conversation) -> list[WindowPrompt] | None:
        section = self.model.config.audio_section
        if section is None:
            return None
        return split_transcription(conversation, section.sample_rate, section.window_seconds)

    def _answer(self, batch: list[_Job], options: Options) -> None:
        """Generates for one batch of encoded prompts and writes each job's reply."""
        limits = [self._room(job.encoded, options.max_new_tokens) for job in batch]
        made: list[list[int]] = [[] for _ in batch]
        if options.num_beams > 1:
            together: dict[tuple[int, int], list[int]] = {}
            for i, limit in enumerate(
                limits
            ):  # the search has one limit, and one source of random numbers, for its rows
                together.setdefault((limit, i if options.do_sample else 0), []).append(i)
            for (limit, _), rows in together.items():
                inputs = self._collate([batch[i].encoded for i in rows])
                found = beams(self.model, inputs, options, self._stop, limit, self.processor.pad_id)
                for i, ids in zip(rows, found, strict=True):
                    made[i] = ids
        else:
            inputs = self._collate([job.encoded for job in batch])
            for step in decode(self.model, inputs, options, self._stop, limits):
                for row, token in step.items():
                    made[row].append(token)
        for job, ids in zip(batch, made, strict=True):
            job.reply = self._reply(job, ids)
            job.encoded = None  # pictures and features are not needed any more

    def _reply(self, job: _Job, ids: list[int]) -> Reply:
        finished = bool(ids) and ids[-1] in self._stop
        raw, text, parts = self.processor.parse_reply(ids[:-1] if finished else ids, job.conversation)
        malformed = self.processor.dialect.malformed(raw, job.conversation)
        return Reply(text, raw, tuple(parts), len(ids), finished, _window_count(job.encoded), tuple(malformed))

    def _collate(self, encoded: list[Any]) -> Inputs:
        collated = self.processor.collate(encoded, padding_side="left")
        return {k: v.to(self.device) for k, v in collated.items() if k != "labels"}

    @property
    def _context(self) -> int | None:
        """The most positions the language model was made for; None where its position scheme grows with the prompt."""
        text = self.model.config.get_text_config()
        scaling = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
        if getattr(text, "use_dynamic_ntk", False) or "dynamic" in str(scaling.get("rope_type", "")):
            return None
        return getattr(text, "max_position_embeddings", None)

    def _room(self, encoded: Any, wanted: int) -> int:
        return wanted if self._context is None else min(wanted, self._context - len(encoded.input_ids))

    def _fits(self, encoded: Any, conversation: Conversation, room: int) -> Any:
        length = len(encoded.input_ids)
        if self._context is not None and length + room > self._context:
            raise WeftError(
                f"{_called(conversation)} is {length} tokens long and the model holds {self._context}, "
                f"the answer included; shorten it or give fewer images or less sound"
            )
        return encoded


class Stream:
    """The text of one answer as it is generated. Iterate once; then ``reply`` is the whole answer."""

    def __init__(self, model: Model, messages: Asked, options: Options) -> None:
        self._request = model._request(0, messages)
        if self._request.error is not None:
            raise self._request.error
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
        windows = [self._one(model, job, options) for job in self._request.jobs]
        yield from windows[0] if len(windows) == 1 else _joined(windows)
        result = self._request.result()
        assert isinstance(result, Reply)
        self._reply = result

    def _one(self, model: Model, job: _Job, options: Options) -> Iterator[str]:
        if options.num_beams > 1:
            model._answer([job], options)
            assert job.reply is not None
            yield job.reply.text
            return
        processor, detokenizer = model.processor, Detokenizer(model.processor.tokenizer)
        ids: list[int] = []
        sent, marked = "", False  # from the first box or word on, text is what the parts so far read as
        limit = model._room(job.encoded, options.max_new_tokens)
        for step in decode(model.model, model._collate([job.encoded]), options, model._stop, [limit]):
            ids.append(step[0])
            if step[0] in model._stop:
                continue
            marked = marked or step[0] in processor.renderer.special_ids
            delta = _beyond(sent, processor.settled(ids, job.conversation)) if marked else detokenizer.push(step[0])
            sent += delta
            yield delta
        job.reply = model._reply(job, ids)
        yield _beyond(sent, job.reply.text) if marked else detokenizer.flush()


def _beyond(sent: str, text: str) -> str:
    """What of ``text`` follows what was sent of it already; nothing where it reads otherwise by now."""
    known = sent.lstrip()
    return text[len(known) :] if text.startswith(known) else ""


def _joined(windows: Iterable[Iterator[str]]) -> Iterator[str]:
    """The texts of a long clip's windows as they come, put together as `merge` does it."""
    last = ""  # character that was written
    for deltas in windows:
        held, begun = "", False  # space that is written when something follows it in this window
        for delta in deltas:
            text = held + delta if begun else delta.lstrip()
            body = text.rstrip()
            held = text[len(body) :]
            if body:
                yield body if begun or not last else join_words([last, body])[1:]
                last, begun = body[-1], True


def _conversation(asked: Asked) -> Conversation:
    if isinstance(asked, str):
        asked = [{"role": "user", "content": asked}]
    return parse_messages(asked, probe=image_size)


def _called(conversation: Conversation) -> str:
    return f"the conversation {conversation.id!r}" if conversation.id else "the conversation"


def _window_count(encoded: Any) -> int:
    """Windows of the clip that was split into most; 1 where none was."""
    counts: dict[int, int] = {}
    for span in encoded.spans:
        if span.modality == "audio":
            counts[span.item] = counts.get(span.item, 0) + 1
    return max(counts.values(), default=1)


def _stop_ids(model: Any, processor: Any) -> frozenset[int]:
    """Ids that end an answer: the dialect's, the tokenizer's end of text, and the checkpoint's own list."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = own if isinstance(own, list) else [own]
    return frozenset([*processor.stop_ids, *(i for i in listed if i is not None)])


def _batches(jobs: list[_Job], new_tokens: int, batch_size: int, batch_tokens: int) -> Iterator[list[_Job]]:
    """Prompts of similar length together, longest first (memory is then most strained at the start)."""
    ordered = sorted(jobs, key=lambda job: -len(job.encoded.input_ids))
    while ordered:
        width = len(ordered[0].encoded.input_ids) + new_tokens
        n = max(1, min(batch_size, batch_tokens // width))
        yield ordered[:n]
        ordered = ordered[n:]
