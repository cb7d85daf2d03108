"""What is said: English sentences from a grammar, numbers in words, and phrases that four languages have in common."""

from __future__ import annotations

import re
import zlib

from weft.named import beside
from weft.playground.chance import Chance
from weft.playground.phrases import LANGUAGES, NOUNS, PLACE_WORDS, Phrase, inflected, say
from weft.playground.scenes import COLORS, HELD_OUT, NEW_PAIR, SHAPES

_TABLES = beside(__file__)
ONES, TENS = _TABLES["ones"].split(), _TABLES["tens"].split()
SLOTS: dict[str, list[str]] = {**_TABLES["slots"], "color": list(COLORS)}
TEMPLATES: list[str] = _TABLES["templates"]
# What the four languages say alike, in the order of LANGUAGES.
TABLE = [tuple(row) for row in _TABLES["alike"]]
_SAID = _TABLES["said"]


def in_words(number: int) -> str:
    """0 to 9,999 in English words."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10 - 2] + (f"-{ONES[number % 10]}" if number % 10 else "")
    above, below = divmod(number, 1000 if number >= 1000 else 100)
    said = f"{ONES[above]} {'thousand' if number >= 1000 else 'hundred'}"
    return said + ((" " if below >= 100 else " and ") + in_words(below) if below else "")


def sentence(chance: Chance) -> tuple[str, str]:
    """An English sentence of the split, with its numbers in words, and with them in digits."""
    while True:
        filled = written = chance.one(TEMPLATES)
        slots = re.findall(r"{(\w+)}", filled)
        fillings = [_filling(chance, slot) for slot in slots]
        for slot, (words, digits) in zip(slots, fillings, strict=True):
            filled, written = (t.replace(f"{{{slot}}}", w, 1) for t, w in ((filled, words), (written, digits)))
        filled, written = (re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", t) for t in (filled, written))
        if split_of(filled) == chance.split and ("digit" in slots or len(set(fillings)) == len(fillings)):
            return filled[0].upper() + filled[1:], written[0].upper() + written[1:]


def _filling(chance: Chance, slot: str) -> tuple[str, str]:
    if slot == "on":
        word = chance.one(("on", "off"))
    elif slot == "number":
        number = int(10 ** chance.between(1.4, 4)) if chance.yes(0.9) else chance.whole(0, 9999)
        return in_words(number), f"{number:,}" if number > 999 else str(number)
    elif slot in ("small", "digit"):
        number = chance.whole(0, 9) if slot == "digit" else chance.whole(2, 99)
        return in_words(number), str(number)
    elif slot == "time":
        hour = chance.one(ONES[1:13])
        word = chance.one((f"half past {hour}", f"quarter to {hour}", f"quarter past {hour}", f"{hour} o'clock"))
    else:
        word = chance.one(SLOTS[slot])
    return word, word


def split_of(text: str) -> str:
    """Which split a sentence belongs to: one in ten is for tests, one in twenty for development."""
    place = zlib.crc32(text.casefold().encode()) % 20
    return "test" if place < 2 else "dev" if place == 2 else "train"


def alike(chance: Chance) -> tuple[str, ...]:
    """The same in the four languages, of the split: a row of the table, or something about things and colours."""
    while True:
        row = chance.one(TABLE) if chance.yes(0.4) else _about_things(chance)
        if split_of(row[0]) == chance.split:
            if any(f"{color} {shape}" in row[0] for color, shape in HELD_OUT):
                chance.marks.add(NEW_PAIR)
            return row


def _about_things(chance: Chance) -> tuple[str, ...]:
    while True:
        thing = Phrase(chance.one(SHAPES), chance.one(tuple(COLORS)), chance.one((None, None, "small", "large")))
        if chance.split == "test" or (thing.color, thing.shape) not in HELD_OUT:
            break
    kind, place = chance.whole(0, 2), chance.whole(0, 8)
    row = []
    for language in LANGUAGES:
        if kind == 0:
            said = _SAID["show"][language].format(say(thing, language, "accusative" if language == "de" else "a"))
        elif kind == 1:
            said = f"{say(thing, language)} {_SAID['is'][language]} {PLACE_WORDS[language][place]}."
        else:
            bare = Phrase(thing.shape, size=thing.size)
            gender = NOUNS[language][thing.shape or ""][0]
            article = "none" if language == "de" else "the"
            color = inflected(thing.color or "", language, gender, article)
            said = f"{say(bare, language)} {_SAID['color_is'][language]} {color}."
        row.append(said[0].upper() + said[1:])
    return tuple(row)
