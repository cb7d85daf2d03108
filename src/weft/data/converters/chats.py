"""Conversations as LLaVA and LLaMA-Factory write them.

Sources: docs/Finetune_Custom_Data.md of haotian-liu/LLaVA and minigpt4/datasets/datasets/llava_dataset.py of
Vision-CAIR/MiniGPT-4; data/README.md of hiyouga/LLaMA-Factory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from weft.data.converters.base import BadEntry, Job, Part, Read, Sample, blip_caption, each, get
from weft.data.converters.jsonfile import Entry, entries
from weft.data.converters.tags import Media, conversation, listed, refuse, turns

_IMAGE_LINE = re.compile(r"<image>\n|\n?<image>")


def llava(job: Job) -> Read:
    """LLaVA's instruction data; from documentation, not verified.

    A list of ``{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}]}``, ``<image>`` in the human's
    text where the picture stands; the line break that sets the tag off belongs to it. An entry without a picture is
    text. ``--original-cleanup`` does what MiniGPT-4 does to LLaVA's files: line breaks are taken out of the first
    question, which in entries of one question (detail, reasoning) is cleaned like a caption too.
    """

    def make(e: Entry) -> Iterator[Sample]:
        entry = e.value
        said = turns(get(entry, "conversations", list), "conversations", "from", "value")
        refuse(entry, "video", "videos")
        job.ignored(entry, ("id", "image", "conversations"))
        media = Media(job, {"<image>": "image"}, {"image": listed(entry, "image")})
        made: list[tuple[str, str | list[Part]]] = []
        asked = 0
        for role, words in said:
            if role != "user":
                made.append((role, words))
                continue
            words = _IMAGE_LINE.sub("<image>", words)
            if job.clean and not asked:
                words = _cleaned(words, alone=sum(r == "user" for r, _ in said) == 1)
            asked += 1
            made.append((role, media.split(words)))
        media.finish()
        yield conversation(entry.get("id"), made)

    yield from each(entries(job.path), make)


def _cleaned(words: str, alone: bool) -> str:
    """The first question as llava_dataset.py makes it: its picture in front."""
    tags = "<image>" * words.count("<image>")
    words = words.replace("<image>", "").replace("\n", "").strip()
    return tags + (blip_caption(words) if alone else words)


def llama_factory(job: Job) -> Read:
    """LLaMA-Factory's data with pictures and sound; verified on real files.

    A list (or JSON Lines) of sharegpt entries (``conversations`` with ``from`` and ``value``, or ``messages`` with
    ``role`` and ``content``) or alpaca entries (``instruction``, ``input``, ``output``, ``history``); ``system``;
    ``images`` and ``audios``, whose items stand where the user's ``<image>`` and ``<audio>`` are. As in LLaMA-Factory
    the numbers of tags and items must agree. Video, tools and preference pairs are left out and counted.
    """

    def make(e: Entry) -> Iterator[Sample]:
        entry = e.value
        if not isinstance(entry, dict):
            raise BadEntry("an entry is an object")
        refuse(entry, "videos", "tools", "rejected", "kto_tag")
        said = _said(entry)
        if any("<video>" in words for role, words in said if role == "user"):
            raise BadEntry("holds video, which weft does not take", reason="video")
        job.ignored(entry, _LLAMA_KEYS)
        lists = {"image": listed(entry, "images", "image"), "audio": listed(entry, "audios", "audio")}
        media = Media(job, {"<image>": "image", "<audio>": "audio"}, lists)
        yield answered(media, entry.get("id"), said)

    yield from each(entries(job.path), make)


_LLAMA_KEYS = (
    *("id", "system", "tools", "images", "image", "audios", "audio", "videos", "rejected", "kto_tag"),
    *("conversations", "messages", "instruction", "input", "output", "history"),
)


def _said(entry: dict[str, Any]) -> list[tuple[str, str]]:
    system = entry.get("system")
    head = [("system", system)] if isinstance(system, str) and system else []
    if "conversations" in entry:
        said = turns(entry["conversations"], "conversations", "from", "value")
    elif "messages" in entry:
        said = turns(entry["messages"], "messages")
    elif "instruction" in entry:
        return head + alpaca(entry)
    else:
        raise BadEntry("has neither conversations, messages nor instruction")
    return said if said[0][0] == "system" else head + said  # a system turn stands for the key, as data/README.md says


def alpaca(entry: dict[str, Any]) -> list[tuple[str, str]]:
    """``instruction`` and ``input`` on two lines, ``output``; earlier rounds in ``history``."""
    asked = get(entry, "instruction")
    more = entry.get("input")
    if isinstance(more, str) and more:
        asked = f"{asked}\n{more}" if asked else more
    return [*rounds(entry), ("user", asked), ("assistant", get(entry, "output"))]


def rounds(entry: dict[str, Any]) -> list[tuple[str, str]]:
    """``history``: a list of question and answer pairs."""
    said = []
    for i, pair in enumerate(entry.get("history") or []):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, str) for x in pair)):
            raise BadEntry("must be a question and an answer", field=f"history[{i}]")
        said += [("user", pair[0]), ("assistant", pair[1])]
    return said


def answered(media: Media, name: Any, said: list[tuple[str, str]]) -> Sample:
    """A conversation whose tags are read in the user's messages. A tag in an answer would be media to be made."""
    made: list[tuple[str, str | list[Part]]] = []
    for i, (role, words) in enumerate(said):
        if role == "user":
            made.append((role, media.split(words)))
            continue
        if role == "assistant" and any(media.lists[kind] for tag, kind in media.tags.items() if tag in words):
            raise BadEntry("an answer holds a media tag, and weft's answers are text", reason="media in an answer")
        if role == "system" and i:
            raise BadEntry("the system message comes first", field=f"messages[{i}]")
        made.append((role, words))
    media.finish()
    return conversation(name, made)
