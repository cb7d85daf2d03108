"""Conversations as LLaVA, LLaMA-Factory, OpenAI and TRL write them.

Sources: platform.openai.com/docs, "Chat completions" and "Vision fine-tuning"; huggingface.co/docs/trl, "Dataset
formats and types"; docs/Finetune_Custom_Data.md of haotian-liu/LLaVA and minigpt4/datasets/datasets/llava_dataset.py of
Vision-CAIR/MiniGPT-4; data/README.md of hiyouga/LLaMA-Factory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from weft.data.converters.base import BadEntry, Job, Read, Sample, answer, blip_caption, get
from weft.data.converters.jsonfile import Entry, entries
from weft.data.converters.tags import GROUNDED, Media, Turn, conversation, listed, refuse, turns, untagged

TAGS = {"<image>": "image", "<audio>": "audio"}

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
        lists = {"image": listed(entry, "image")}
        said = turns(job, get(entry, "conversations", list), "conversations", lists, "from", "value")
        refuse(entry)
        asked = 0
        for i, turn in enumerate(said):
            if turn.role != "user":
                continue
            words = _IMAGE_LINE.sub("<image>", turn.words)
            if job.clean and not asked:
                words = _cleaned(words, alone=sum(t.role == "user" for t in said) == 1)
            said[i] = turn._replace(words=words)
            asked += 1
        yield conversation(Media(job, {"<image>": "image"}, lists), entry.get("id"), said, plain_answers=True)

    yield from job.each(entries(job.path), make)


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
        refuse(entry)
        lists = {"image": listed(entry, "images", "image"), "audio": listed(entry, "audios", "audio")}
        said = chat(job, entry, lists)
        yield conversation(Media(job, TAGS, lists), entry.get("id"), said)

    yield from job.each(entries(job.path), make)


def openai(job: Job) -> Read:
    """Conversations with content in parts, as OpenAI's API and TRL take them; verified on rows of datasets.

    JSON Lines of ``{"messages": [{"role", "content"}]}`` (a line of OpenAI's batches: in ``body``), TRL's ``{"prompt":
    [...], "completion": [...]}``, whose earlier answers are not learned, or ``messages`` beside ``images`` and
    ``audios``, which stand where ``{"type": "image"}`` is, or in front where nothing says it (TRL's rule). Media are
    paths, data URLs, ``image_url`` or ``input_audio``. Text is never read for tags. weft's own parts (``task``,
    ``box``, ``words``) stay, so that this also makes samples strict that were written with others' parts.
    """
    yield from job.each(entries(job.path), lambda e: iter([named_chat(job, e.value, None)]))


def named_chat(job: Job, entry: Any, name: str | None) -> Sample:
    """A conversation of `openai`, or with tags where it has ``conversations``; ``name``: its id, if it has none."""
    if not isinstance(entry, dict):
        raise BadEntry("an entry is an object")
    entry = entry["body"] if isinstance(entry.get("body"), dict) else entry
    refuse(entry)
    lists: dict[str, list[Any]] = {"image": listed(entry, "images", "image"), "audio": listed(entry, "audios", "audio")}
    lists |= {kind: [] for kind in GROUNDED}
    if "completion" in entry:
        said = _sides(job, entry, "prompt", "user", lists)
        said = [turn._replace(learn=False) for turn in said] + _sides(job, entry, "completion", "assistant", lists)
        said = [t._replace(learn=True) if t.role != "assistant" else t for t in said]
    else:
        said = chat(job, entry, lists)
    media = Media(job, TAGS if "conversations" in entry else {}, lists)
    return conversation(media, entry.get("id", name), untagged(media, said))


def _sides(job: Job, entry: dict[str, Any], key: str, role: str, lists: dict[str, list[Any]]) -> list[Turn]:
    """One half of TRL's pairs: messages, or a string."""
    if isinstance(entry.get(key), str):
        return [Turn(role, entry[key])]
    return turns(job, get(entry, key, list), key, lists)


def chat(job: Job, entry: dict[str, Any], lists: dict[str, list[Any]], said: list[Turn] | None = None) -> list[Turn]:
    """What is said in an entry, in whichever of the common forms: messages, sharegpt or alpaca, with ``system``.

    ``said``: what was read in another form, for entries that are in none of these.
    """
    system = entry.get("system")
    head = [Turn("system", system)] if isinstance(system, str) and system else []
    if "messages" in entry:
        said = turns(job, entry["messages"], "messages", lists)
    elif "conversations" in entry:
        said = turns(job, entry["conversations"], "conversations", lists, "from", "value")
    elif "instruction" in entry:
        said = alpaca(entry)
    elif not said:
        raise BadEntry("has no messages, conversations or instruction")
    if any("<video>" in turn.words for turn in said if turn.role == "user"):
        raise BadEntry("holds video, which weft does not take", reason="video")
    return said if said[0].role == "system" else head + said  # a system turn stands for the key in both tools


def alpaca(entry: dict[str, Any]) -> list[Turn]:
    """``instruction`` and ``input`` on two lines, ``output``; earlier rounds in ``history``."""
    asked = get(entry, "instruction")
    more = entry.get("input")
    if isinstance(more, str) and more:
        asked = f"{asked}\n{more}" if asked else more
    return [*rounds(entry), Turn("user", asked), Turn("assistant", answer(entry, "output"))]


def rounds(entry: dict[str, Any]) -> list[Turn]:
    """``history``: a list of question and answer pairs."""
    said = []
    for i, pair in enumerate(entry.get("history") or []):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, str) for x in pair)):
            raise BadEntry("must be a question and an answer", field=f"history[{i}]")
        said += [Turn("user", pair[0]), Turn("assistant", pair[1])]
    return said
