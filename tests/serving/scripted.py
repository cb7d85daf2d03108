"""An engine that answers as it was told, token by token, through the real dialect, tokenizer and server."""

import asyncio
from dataclasses import replace

from tiny_model import AUDIO, LANGUAGE, VISION
from weft.conversation import Conversation, Message
from weft.generation import Model
from weft.generation.batch import Token
from weft.models.compose import compose
from weft.serving.engine import LocalEngine


def patient():
    """A tiny model that hears half a minute at once and has room for a long conversation."""
    hears = {**AUDIO, "options": {"window_seconds": 30.0}}
    language = {"config": {**LANGUAGE["config"], "max_position_embeddings": 8192}}
    return Model(*compose(vision=VISION, audio=hears, language=language), "tiny")


class Scripted(LocalEngine):
    """``reply(conversation)`` gives the parts of the answer; ``pause``: seconds between two tokens."""

    def __init__(self, model, reply, pause=0.0):
        super().__init__(model)
        self.reply, self.pause = reply, pause
        self.asked, self.options, self.cancelled = [], [], 0

    def submit(self, prompt, options, top):
        self.asked.append(prompt.conversation)
        self.options.append(options)
        answer = Message("assistant", tuple(self.reply(prompt.conversation)))
        whole = replace(prompt.conversation, messages=(*prompt.conversation.messages, answer))
        ids = self.processor.encode(Conversation(whole.messages)).input_ids[len(prompt.encoded) :]
        end = next(i for i, token in enumerate(ids, 1) if token in self.processor.stop_ids)
        return Telling(self, [int(i) for i in ids[: min(end, options.max_new_tokens)]])


class Telling:
    def __init__(self, engine, ids):
        self._engine, self._ids, self._over = engine, ids, False

    async def __aiter__(self):
        for i, token in enumerate(self._ids, 1):
            await asyncio.sleep(self._engine.pause)
            self._over = i == len(self._ids)
            yield [Token(token)]

    def cancel(self):
        self._engine.cancelled += not self._over
