"""What the experiments learn from: samples of the playground, small, some of them weak or worded in several ways.

Every kind of sample follows from ``(seed, group, index)``; kinds of one group show the same pictures or clips, so that
arms can differ in what is asked and answered alone. Pictures are `SIDE` pixels a side, boxes fractions as ever.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL.Image import Resampling

from weft.conversation import Audio, Box, Conversation, Image, Message, Task, Text, Words, write_samples
from weft.playground import shapes, tasks, tones
from weft.playground.shapes import RATE, Shape
from weft.playground.tasks import Turns

SIDE = 64  # pixels
SPOKEN = tones.NUMBERS  # the words of a clip: six

# ------------------------------------------------------------------------------------------------------- weak samples


def weak_caption(rng: np.random.Generator) -> Turns:
    """A caption as the web has them: one in three is another picture's."""
    ((asked, answer),) = tasks.caption(rng)
    if rng.random() < 1 / 3:
        ((_, answer),) = tasks.caption(rng)
    return [(asked, answer)]


def weak_refer(rng: np.random.Generator) -> Turns:
    """A box as a detector gives it: each side off by up to a tenth of the picture."""
    ((asked, (box,)),) = tasks.refer(rng)
    assert isinstance(box, Box)
    left, top, right, bottom = np.clip(np.array(box.boxes[0]) + rng.uniform(-0.1, 0.1, 4), 0, 1).round(4).tolist()
    return [(asked, [replace(box, boxes=((left, top, right, bottom),))])]


# ---------------------------------------------------------------------------------------------- one task, many wordings

# task -> wordings to learn from, and wordings kept for the test
WORDINGS = {
    "refer": (
        ("Where is {it}?", "Locate {it}.", "Give the box of {it}.", "Mark {it}."),
        ("Find {it}.", "At which place is {it}?"),
    ),
    "color": (
        ("What color is the {shape}?", "Name the color of the {shape}.", "The {shape} has which color?"),
        ("Which color does the {shape} have?", "Tell the color of the {shape}."),
    ),
    "count": (
        ("How many shapes are there?", "Count the shapes.", "What is the number of shapes?"),
        ("How many do you see?", "Say how many shapes the picture has."),
    ),
    "caption": (
        ("Describe the picture.", "What is in the picture?", "Write a caption."),
        ("What do you see?", "Say what the picture shows."),
    ),
}


def worded(rng: np.random.Generator, task: str, new: bool, identifier: bool) -> Turns:
    """A request in one of the task's wordings (``new``: one that training has not), perhaps after ``[task]``."""
    while True:
        picture, found = shapes.draw_picture(rng)
        if task != "color" or len({shape.shape for shape in found}) == len(found):
            break  # of two circles, "the circle" has no color
    found = sorted(found, key=lambda shape: shape.box)
    one: Shape = found[int(rng.integers(len(found)))]
    wording = str(rng.choice(WORDINGS[task][new])).format(it=one.phrase, shape=one.shape)
    answers: dict[str, Any] = {
        "refer": Box((one.box,), one.phrase, 0),
        "color": Text(one.color),
        "count": Text(shapes.NUMBERS[len(found)]),
        "caption": Text(" and ".join(f"a {s.color} {s.shape}" for s in found)),
    }
    return [([Image(picture), Text(f"[{task}] {wording}" if identifier else wording)], [answers[task]])]


# -------------------------------------------------------------------------------------------------------------- speech


def said(rng: np.random.Generator, times: bool) -> Turns:
    """One to three spoken words, to be written down, with their times or without."""
    wave, heard = _speech(rng)
    fields: dict[str, Any] = {"language": "en"} | ({"timestamps": True} if times else {})
    answer = Words(tuple(heard), 0) if times else Text(" ".join(word.text for word in heard))
    return [([Audio((wave, RATE)), Task("transcribe", fields)], [answer])]


def heard_at(rng: np.random.Generator) -> Turns:
    """A question whose answer lies at one moment of the clip."""
    wave, heard = _speech(rng)
    which = int(rng.integers(2))
    question = Text(f"Which word is {('first', 'last')[which]}?")
    return [([Audio((wave, RATE)), Task("question", {"language": "en"}), question], [Text(heard[-which].text)])]


def _speech(rng: np.random.Generator) -> tuple[np.ndarray, list[Any]]:
    return tones.say(rng, [str(word) for word in rng.choice(SPOKEN, int(rng.integers(1, 4)))])


# ---------------------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class Kind:
    make: Callable[[np.random.Generator], Turns]
    group: str


KINDS: dict[str, Kind] = {
    **{name: Kind(tasks.TASKS[name], name) for name in ("caption", "refer", "identify", "vqa", "conversation")},
    "weak_caption": Kind(weak_caption, "weak_caption"),
    "weak_refer": Kind(weak_refer, "weak_refer"),
    **{
        f"ask {task}{', new words' if new else ''}{', identifier' if tag else ''}": Kind(
            partial(worded, task=task, new=new, identifier=tag), f"worded_{task}"
        )
        for task in WORDINGS
        for new in (False, True)
        for tag in (False, True)
    },
    "said": Kind(partial(said, times=False), "said"),
    "said too": Kind(partial(said, times=False), "said too"),
    "said too, with times": Kind(partial(said, times=True), "said too"),
    "heard_at": Kind(heard_at, "heard_at"),
}


def write(folder: Path, kind: str, count: int, seed: int) -> Path:
    """``folder/KIND.jsonl`` and its media, written once; gives the file."""
    path = folder / f"{kind.replace(', ', '-').replace(' ', '_')}.jsonl"
    if not path.exists():
        media = path.with_suffix("")
        media.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        write_samples(unfinished, (sample(kind, i, seed, media) for i in range(count)))
        unfinished.rename(path)
    return path


def sample(kind: str, index: int, seed: int, media: Path) -> Conversation:
    """Sample ``index``, its picture or clip in a file of the folder ``media``."""
    made = KINDS[kind]
    rng = np.random.default_rng((seed, zlib.crc32(made.group.encode()), index))
    messages = []
    for asked, answer in made.make(rng):
        kept = tuple(_filed(part, media / f"{index:05}") for part in asked)
        messages += [Message("user", kept), Message("assistant", tuple(answer))]
    return Conversation(tuple(messages), f"{kind}-{index}")


def _filed(part: Any, stem: Path) -> Any:
    if isinstance(part, Image):
        file = stem.with_suffix(".png")
        part.source.resize((SIDE, SIDE), Resampling.BOX).save(file, compress_level=1)
        return Image(str(file))
    if isinstance(part, Audio):
        file = stem.with_suffix(".wav")
        soundfile.write(file, part.source[0], part.source[1], subtype="PCM_16")
        return Audio(str(file))
    return part
