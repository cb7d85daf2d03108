"""Text with tags where pictures and recordings stand, as several projects write conversations.

Only the tags a layout defines are read, and only in the messages it defines them for; whatever else looks like a tag is
text and stays text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from math import isfinite
from typing import Any, NamedTuple

from weft.data.converters.base import NO_ANSWER, BadEntry, Job, Part, Sample, audio, image, text

ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
    "developer": "system",
}
GROUNDED = ("task", "box", "words")  # parts of weft's own, which stand in a conversation as they are
_SOURCES = ("value", "url", "path", "source", "base64")
IN_PART = "to be learned in part"
EMPTY: tuple[Any, ...] = (None, "", [], {}, "[]")
_VIDEO = "video", "holds video, which weft does not take"
_PAIR = "preference data", "is a preference pair, not training data for answers"
_SEARCH = "retrieval data", "is a pair for retrieval, not training data for answers"
# Keys that an entry would mean something else without (``rejected_``: all that begin so): counted as what, and why.
REFUSED = {
    **dict.fromkeys(("video", "videos"), _VIDEO),
    **dict.fromkeys(("chosen", "chosen_", "rejected", "rejected_", "margin"), _PAIR),
    **dict.fromkeys(("positive_", "negative_"), _SEARCH),
    **dict.fromkeys(("tools", "functions"), ("tools", "offers tools, which weft conversations have no place for")),
    "kto_tag": ("preference data", "is marked as a good or bad answer: not training data for answers"),
    "label": ("label", "has a label in place of an answer, or one that judges it"),
}
# What marks a message (or a part of one) as learned or not: ms-swift and XTuner have loss, ms-swift loss_scale,
# LLaMA-Factory loss_weight, OpenAI and mistral-finetune weight, axolotl train and training, weft learn; torchtune has
# masked, which says the contrary.
MARKS = ("loss", "loss_scale", "loss_weight", "weight", "train", "training", "learn", "masked")


class Turn(NamedTuple):
    """What one side says: words with tags where media stand. ``learn`` false: marked as not to be learned."""

    role: str
    words: str
    learn: bool = True


class Media:
    """The pictures and recordings of one entry, handed out in the order of their tags.

    ``tags``: what stands for an item, and of which kind. ``lists``: the paths of each kind.
    """

    def __init__(self, job: Job, tags: dict[str, str], lists: dict[str, list[Any]]) -> None:
        self.job, self.tags, self.lists = job, tags | {mark(kind): kind for kind in lists}, lists
        self.used = dict.fromkeys(lists, 0)
        self.pattern = re.compile("|".join(re.escape(tag) for tag in self.tags))

    def count(self, kind: str, contents: Sequence[str]) -> int:
        """How many tags of a kind the texts hold."""
        return sum(self.tags[tag] == kind for content in contents for tag in self.pattern.findall(content))

    def take(self, kind: str) -> Part:
        """The next item of a kind."""
        paths = self.lists.get(kind, [])
        number = self.used.get(kind, 0)
        if number >= len(paths):
            raise BadEntry(
                f"has more <{kind}> tags than {kind}s ({len(paths)})",
                reason="tags and media differ in number",
                field=kind,
            )
        self.used[kind] = number + 1
        return self.part(kind, paths[number])

    def part(self, kind: str, path: Any) -> Part:
        if kind in GROUNDED:
            return dict(path)
        if not isinstance(path, str):
            raise BadEntry(f"must be a path, this is {str(path)[:60]}", field=f"{kind}s")
        path = path.removeprefix("file://")
        if path.startswith("data:"):
            return image(path) if kind == "image" else audio(path)
        return image(self.job.find(path, what="image")) if kind == "image" else audio(self.job.find(path, what="audio"))

    def split(self, content: str, kinds: Container[str]) -> list[Part]:
        """A text as text and the parts that its tags of these kinds stand for."""
        parts: list[Part] = []
        end = 0
        for match in self.pattern.finditer(content):
            if self.tags[match[0]] not in kinds:
                continue
            if match.start() > end:
                parts.append(text(content[end : match.start()]))
            parts.append(self.take(self.tags[match[0]]))
            end = match.end()
        if end < len(content) or not parts:
            parts.append(text(content[end:]))
        return parts

    def finish(self) -> None:
        """Every item was shown."""
        for kind, paths in self.lists.items():
            if self.used[kind] < len(paths):
                raise BadEntry(
                    f"has {len(paths)} {kind}s and tags for {self.used[kind]} of them",
                    reason="tags and media differ in number",
                    field=kind,
                )


def mark(kind: str) -> str:
    """What stands in the words of a turn for a part of its content: no text holds it."""
    return f"\0{kind}\0"


def listed(entry: dict[str, Any], *keys: str) -> list[Any]:
    """What stands under the first of these keys that is there, as a list; a string or null is taken as one or none."""
    for key in keys:
        value = entry.get(key)
        if value is None:
            continue
        if isinstance(value, str | dict):
            return [value]
        if not isinstance(value, list):
            raise BadEntry("must be a list of paths", field=key)
        return value
    return []


def refuse(entry: dict[str, Any]) -> None:
    """Entries that would mean something else without what some of their keys hold."""
    for key in entry:
        refused = REFUSED.get(key) or REFUSED.get(key.partition("_")[0] + "_")
        if refused and entry.get(key) not in EMPTY:
            raise BadEntry(refused[1], reason=refused[0], field=key)
    for key, value in entry.items():
        if key in MARKS and isinstance(value, bool | int | float) and bool(value) == (key == "masked"):
            raise BadEntry("marks the whole entry as not to be learned", reason="not to be learned", field=key)


def turns(
    job: Job, raw: Any, field: str, lists: dict[str, list[Any]], role: str = "role", content: str = "content"
) -> list[Turn]:
    """The turns of a list of messages; roles that weft has not (tools, functions) are refused.

    Content may be a list of parts, as OpenAI's API writes it. Media named in them are added to ``lists``, which must
    be empty of that kind (ms-swift's rule), and get a tag in the words.
    """
    if not isinstance(raw, list) or not raw:
        raise BadEntry("must be a list of messages", field=field)
    found = []
    given = {kind for kind, paths in lists.items() if paths}
    for i, message in enumerate(raw):
        where = f"{field}[{i}]"
        if not isinstance(message, dict) or not isinstance(message.get(role), str):
            raise BadEntry(f'a message is an object with "{role}" and "{content}"', field=where)
        speaker = ROLES.get(message[role])
        if speaker is None:
            raise BadEntry(f'weft has no role "{message[role]}"', reason="tools", field=f"{where}.{role}")
        if any(key in message and message[key] not in EMPTY for key in ("tool_calls", "function_call")):
            raise BadEntry("calls tools, which weft conversations have no place for", reason="tools", field=where)
        said, mark = message.get(content), learned(job, message, speaker, where)
        if said is None and speaker == "assistant":
            raise BadEntry(NO_ANSWER, reason="no answer", field=f"{where}.{content}")
        if isinstance(said, list):
            marks = []
            words = ""
            for k, part in enumerate(said):
                place = f"{where}.{content}[{k}]"
                if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                    raise BadEntry('a part is an object with a "type"', field=place)
                words += _words(part, lists, given, place)
                marks.append(learned(job, part, speaker, place))
            told = {(mark if part is None else part) is not False for part in marks} or {mark is not False}
            if len(told) > 1:
                raise BadEntry("is to be learned in part: weft learns whole turns", reason=IN_PART, field=where)
            mark = told.pop()
        elif isinstance(said, str):
            words = said
        else:
            raise BadEntry("must be a string or a list of parts", field=f"{where}.{content}")
        found.append(Turn(speaker, words, mark is not False))
    return found


def untagged(media: Media, said: list[Turn]) -> list[Turn]:
    """What has no tag is shown before the first question: ms-swift's ``_add_default_tags``, TRL's preparation."""
    first = next((i for i, turn in enumerate(said) if turn.role == "user"), None)
    if first is None:
        return said
    front = ""
    for kind in ("image", "audio"):
        front += mark(kind) * (len(media.lists[kind]) - media.count(kind, [turn.words for turn in said]))
    if front:
        media.job.notes["entries with media that have no tag, shown before the first question"] += 1
    return [*said[:first], said[first]._replace(words=front + said[first].words), *said[first + 1 :]]


def learned(job: Job, message: dict[str, Any], role: str, where: str) -> bool | None:
    """What a message is marked as: to be learned or not; None: it says nothing."""
    learn: bool | None = None
    for key in MARKS:
        if key not in message or (value := message[key]) is None:
            continue
        if not isinstance(value, bool | int | float) or not (isfinite(value) and value >= 0):
            raise BadEntry(f"must be true, false or a weight from 0, this is {str(value)[:60]}", field=f"{where}.{key}")
        wanted = bool(value) != (key == "masked")
        if role != "assistant":
            if wanted:
                job.notes[f'"{key}" asks to learn a turn of the {role}, and weft learns answers alone'] += 1
            continue
        if value not in (0, 1):
            job.notes[f'"{key}" is neither 0 nor 1: learned as with 1'] += 1
        learn = wanted and learn is not False
    for key in ("train_detail", "training_detail"):  # axolotl: which characters of a turn are learned
        if key in message and message[key] not in EMPTY:
            raise BadEntry("marks characters: weft learns whole turns", reason=IN_PART, field=f"{where}.{key}")
    return learn


def _words(part: dict[str, Any], lists: dict[str, list[Any]], given: set[str], where: str) -> str:
    """A part of a message as words, a medium as its tag; the medium goes to its list."""
    kind = part["type"].removeprefix("input_").removesuffix("_url")
    if kind == "text":
        words = part["text"] if "text" in part else part.get("value")
        if not isinstance(words, str):
            raise BadEntry("a text part has its words as a string", field=where)
        return words
    if kind in GROUNDED and kind in lists:
        lists[kind].append(part)
        return mark(kind)
    if kind not in lists:
        reason = kind if kind == "video" else "parts that weft does not take"
        raise BadEntry(f'holds a part "{part["type"]}", which weft does not take', reason=reason, field=where)
    source = next(
        (part[key] for key in (part["type"], kind, f"{kind}_url", *_SOURCES) if key in part and part[key] is not None),
        None,
    )
    if isinstance(source, dict):
        data = source.get("data")
        if isinstance(data, str):
            form = source.get("media_type", f"{kind}/{source.get('format', '*')}")
            source = data if data.startswith("data:") else f"data:{form};base64,{data}"
        else:
            source = source.get("url")
    if source is not None:
        if kind in given:
            raise BadEntry(f"names media in its parts, and in a list of {kind}s too", field=where)
        lists[kind].append(source)
    return mark(kind)


def conversation(
    media: Media,
    name: Any,
    said: Sequence[Turn],
    parts: Callable[[str], list[Part]] | None = None,
    plain_answers: bool = False,
) -> Sample:
    """A conversation whose tags are read in the user's messages.

    A tag in an answer would be media to be made, or with ``plain_answers`` is text. ``parts``: what the words of user
    and assistant become, where it is more than text.
    """
    messages: list[dict[str, Any]] = []
    for i, (role, words, learn) in enumerate(said):
        drawn = [kind for tag, kind in media.tags.items() if tag in words and kind not in GROUNDED]
        if role == "assistant" and not plain_answers and any(media.lists[kind] for kind in drawn):
            raise BadEntry("an answer holds a media tag, and weft's answers are text", reason="media in an answer")
        if role == "system" and i:
            raise BadEntry("the system message comes first", field=f"messages[{i}]")
        made = media.split(words, media.lists if role == "user" else GROUNDED)
        if parts is not None and role != "system":
            made = [p for part in made for p in (parts(part["text"]) if part["type"] == "text" else [part])]
        content = made[0]["text"] if len(made) == 1 and made[0]["type"] == "text" else made
        messages.append({"role": role, "content": content} | ({} if learn else {"learn": False}))
    media.finish()
    return {"messages": messages} if name is None else {"id": str(name), "messages": messages}
