"""Conversations: the types everything else reads, and the errors a user's mistake raises."""

from weft.conversation.errors import SampleError, WeftError
from weft.conversation.samples import iter_lines, iter_samples, parse_line, parse_messages, parse_sample, read_samples
from weft.conversation.tasks import TASKS, TaskSpec
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
from weft.conversation.writing import dump_parts, dump_sample, write_samples
