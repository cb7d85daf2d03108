"""Conversations with sound as Qwen-Audio and LLaSM write them.

Sources: the SFT sample and eval_audio/EVALUATION.md of QwenLM/Qwen-Audio at b50fb95; infer.py and infer_tokenize.py of
LinkSoul-AI/LLaSM at 3443b79.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from weft.conversation import Text, dump_parts, parse_messages
from weft.data.converters.base import BadEntry, Job, Part, Read, Sample, audio, get, text
from weft.data.converters.jsonfile import Entry, entries, lines
from weft.data.converters.tags import Media, Turn, conversation, listed, refuse, turns

_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>\n?|(?=<\|im_start\|>)|\Z)", re.DOTALL)
# "Audio 1: " before a clip and the line break after it are the form's, and the dialect writes them again.
_CLIP = re.compile(r"(?:Audio (\d+): ?)?<audio>(.+?)</audio>\n?", re.DOTALL)
_STAMP = re.compile(r"<\|\d{1,2}\.\d\d\|>")
_SPAN = re.compile(r"<au_start>(?:<au_patch>)*<au_end>|<audio>")


def qwen_audio(job: Job) -> Read:
    """Qwen-Audio's SFT text; verified on a real file.

    A ChatML string a line with ``\\n`` written as a backslash and an n; ``<audio>path</audio>`` in the user's turns. A
    missing line break after a turn and a missing last ``<|im_end|>`` are taken as the sample file has them. Times in
    answers (``"word" starts at <|2.33|> seconds and ends at <|3.26|> seconds``) become words with times.
    """
    from weft.dialects import get_dialect  # here, as the command's help reads this file and should stay quick

    dialect = get_dialect("qwen_audio")

    def make(e: Entry) -> Iterator[Sample]:
        whole = e.value.replace("\\n", "\n")
        end, made = 0, list[dict[str, Any]]()
        for match in _TURN.finditer(whole):
            if whole[end : match.start()].strip():
                raise BadEntry(f"text outside of a turn: {whole[end : match.start()][:60]!r}")
            end = match.end()
            role, words = match.groups()
            if role not in ("system", "user", "assistant"):
                raise BadEntry(f"there is no role {role!r}: system, user and assistant")
            content: str | list[Part] = words
            if role == "user":
                content = _heard(job, words)
            elif role == "assistant" and _STAMP.search(words):
                content = _timed(dialect, made, words)
            made.append({"role": role, "content": content})
        if whole[end:].strip() or not made:
            raise BadEntry(f"is no ChatML: {whole[end:][:60]!r} begins no turn (<|im_start|>user)")
        yield {"messages": made}

    yield from job.each(lines(job.path), make)


def _heard(job: Job, words: str) -> list[Part]:
    parts: list[Part] = []
    end = 0
    for match in _CLIP.finditer(words):
        if match.start() > end:
            parts.append(text(words[end : match.start()]))
        parts.append(audio(job.find(match[2], what="audio")))
        end = match.end()
    if end < len(words) or not parts:
        parts.append(text(words[end:]))
    return parts


def _timed(dialect: Any, before: list[dict[str, Any]], words: str) -> list[Part]:
    """An answer with time tokens as text and words parts, read as the dialect reads a model's answer."""
    asked = parse_messages(before, exists=lambda _: True)
    parts = dialect.parse(words, asked)
    if any(isinstance(part, Text) and _STAMP.search(part.text) for part in parts):
        raise BadEntry("has times in a form weft does not read", reason="times in another form")
    return dump_parts(parts)


def llasm(job: Job) -> Read:
    """LLaSM's conversations, as its released code takes them; from the code, not verified.

    A list (or JSON Lines) of ``{"conversations": [{"from": "human" | "gpt", "value"}], "instruction": system text}``
    (infer_tokenize.py). The data set was never published, so how it names its recordings is not known: here they are
    paths under ``audio`` or ``audios``, in the order of the spans ``<au_start><au_patch>...<au_end>`` (or ``<audio>``)
    in the human's values. An empty answer at the end is a request, as in infer.py.
    """

    def make(e: Entry) -> Iterator[Sample]:
        entry = e.value
        lists = {"audio": listed(entry, "audios", "audio")}
        said = turns(job, get(entry, "conversations", list), "conversations", lists, "from", "value")
        refuse(entry)
        said = [t._replace(words=_SPAN.sub("<audio>", t.words)) if t.role == "user" else t for t in said]
        if said[-1].role == "assistant" and not said[-1].words:
            said.pop()
        system = entry.get("instruction")
        if isinstance(system, str) and system:
            said.insert(0, Turn("system", system))
        yield conversation(Media(job, {"<audio>": "audio"}, lists), entry.get("id"), said, plain_answers=True)

    yield from job.each(entries(job.path), make)
