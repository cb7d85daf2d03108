"""Phrases that pick out exactly one thing of a picture by the fewest words, and how four languages say them.

A phrase is a choice of attributes; `say` writes it. Places and relations are chosen so that they hold under any usual
reading: what is meant is well on the left, and nothing else of its kind is in the left half at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from weft.named import beside
from weft.playground.chance import Chance
from weft.playground.scenes import DIRECTIONS, Scene, Thing

PLACES = ("left", "right", "top", "bottom", "middle", "top left", "top right", "bottom left", "bottom right")
RELATIONS = ("left of", "right of", "above", "below")
ATTRIBUTES = ("shape", "color", "size", "direction", "place", "relation")


@dataclass(frozen=True, slots=True)
class Phrase:
    shape: str | None = None
    color: str | None = None
    size: str | None = None
    direction: str | None = None
    place: str | None = None
    relation: tuple[str, Phrase] | None = None  # how it stands to what

    @property
    def has(self) -> tuple[str, ...]:
        return tuple(a for a in ATTRIBUTES if getattr(self, a))


def described(thing: Thing) -> Phrase:
    """Colour and shape, and the direction of an arrow: what a thing is called, wherever it is."""
    return Phrase(thing.shape, thing.color, direction=thing.direction)


def place_of(thing: Thing) -> str | None:
    """The ninth of the picture that a thing's centre is in; None where it is near a border between two."""
    x, y = thing.center
    if any(abs(v - border) < 0.04 for v in (x, y) for border in (1 / 3, 2 / 3)):
        return None
    row = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else ""
    column = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    return f"{row} {column}".strip() or "middle"


def _is_at(thing: Thing, place: str, surely: bool) -> bool:
    """Whether a thing is at a place: ``surely``, or by any reading at all."""
    x, y = thing.center
    if place == "middle":
        reach = 0.13 if surely else 0.27
        return abs(x - 0.5) < reach and abs(y - 0.5) < reach
    edge = 0.33 if surely else 0.5
    sides = {"left": x, "right": 1 - x, "top": y, "bottom": 1 - y}
    return all(sides[word] < edge for word in place.split())


def related(scene: Scene, thing: Thing, relation: str, to: Thing, surely: bool) -> bool:
    """Whether ``thing`` is ``relation`` (such as "left of") ``to``: ``surely``, or by any reading at all."""
    if thing is to:
        return False
    dx, dy = (thing.center[0] - to.center[0]) * scene.width, (thing.center[1] - to.center[1]) * scene.height
    along, aside = (dx, dy) if relation in ("left of", "right of") else (dy, dx)
    axis = 0 if relation in ("left of", "right of") else 1
    if relation in ("left of", "above"):
        along, gap = -along, to.box[axis] - thing.box[axis + 2]
    else:
        gap = thing.box[axis] - to.box[axis + 2]
    return gap >= 0 and abs(aside) < 0.7 * along if surely else along > -0.02 * min(scene.width, scene.height)


def phrases(scene: Scene, target: Thing, without: tuple[str, ...] = ()) -> list[Phrase]:
    """All phrases of the fewest attributes (none of ``without``) that fit ``target`` and nothing else.

    A direction is no word of its own: it goes with "arrow".
    """
    others = [t for t in scene.things if t is not target]
    simple = {a: getattr(target, a) for a in ("shape", "color", "size", "direction")}
    choices: dict[str, list[tuple[object, list[Thing]]]] = {}  # attribute -> its values, and what else may have them
    for name, value in simple.items():
        choices[name] = [(value, [t for t in others if getattr(t, name) == value])] if value else []
    if "place" not in without:
        choices["place"] = [(p, [t for t in others if _is_at(t, p, False)]) for p in PLACES if _is_at(target, p, True)]
    if "relation" not in without:
        choices["relation"] = list(_relations(scene, target, others))
    usable = [a for a in ATTRIBUTES if a not in without and choices.get(a)]
    for count in range(1, len(usable) + 1):
        found: list[Phrase] = []
        for names in combinations(usable, count):
            if "direction" in names and "shape" not in names:
                continue
            picks: list[tuple[dict[str, object], list[Thing]]] = [({}, others)]
            for name in names:
                picks = [
                    ({**chosen, name: value}, [t for t in left if any(t is o for o in also)])
                    for chosen, left in picks
                    for value, also in choices[name]
                ]
            found += [Phrase(**chosen) for chosen, left in picks if not left]  # type: ignore[arg-type]
        if found:
            return found
    return []


def _relations(scene: Scene, target: Thing, others: list[Thing]) -> Iterator[tuple[tuple[str, Phrase], list[Thing]]]:
    for landmark in others:
        near = [r for r in RELATIONS if related(scene, target, r, landmark, True)]
        names = phrases(scene, landmark, ("place", "relation")) if near else []
        for relation in near:
            for name in names:
                also = [t for t in others if related(scene, t, relation, landmark, False)]
                yield (relation, name), also


def refer_to(chance: Chance, scene: Scene, target: Thing, without: tuple[str, ...] = ()) -> Phrase | None:
    """One of the shortest phrases, a noun of its own before "object", the plain before the roundabout."""
    found = phrases(scene, target, without)
    if not found:
        return None
    kinds: dict[tuple[str, ...], list[Phrase]] = {}
    for phrase in found:
        kinds.setdefault(phrase.has, []).append(phrase)
    weights = [(4 if "shape" in has else 1) * (0.5 if {"size", "relation"} & {*has} else 1) for has in kinds]
    return chance.one(kinds[chance.one(list(kinds), weights)])


# ----------------------------------------------------------------------------------------------------------- languages

LANGUAGES = ("en", "fr", "de", "es")

_TABLES = beside(__file__)
# Of each language; nouns as gender, one and several.
NOUNS, ADJECTIVES, PLACE_WORDS, RELATION_WORDS, DIRECTION_WORDS = (
    {language: _TABLES[language][name] for language in LANGUAGES}
    for name in ("nouns", "adjectives", "places", "relations", "directions")
)
AND = {"en": "and", "fr": "et", "de": "und", "es": "y"}


def say(phrase: Phrase, language: str = "en", article: str = "the") -> str:
    """A phrase in words. ``article``: "the", "a", "some" (several, no article), "none"; in German also "dative" and
    "accusative the" (both with "the"), and "accusative" (with "a")."""
    gender, one, several = NOUNS[language][phrase.shape or "object"]
    words = {"noun": several if article == "some" else one}
    for name, value in (("size", phrase.size), ("color", phrase.color)):
        words[name] = inflected(value, language, gender, article) if value else ""
    found = [words[name] for name in _TABLES[language]["order"].split()]
    named = article if language == "de" or article in ("a", "some", "none") else "the"
    articles = _TABLES[language]["articles"].get(named)
    if articles:
        found.insert(0, articles.split()["mfn".index(gender)])
    if phrase.direction:
        found.append(DIRECTION_WORDS[language][DIRECTIONS.index(phrase.direction)])
    if phrase.place:
        found.append(PLACE_WORDS[language][PLACES.index(phrase.place)])
    if phrase.relation:
        relation, landmark = phrase.relation
        found.append(RELATION_WORDS[language][RELATIONS.index(relation)])
        found.append(say(landmark, language, "dative" if language == "de" else "the"))
    return run_together(" ".join(filter(None, found)), language)


def inflected(adjective: str, language: str, gender: str = "m", article: str = "none") -> str:
    """A colour or size in the form that goes with a noun; with "none", as the name of the colour."""
    word = ADJECTIVES[language][adjective]
    base, _, feminine = word.rstrip("=").partition("/")
    if article == "none" and language == "de" or word.endswith("="):
        return base
    if language == "de":
        return base + _TABLES["de"]["endings"][article].split()["mfn".index(gender)]
    form = feminine if feminine and gender == "f" else base
    if article != "some" or language == "fr" and form.endswith("s"):
        return form
    return form + "s" if language == "fr" or form[-1] in "aeo" else form.replace("ó", "o") + "es"


def run_together(text: str, language: str) -> str:
    for pattern, replacement in _TABLES[language]["contractions"]:
        text = re.sub(pattern, replacement, text)
    return text
