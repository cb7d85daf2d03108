"""The engine that turns conversations into replies: batching, caches, sampling, streaming."""

from weft.generation.engine import Model, Stream
from weft.generation.reply import Options, Reply

__all__ = ["Model", "Options", "Reply", "Stream"]
