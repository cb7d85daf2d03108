"""What a detector's eye alone finds and counts on pictures of the playground, before a language model reads it.

    python -m benchmarks.bundled_eye [MODEL] [--pictures 400]

Of pictures of the test split, each with a question how many there are of a shape, a colour or at all: how often the
tally holds that number, and of the things themselves precision and recall (name right, IoU at least 0.5). A model
without a tally is lent one.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter

import numpy as np
import torch

import weft
from weft.conversation import Conversation, Image, Message, Task, Text
from weft.models.detector import word_table
from weft.models.tally import Tally
from weft.playground.chance import Chance
from weft.playground.phrases import Phrase
from weft.playground.picture_tasks import alike
from weft.playground.scenes import SHAPES, Scene, draw_scene, overlap

ROOM = 32  # tokens of the tally


def asked(chance: Chance, scene: Scene) -> Phrase:
    """What is counted, as often as the playground asks for it."""
    thing = chance.one(scene.things)
    kinds = (Phrase(thing.shape), Phrase(thing.shape), Phrase(color=thing.color), Phrase())
    return Phrase(chance.one(SHAPES)) if chance.yes(0.12) else chance.one(kinds)


def found(ids: list[int], first: int, steps: int) -> list[tuple[list[int], tuple[float, ...]]]:
    """The names, as tokens, and boxes of a list of things."""
    things, at = [], 0
    while (box := next((i for i in range(at, len(ids)) if first <= ids[i] < first + steps), None)) is not None:
        name = ids[at:box]
        things.append((name, tuple((i - first + 0.5) / steps for i in ids[box : box + 4])))
        at = box + 4 + len(name)
    return things


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", nargs="?", default="bundled")
    options.add_argument("--pictures", type=int, default=400)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    loaded = weft.load(given.model)
    model, processor, eye = loaded.model, loaded.processor, loaded.model.vision_connector
    tally, decode = Tally(), processor.tokenizer.decode
    tally.learn(processor.tokenizer, processor.renderer.encode_text)
    eye.tally, eye.written = None, 400  # the list alone, and all of it
    ((first, steps),), nothing = model.config.image_place_ids, model.config.image_token_id
    words_VW, seen, spent = word_table(model), Counter[str](), {"picture": 0.0, "tally": 0.0}
    for n in range(given.pictures):
        chance = Chance(np.random.default_rng((given.seed, n)), "test")
        scene = draw_scene(chance)
        kind = asked(chance, scene)
        sample = Conversation((Message("user", (Image(scene.render()), Task("vqa"), Text("How many?"))),))
        pixels = processor.media([processor.encode(sample, generate=True)])["pixel_values"]
        began = time.process_time()
        with torch.inference_mode():
            (told_tSW,) = eye.tell(eye.inner(model.vision(pixels))[0])
            ids = eye.text(told_tSW, words_VW, model).tolist()
        things = found([i for i in ids if i != nothing], first, steps)
        listed = time.process_time()
        counts = tally.write([name for name, _ in things], ROOM)
        spent["picture"] += listed - began
        spent["tally"] += time.process_time() - listed
        said = re.search(rf"(\d+) {kind.color or kind.shape or 'objects'}(?![a-z])", decode(counts))
        right = int(said[1] if said else 0) == len(alike(scene, kind))
        way = "colour" if kind.color else "shape" if kind.shape else "all"
        seen.update({"asked": 1, f"asked, {way}": 1, "right": right, f"right, {way}": right})
        seen.update({"there": len(scene.things), "listed": len(things)})
        left = [(decode(name).strip(), box) for name, box in things if box[0] < box[2] and box[1] < box[3]]
        for thing in scene.things:
            name = f"{thing.color} {thing.shape}" + (f" pointing {thing.direction}" if thing.direction else "")
            near = [t for t in left if t[0] == name and overlap(t[1], thing.box)[0] >= 0.5]
            if near:
                left.remove(near[0])
                seen["hits"] += 1
    shares = {way: seen[f"right, {way}"] / max(seen[f"asked, {way}"], 1) for way in ("shape", "colour", "all")}
    print(f"counted right {seen['right'] / seen['asked']:.3f} of {seen['asked']}", shares)
    hits, there, listed = seen["hits"], seen["there"], seen["listed"]
    print(f"{there} things: precision {hits / max(listed, 1):.3f}, recall {hits / there:.3f}")
    print(", ".join(f"{1000 * s / given.pictures:.1f} CPU ms a {name}" for name, s in spent.items()))


if __name__ == "__main__":
    main()
