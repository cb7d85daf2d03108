"""The tasks: what each one needs beside it and which fields it takes.

A task says what is asked for, apart from its wording. Which tasks a prompt format can write is the dialect's to say;
that a task stands beside the media it is about holds for all of them and is checked here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

Modality = Literal["image", "audio"]

# What a field may hold. A language of None asks the model to predict it, so it is a value of its own.
LANGUAGE, STRING, FLAG = 'a language code such as "en", or null to have it predicted', "a string", "true or false"


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """``media``: any one of these must have been shown; ``text`` / ``box``: must stand in the same message."""

    media: tuple[Modality, ...]
    text: bool = False
    box: bool = False
    fields: dict[str, str] = field(default_factory=dict)


# Tasks that are about a sound, and say no more than in what language the answer is to be.
_ABOUT_SOUND = ("emotion", "vocal_sound", "scene", "event", "note", "music", "speaker", "entities", "locate")

TASKS: dict[str, TaskSpec] = {
    "vqa": TaskSpec(("image",), text=True),
    "caption": TaskSpec(("image", "audio"), fields={"language": LANGUAGE, "style": STRING}),
    "grounded_caption": TaskSpec(("image",)),
    "refer": TaskSpec(("image",), text=True),
    "identify": TaskSpec(("image",), box=True),
    "detection": TaskSpec(("image",), text=True),
    "transcribe": TaskSpec(("audio",), fields={"language": LANGUAGE, "timestamps": FLAG, "itn": FLAG}),
    "translate": TaskSpec(("audio",), fields={"language": LANGUAGE, "to": STRING}),
    "question": TaskSpec(("audio",), text=True, fields={"language": LANGUAGE}),
    **dict.fromkeys(_ABOUT_SOUND, TaskSpec(("audio",), fields={"language": LANGUAGE})),
}


def field_problem(kind: str, value: Any) -> str | None:
    """What is wrong with a field's value, or None."""
    if kind is FLAG:
        return None if isinstance(value, bool) else f"must be {FLAG}"
    if kind is LANGUAGE and value is None:
        return None
    return None if isinstance(value, str) and value else f"must be {kind}"


def needs_problem(name: str, *, images: int, clips: int, text: bool, box: bool) -> str | None:
    """What a task lacks, or None.

    ``images`` and ``clips`` count what the conversation has shown so far, this message included; ``text`` and ``box``
    say whether this message has any.
    """
    spec = TASKS[name]
    if not (images and "image" in spec.media or clips and "audio" in spec.media):
        wanted = " or ".join({"image": "an image", "audio": "an audio clip"}[m] for m in spec.media)
        return f'task "{name}" needs {wanted} in this message or before it'
    if spec.text and not text:
        return f'task "{name}" needs a text part beside it (what to look for, or the question)'
    if spec.box and not box:
        return f'task "{name}" needs a box part beside it (which region is meant)'
    return None


def guess(word: str, known: list[str] | tuple[str, ...]) -> str:
    """``did you mean "refer"? `` where one of the known names is near, else nothing."""
    near = get_close_matches(word, known, n=1, cutoff=0.7)
    return f'did you mean "{near[0]}"? ' if near else ""
