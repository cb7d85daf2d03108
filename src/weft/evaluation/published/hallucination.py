"""CHAIR: objects that a caption names and its picture does not hold (Rohrbach et al., arXiv 1809.02156).

The rules of the original (LisaAnne/Hallucination, ``utils/chair.py``): lower case, words made singular, common pairs of
words taken as one ("hot dog" is no dog, a "baby elephant" no person), a synonym stands for its COCO object, and every
mention counts. CHAIR_i is mentions of absent objects over all mentions, CHAIR_s captions with any over all captions.

Different here: words are singular by a few rules of English instead of the package ``pattern``, and the synonyms are a
short list of weft's own unless ``--synonyms`` gives the original's ``data/synonyms.txt`` (one object a line, synonyms
after commas). So figures are near the original's, not equal, and MiniGPT-v2's code holds no CHAIR to be equal to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from weft.conversation import WeftError
from weft.evaluation.published.rows import Row, Scores, mean

# The 80 objects of COCO (cocodataset.org), with the words most often used for them.
OBJECTS = """
person, man, woman, boy, girl, child, kid, people, men, women, children, guy, lady, baby, player, skier, rider
bicycle, bike
car, automobile, taxi, cab, suv
motorcycle, motorbike, motor bike, motor cycle, scooter, moped
airplane, plane, aeroplane, air plane, jet, aircraft
bus, minibus
train, locomotive
truck, pickup, lorry
boat, ship, canoe, kayak, sailboat
traffic light, stoplight, stop light, street light, traffic signal
fire hydrant, hydrant
stop sign
parking meter
bench, pew
bird, duck, goose, seagull, pigeon, parrot, owl, chicken
cat, kitten
dog, puppy
horse, pony, foal
sheep, lamb, ram, ewe
cow, cattle, calf, bull, ox
elephant
bear, panda
zebra
giraffe
backpack, knapsack, rucksack
umbrella, parasol
handbag, purse, wallet
tie, necktie, bow tie
suitcase, suit case, luggage
frisbee
skis, ski
snowboard
sports ball, ball, baseball, basketball, football
kite
baseball bat
baseball glove
skateboard
surfboard
tennis racket, racket
bottle
wine glass
cup, mug
fork
knife
spoon
bowl
banana
apple
sandwich, burger, hamburger
orange
broccoli
carrot
hot dog
pizza
donut, doughnut
cake, cupcake
chair, stool, seat
couch, sofa
potted plant, houseplant
bed
dining table, table, desk
toilet
tv, television, monitor
laptop, laptop computer
mouse
remote
keyboard
cell phone, phone, mobile phone, cellphone, smartphone
microwave
oven, stove
toaster
sink
refrigerator, fridge
book
clock
vase
scissors
teddy bear, teddy
hair drier, hair dryer
toothbrush"""
_ANIMALS = ["bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub"]
# Pairs that stand for another word than either of theirs.
PAIRS = {f"{age} {animal}": animal for age in ("baby", "adult") for animal in _ANIMALS}
PAIRS |= {"passenger jet": "jet", "passenger train": "train", "bow tie": "tie", "toilet seat": "toilet"}
PAIRS |= {"home plate": "home plate"}
_PLURALS = {"men": "man", "women": "woman", "children": "child", "people": "people", "knives": "knife", "mice": "mouse"}
_PLURALS |= {"geese": "goose", "sheep": "sheep", "skis": "skis", "scissors": "scissors", "bus": "bus", "buses": "bus"}
_PLURALS |= {"calves": "calf", "oxen": "ox", "glass": "glass", "glasses": "glass", "tennis": "tennis"}


def singular(word: str) -> str:
    if word in _PLURALS:
        return _PLURALS[word]
    if len(word) > 3 and word.endswith("ies"):
        return word[:-3] + "y"
    if re.search(r"(?:ch|sh|x|ss)es$", word):
        return word[:-2]
    return word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def synonym_table(text: str) -> dict[str, str]:
    """Every word or pair to its object, from lines of ``object, synonym, ...``."""
    table: dict[str, str] = {}
    for line in text.splitlines():
        names = [name.strip().lower() for name in line.split(",") if name.strip()]
        for name in names:
            table[name] = table[" ".join(map(singular, name.split()))] = names[0]
    return table


def mentioned(caption: str, table: dict[str, str]) -> list[str]:
    """The objects that a caption names, once a mention."""
    tokens = [singular(word) for word in re.findall(r"[\w'-]+", caption.lower())]
    found: list[str] = []
    i = 0
    while i < len(tokens):
        pair = " ".join(tokens[i : i + 2])
        both = pair in PAIRS or (" " in pair and pair in table)
        found.append(PAIRS.get(pair, pair) if both else tokens[i])
        i += 2 if both else 1
    if "toilet" in found:
        found = [word for word in found if word != "seat"]
    return [table[word] for word in found if word in table]


def score(rows: Sequence[Row], synonyms: str | os.PathLike[str] | None = None) -> Scores:
    """References: ``objects``, names of what the picture holds; ``captions``, optional, whose objects are added."""
    if synonyms is None:
        table = synonym_table(OBJECTS)
    else:
        with open(synonyms, encoding="utf-8") as file:
            table = synonym_table(file.read())
        if not table:
            raise WeftError(f"{os.fspath(synonyms)}: holds no objects; write 'object, synonym, ...' a line")
    each: list[dict[str, float | None]] = []
    wrong = mentions = 0
    for row in rows:
        line = row.reference
        names = line.strings("objects") if line.fields.get("objects") != [] else []
        unknown = next((name for name in names if name.lower() not in table), None)
        if unknown is not None:
            line.wrong("objects", f"{unknown!r} is no object of the list of synonyms")
        held = {table[name.lower()] for name in names}
        for caption in line.strings("captions") if "captions" in line.fields else ():
            held |= set(mentioned(caption, table))
        named = mentioned(row.prediction, table)
        absent = sum(name not in held for name in named)
        wrong, mentions = wrong + absent, mentions + len(named)
        words = float(len(row.prediction.split()))
        share = absent / len(named) if named else 0.0
        each.append({"chair_i": share, "chair_s": float(absent > 0), "length_words": words})
    figures: dict[str, float | None] = {
        "chair_i": wrong / mentions if mentions else None,
        "chair_s": mean([one["chair_s"] or 0.0 for one in each]),
        "length_words": mean([one["length_words"] or 0.0 for one in each]),
    }
    settings = {"synonyms": "weft's own list" if synonyms is None else os.path.basename(os.fspath(synonyms))}
    notes = [] if mentions else ["no caption names an object: chair_i has nothing to count"]
    return Scores(figures, each, SAYS, (), settings, notes)


SAYS = {
    "chair_i": "0..1: mentions of absent objects over mentions of objects, pooled; lower is better",
    "chair_s": "0..1: captions that name an absent object; lower is better",
    "length_words": "words a caption, to read beside the two",
}
