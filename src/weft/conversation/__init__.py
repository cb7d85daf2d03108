"""Conversations: the types everything else reads, and the errors a user's mistake raises."""

from weft.conversation.errors import SampleError, WeftError
from weft.conversation.types import (
    Audio,
    Box,
    Conversation,
    Image,
    MediaSource,
    Message,
    Part,
    Role,
    Task,
    Text,
    Word,
    Words,
)

__all__ = [
    "Audio",
    "Box",
    "Conversation",
    "Image",
    "MediaSource",
    "Message",
    "Part",
    "Role",
    "SampleError",
    "Task",
    "Text",
    "WeftError",
    "Word",
    "Words",
]
