"""Pictures of photographs, alone, together and among drawn shapes, and questions about them.

    python -m benchmarks.photographs DATA [--stamps /usr/share/tuxpaint/stamps] [--count 1500] [--whole FOLDER]

The photographs are Tux Paint's stamps (Debian's package tuxpaint-stamps-default, GPL-2), named by their captions. Those
that `tuxpaint.py` asks about are left out, and so is whatever else has the name of a class of ImageNet. What the eye
itself would call so comes three times as often, for it can be read off. DATA/photos/ has train.jsonl, dev.jsonl and
test.jsonl; a name is in one of them alone. Nothing is made where the package is not there. DATA/whole/ has photographs
that fill the frame, those of FOLDER (`gcompris.py`) that the eye calls as their files are called.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from benchmarks.tuxpaint import is_drawn, on_white, pixels, plain
from PIL import Image as Pictures
from transformers import AutoModelForImageClassification

from weft.conversation import Box, Conversation, Image, Message, Part, Task, Text, write_samples
from weft.parts import sources
from weft.playground.chance import Chance
from weft.playground.phrases import described, refer_to, say
from weft.playground.scenes import Scene, draw_scene, overlap
from weft.playground.world import filed

STAMPS = Path("/usr/share/tuxpaint/stamps")  # where the package puts them
CAPTION = re.compile(r"((?:a|an|two) [a-z' -]+?)(?: \(.*\))?[.!]?")
NOT = ("cartoon", "symbols", "roadsigns", "military", "people", "toys", "space", "naturalforces", "halloween", "easter")
SIDES = 320, 480  # pixels of a picture
SPLITS = {"dev": (0,), "test": (1,), "train": range(2, 14)}  # of the remainders by 14 that a name may leave
WHAT = ("What is this?", "What is in the picture?", "What do you see?", "What does the picture show?", "What's this?")
ALL = ("What is in the picture?", "What do you see?", "Which things are in the picture?", "What does the picture show?")
IS_THERE = ("Is there {} in the picture?", "Do you see {}?", "Can you see {}?")
Turn = tuple[list[Part], list[Part]]


@dataclass(frozen=True)
class Photograph:
    path: Path
    name: str  # with its article


@dataclass(frozen=True)
class Sheet:
    picture: Any
    photographs: tuple[Photograph, ...]
    boxes: tuple[tuple[float, float, float, float], ...]  # of each, in fractions
    scene: Scene | None  # what was drawn beside them


def photographs(root: Path, classes: Sequence[str]) -> list[Photograph]:
    """Those with a caption that is a name; ``classes``: names of each of ImageNet's, with commas between."""
    exam = {plain(name) for of in classes for name in of.split(",")}
    found = []
    for path in sorted(root.rglob("*.png")):
        words = path.with_suffix(".txt")
        if not words.exists() or plain(path.stem) in exam or set(NOT) & set(path.parts):
            continue
        caption = CAPTION.fullmatch(words.read_text("utf-8", "replace").splitlines()[0].strip().lower())
        if caption and len(caption[1].split()) <= 4 and not is_drawn(path):
            found.append(Photograph(path, caption[1]))
    return found


def of_split(found: Sequence[Photograph], split: str) -> list[Photograph]:
    """A name is in one split alone."""
    return [p for p in found if crc32(p.name.encode()) % 14 in SPLITS[split]]


@cache
def stamp(path: Path) -> Any:
    """What is seen of a photograph, at most 480 pixels a side."""
    whole = Pictures.open(path).convert("RGBA")
    whole = whole.crop(whole.getchannel("A").getbbox())
    whole.thumbnail((SIDES[1], SIDES[1]))
    return whole


def sheet(chance: Chance, found: Sequence[Photograph]) -> Sheet:
    """One photograph, two to four, or one or two among drawn things."""
    way, scene = chance.rng.random(), draw_scene(chance)
    if among := way > 0.7:
        wide, high = scene.width, scene.height
        ground = scene.render()
    else:
        wide, high = (chance.whole(*SIDES) for _ in range(2))
        size, white = (wide, high), chance.yes(0.5)
        smooth = Pictures.fromarray(scene.ground).resize(size, Pictures.Resampling.BICUBIC)
        ground = Pictures.new("RGB", size, "white") if white else smooth
    count = chance.whole(1, 2) if among else 1 if way < 0.4 else chance.whole(2, 4)
    chosen, boxes, pasted = [], [], []
    for photograph in chance.shuffled(found)[: 3 * count]:
        if len(chosen) == count or photograph.name in [p.name for p in chosen]:
            continue
        most = (0.4, 1.3) if count == 1 and not among else (0.3, 0.55)
        for _ in range(20):
            one = stamp(photograph.path)
            one = one.transpose(Pictures.Transpose.FLIP_LEFT_RIGHT) if chance.yes() else one
            scale = chance.between(*most) * min(wide / one.width, high / one.height)
            one = one.resize([max(8, round(scale * side)) for side in one.size], Pictures.Resampling.BICUBIC)
            left, top = (chance.whole(*sorted((0, a - b))) for a, b in ((wide, one.width), (high, one.height)))
            sides = left / wide, top / high, (left + one.width) / wide, (top + one.height) / high
            box = tuple(min(max(side, 0.0), 1.0) for side in sides)
            if all(overlap(box, other)[1] < 0.05 for other in boxes):  # type: ignore[arg-type]
                chosen.append(photograph)
                boxes.append(box)
                pasted.append((one, left, top))
                break
    kept = [t for t in scene.things if all(overlap(t.box, box)[1] < 0.1 for box in boxes)] if among else []  # type: ignore[arg-type]
    scene = replace(scene, things=tuple(kept))
    picture = (scene.render() if among else ground).convert("RGBA")
    for one, left, top in pasted:
        picture.alpha_composite(one, (max(left, 0), max(top, 0)), (max(-left, 0), max(-top, 0)))
    return Sheet(picture.convert("RGB"), tuple(chosen), tuple(boxes), scene if kept else None)  # type: ignore[arg-type]


def sample(n: int, split: str, found: Sequence[Photograph]) -> Conversation:
    """Sample ``n``, its picture in memory: several turns about one picture."""
    chance = Chance(np.random.default_rng((31, list(SPLITS).index(split), n)), split)
    seen = sheet(chance, of_split(found, split))
    names = [p.name for p in seen.photographs]
    turns: list[Turn] = []
    for name, box in zip(names, seen.boxes, strict=True):
        the = re.sub("^(an?|two) ", "the ", name)
        refer: Turn = [Task("refer"), Text(the)], [Box((box,), the, 0)]
        identify: Turn = [Task("identify"), Box((box,), image=0)], [Text(name)]
        turns += [refer, identify] if len(names) == 1 else [chance.one((refer, identify))]
    for thing in chance.shuffled(seen.scene.things)[:3] if seen.scene else ():
        phrase = refer_to(chance, seen.scene, thing) if seen.scene else None
        if phrase and chance.yes():
            turns.append(([Task("refer"), Text(say(phrase))], [Box((thing.box,), say(phrase), 0)]))
        else:
            turns.append(([Task("identify"), Box((thing.box,), image=0)], [Text(say(described(thing), article="a"))]))
    there, others = chance.yes(), [p.name for p in found if p.name not in names]
    asked = chance.one(names if there else others)
    turns.append(([Task("vqa"), Text(chance.one(IS_THERE).format(asked))], [Text("yes" if there else "no")]))
    turns = chance.shuffled(turns)
    if seen.scene is None:
        told = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
        first: Turn = [Text(chance.one(WHAT if len(names) == 1 else ALL))], [Text(told)]
        turns.insert(0, first)
    messages = []
    for number, (asks, answers) in enumerate(turns):
        user = [Image(seen.picture), *asks] if number == 0 else asks
        messages += [Message("user", tuple(user)), Message("assistant", tuple(answers))]
    return Conversation(tuple(messages), f"{split}-photographs-{n}")


def whole_photographs(folder: Path, classes: Sequence[str]) -> list[Photograph]:
    """Of a folder whose files are called by what they show and a number, as `photographs` of stamps."""
    exam = {plain(name) for of in classes for name in of.split(",")}
    found = []
    for path in sorted(folder.glob("*.webp")):
        name = plain(path.stem)
        if name not in exam:
            plural = name.endswith("s") and not name.endswith("ss")
            found.append(Photograph(path, name if plural else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"))
    return found


def whole_sample(n: int, split: str, found: Sequence[Photograph]) -> Conversation:
    """Sample ``n``: what a photograph shows that fills the frame, most of it, mirrored half of the time."""
    chance = Chance(np.random.default_rng((37, list(SPLITS).index(split), n)), split)
    one = chance.one(found)
    picture = Pictures.open(one.path).convert("RGB")
    wide, high = (round(chance.between(0.75, 1) * side) for side in picture.size)
    left, top = chance.whole(0, picture.width - wide), chance.whole(0, picture.height - high)
    picture = picture.crop((left, top, left + wide, top + high))
    picture.thumbnail((SIDES[1], SIDES[1]))
    picture = picture.transpose(Pictures.Transpose.FLIP_LEFT_RIGHT) if chance.yes() else picture
    others = [p.name for p in found if p.name != one.name]
    asked, there = chance.one(IS_THERE), chance.yes()
    turns: list[Turn] = [
        ([Text(chance.one(WHAT))], [Text(one.name)]),
        (
            [Task("vqa"), Text(asked.format(one.name if there else chance.one(others)))],
            [Text("yes" if there else "no")],
        ),
    ]
    messages = []
    for number, (asks, answers) in enumerate(chance.shuffled(turns)):
        user = [Image(picture), *asks] if number == 0 else asks
        messages += [Message("user", tuple(user)), Message("assistant", tuple(answers))]
    return Conversation(tuple(messages), f"{split}-whole-{n}")


@torch.inference_mode()
def is_called_so(photograph: Photograph, eye: Any, shown: Callable[[Path], Any] = on_white) -> bool:
    """Whether one of the eye's five likeliest classes has the noun of the caption."""
    likely = eye(pixels(shown(photograph.path))).logits[0].topk(5).indices.tolist()
    said = " ".join(plain(eye.config.id2label[number]) for number in likely).split()
    return plain(photograph.name).split()[-1].removesuffix("s") in said


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("--stamps", type=Path, default=STAMPS)
    options.add_argument("--part", type=Path, default=sources()["vision"])
    options.add_argument("--count", type=int, default=1500)
    options.add_argument("--whole", type=Path)
    given = options.parse_args()
    if not given.stamps.is_dir():
        print(f"no photographs in {given.stamps}: install tuxpaint-stamps-default, or say where it lies (--stamps)")
        return
    torch.set_num_threads(1)
    eye = AutoModelForImageClassification.from_pretrained(given.part).eval()
    found = photographs(given.stamps, list(eye.config.id2label.values()))
    called = [photograph for photograph in found if is_called_so(photograph, eye)]
    print(f"{len(found)} photographs, of which the eye calls {len(called)} as their captions do")
    makers: dict[str, Callable[[int, str], Conversation]] = {
        "photos": lambda n, split: sample(n, split, [*found, *called, *called])
    }
    if given.whole:
        whole = whole_photographs(given.whole, list(eye.config.id2label.values()))
        whole = [p for p in whole if is_called_so(p, eye, lambda path: Pictures.open(path).convert("RGB"))]
        print(f"of those that fill the frame {len(whole)}: {', '.join(sorted({p.name for p in whole}))}")
        makers["whole"] = lambda n, split: whole_sample(n, split, whole)
    for (name, make), (split, share) in product(makers.items(), (("train", 1.0), ("dev", 0.04), ("test", 0.04))):
        folder = given.data / name / split
        if name == "whole" and split != "train":
            continue  # too few to hold some back
        folder.mkdir(parents=True, exist_ok=True)
        made = (make(n, split) for n in range(round(share * given.count)))
        write_samples(folder.with_suffix(".jsonl"), (filed(each, folder, n) for n, each in enumerate(made)))


if __name__ == "__main__":
    main()
