"""What is asked about one picture, and the exact answer: questions, captions and boxes."""

from __future__ import annotations

from collections.abc import Callable

from weft.conversation import Box, Image, Part, Task, Text
from weft.named import beside
from weft.playground.chance import Chance
from weft.playground.phrases import (
    AND,
    DIRECTION_WORDS,
    NOUNS,
    PLACE_WORDS,
    PLACES,
    RELATION_WORDS,
    RELATIONS,
    Phrase,
    described,
    inflected,
    phrases,
    place_of,
    refer_to,
    related,
    run_together,
    say,
)
from weft.playground.scenes import COLORS, DIRECTIONS, HELD_OUT, NEW_PAIR, SHAPES, Scene, Thing, draw_scene

Turns = list[tuple[list[Part], list[Part]]]  # what is asked, and the answer
Asked = tuple[str, str]  # a question and its answer

# Language -> kind -> wordings. Of what is asked: {the} and {other} point at one thing, {a} and {some} name a kind, {at}
# is a side of a thing.
WORDINGS = beside(__file__)
YES_NO = {"en": ("yes", "no"), "fr": ("oui", "non"), "de": ("ja", "nein"), "es": ("sí", "no")}


def target(chance: Chance, scene: Scene) -> Thing:
    """A thing to ask about: in a test, one of a combination never trained on, where there is one."""
    thing = _in_turn(chance, scene)[0]
    mark(chance, thing)
    return thing


def mark(chance: Chance, *things: Thing) -> None:
    """Marks the sample where one of the things it is about is of a combination never trained on."""
    chance.marks.discard(NEW_PAIR)
    if any((t.color, t.shape) in HELD_OUT for t in things):
        chance.marks.add(NEW_PAIR)


def _in_turn(chance: Chance, scene: Scene) -> list[Thing]:
    return sorted(chance.shuffled(scene.things), key=lambda t: (t.color, t.shape) not in HELD_OUT)


def pointed(chance: Chance, without: tuple[str, ...] = ()) -> tuple[Scene, Thing, Phrase]:
    """A picture with a thing that a phrase tells from all others."""
    while True:
        scene = draw_scene(chance)
        thing = target(chance, scene)
        phrase = refer_to(chance, scene, thing, without)
        if phrase:
            return scene, thing, phrase


# ----------------------------------------------------------------------------------------------------------- questions


def _count(chance: Chance, scene: Scene, thing: Thing) -> dict[str, str]:
    kind = chance.one((Phrase(thing.shape), Phrase(thing.shape), Phrase(color=thing.color), Phrase()))
    if chance.yes(0.12):
        kind = Phrase(chance.one(SHAPES))  # mostly of what is not there
    return _about(chance, kind, "some") | {"answer": str(len(alike(scene, kind)))}


def _color(chance: Chance, scene: Scene, thing: Thing) -> dict[str, str] | None:
    phrase = refer_to(chance, scene, thing, ("color",))
    return _about(chance, phrase, "the") | {"answer": inflected(thing.color, chance.language)} if phrase else None


def _shape(chance: Chance, scene: Scene, thing: Thing) -> dict[str, str] | None:
    phrase = refer_to(chance, scene, thing, ("shape",))
    return _about(chance, phrase, "the") | {"answer": NOUNS[chance.language][thing.shape][1]} if phrase else None


def _exists(chance: Chance, scene: Scene, thing: Thing) -> dict[str, str] | None:
    """Half are there; of those that are not, most share colour or shape with what is."""
    there = chance.yes()
    color, shape = thing.color, thing.shape
    if not there:
        color = chance.one(tuple(COLORS)) if chance.yes() else color
        shape = chance.one(SHAPES) if color == thing.color or chance.yes(0.3) else shape
        if (color, shape) in HELD_OUT:
            return None
    asked = chance.one((Phrase(shape, color), Phrase(shape, color), Phrase(shape)))
    if bool(alike(scene, asked)) is not there:
        return None
    answer = YES_NO[chance.language][not there]
    return _about(chance, asked, "accusative" if chance.language == "de" else "a") | {"answer": answer}


def _beside(chance: Chance, scene: Scene, thing: Thing) -> dict[str, str] | None:
    """What is on one side of another thing, where only ``thing`` is, by any reading."""
    found = []
    for landmark in scene.things:
        for relation in RELATIONS:
            surely = related(scene, thing, relation, landmark, True)
            if surely and sum(related(scene, t, relation, landmark, False) for t in scene.things) == 1:
                found.append((relation, landmark))
    if not found:
        return None
    relation, landmark = chance.one(found)
    names = phrases(scene, landmark, ("relation", "place"))
    if not names:
        return None
    words = RELATION_WORDS[chance.language][RELATIONS.index(relation)]
    at = f"{words} {say(chance.one(names), chance.language, 'dative' if chance.language == 'de' else 'the')}"
    return {"at": run_together(at, chance.language), "answer": say(described(thing), chance.language, "a")}


def _larger(chance: Chance, scene: Scene, thing: Thing) -> dict[str, str] | None:
    """Than another, clearly so: by its longer side and by its area. A pair is asked about where its larger one is."""

    def area(t: Thing) -> float:
        return (t.box[2] - t.box[0]) * (t.box[3] - t.box[1])

    others = [t for t in scene.things if thing.extent > 1.25 * t.extent and area(thing) > 1.5 * area(t)]
    if not others:
        return None
    names = [refer_to(chance, scene, t, ("size", "place", "relation")) for t in (thing, chance.one(others))]
    said = [say(name, chance.language) for name in names if name]
    if len(said) < 2:
        return None
    return dict(zip(("the", "other"), chance.shuffled(said), strict=True)) | {"answer": said[0]}


def _where(chance: Chance, scene: Scene, thing: Thing) -> dict[str, str] | None:
    place = place_of(thing)
    phrase = refer_to(chance, scene, thing, ("place", "relation")) if place else None
    if not place or not phrase:
        return None
    return _about(chance, phrase, "the") | {"answer": PLACE_WORDS[chance.language][PLACES.index(place)]}


def _direction(chance: Chance, scene: Scene, thing: Thing) -> dict[str, str] | None:
    phrase = refer_to(chance, scene, thing, ("direction",)) if thing.direction else None
    if not phrase or not phrase.shape:
        return None  # what has no direction in its name
    words = DIRECTION_WORDS[chance.language][DIRECTIONS.index(thing.direction or "")]
    return _about(chance, phrase, "the") | {"answer": words.removeprefix("pointing ")}


def _about(chance: Chance, phrase: Phrase, article: str) -> dict[str, str]:
    """A phrase as the wordings name it."""
    field = "a" if article == "accusative" else article
    gender = NOUNS[chance.language][phrase.shape or "object"][0]
    return {field: say(phrase, chance.language, article), "o": "as" if gender == "f" else "os"}


KINDS: dict[str, Callable[[Chance, Scene, Thing], dict[str, str] | None]] = {
    "count": _count, "color": _color, "shape": _shape, "exists": _exists, "beside": _beside, "larger": _larger,
    "where": _where, "direction": _direction,
}  # fmt: skip


def alike(scene: Scene, kind: Phrase) -> list[Thing]:
    """All things of a colour or a shape or both."""
    return [t for t in scene.things if kind.shape in (None, t.shape) and kind.color in (None, t.color)]


def ask(chance: Chance, scene: Scene, kind: str) -> Asked | None:
    """A question of a kind and its answer; None where this picture has none."""
    for thing in _in_turn(chance, scene):
        found = KINDS[kind](chance, scene, thing)
        if found:
            mark(chance, *([thing] if found["answer"] != YES_NO[chance.language][1] else []))
            wording = chance.one(WORDINGS[chance.language][kind])
            return run_together(wording.format(**found), chance.language), found["answer"]
    return None


def asked(chance: Chance, kind: str | None = None) -> tuple[Scene, Asked]:
    """A picture and a question about it; the kind is kept until a picture fits it, so that all are equally frequent."""
    kind = kind or chance.one(tuple(KINDS))
    while True:
        scene = draw_scene(chance, "arrow" if kind == "direction" else None)
        question = ask(chance, scene, kind)
        if question:
            return scene, question


# --------------------------------------------------------------------------------------------------------------- tasks


def vqa(chance: Chance) -> Turns:
    scene, (question, answer) = asked(chance)
    return [([Image(scene.render()), Task("vqa"), Text(question)], [Text(answer)])]


def refer(chance: Chance) -> Turns:
    scene, thing, phrase = pointed(chance)
    words = say(phrase, chance.language)
    return [([Image(scene.render()), Task("refer"), Text(words)], [Box((thing.box,), words, 0)])]


def identify(chance: Chance) -> Turns:
    scene = draw_scene(chance)
    thing = target(chance, scene)
    answer = say(described(thing), chance.language, "a")
    return [([Image(scene.render()), Task("identify"), Box((thing.box,), image=0)], [Text(answer)])]


def detection(chance: Chance) -> Turns:
    """All of a colour or all of a shape, from left to right."""
    scene = draw_scene(chance)
    thing = target(chance, scene)
    kind = Phrase(thing.shape) if chance.yes(0.6) else Phrase(color=thing.color)
    words = say(kind, chance.language, "some")
    boxes = tuple(sorted(t.box for t in alike(scene, kind)))
    return [([Image(scene.render()), Task("detection"), Text(words)], [Box(boxes, words, 0)])]


def caption(chance: Chance) -> Turns:
    scene, told = _told(chance)
    text = "".join(before + name + after for before, name, after, _ in told)
    return [
        ([Image(scene.render()), Task("caption", {"language": chance.language})], [Text(text[0].upper() + text[1:])])
    ]


def grounded_caption(chance: Chance) -> Turns:
    """The caption with a box at each name."""
    scene, told = _told(chance)
    answer: list[Part] = []
    for i, (before, name, after, thing) in enumerate(told):
        label = name if i else name[0].upper() + name[1:]
        answer += [Text(before), Box((thing.box,), label, 0), Text(after)]
    kept = [p for p in answer if not isinstance(p, Text) or p.text]
    return [([Image(scene.render()), Task("grounded_caption")], _joined(kept))]


def _told(chance: Chance) -> tuple[Scene, list[tuple[str, str, str, Thing]]]:
    """The things of a picture from left to right: what stands before each name, the name, what stands after it."""
    while True:
        scene = draw_scene(chance)
        if all(place_of(t) for t in scene.things):
            break
    things = sorted(scene.things, key=lambda t: t.center)
    mark(chance, *things)
    told = []
    for i, thing in enumerate(things):
        before = "" if not i else f" {AND[chance.language]} " if i == len(things) - 1 else ", "
        place = PLACE_WORDS[chance.language][PLACES.index(place_of(thing) or "")]
        end = "." if i == len(things) - 1 else ""
        told.append((before, say(described(thing), chance.language, "a"), f" {place}{end}", thing))
    return scene, told


def _joined(parts: list[Part]) -> list[Part]:
    """Texts side by side as one."""
    joined: list[Part] = []
    for part in parts:
        if joined and isinstance(part, Text) and isinstance(joined[-1], Text):
            joined[-1] = Text(joined[-1].text + part.text)
        else:
            joined.append(part)
    return joined


def picture_questions(chance: Chance) -> Turns:
    """Every thing of one picture asked about in its own turn, in one of the ways above; then a question about all."""
    scene = draw_scene(chance)
    turns = [_one_asked(chance, scene, thing) for thing in chance.shuffled(scene.things)]
    found = ask(chance, scene, chance.one(("count", "exists")))
    turns += [([Task("vqa"), Text(found[0])], [Text(found[1])])] if found else []
    mark(chance, *scene.things)
    return [([Image(scene.render()), *turns[0][0]], turns[0][1]), *turns[1:]]


def _one_asked(chance: Chance, scene: Scene, thing: Thing) -> tuple[list[Part], list[Part]]:
    """A turn about a thing: where it is, what is in its box, or another question, where a phrase tells it apart."""
    phrase, way = refer_to(chance, scene, thing), chance.rng.random()
    if way < 0.4 and phrase:
        words = say(phrase, chance.language)
        return [Task("refer"), Text(words)], [Box((thing.box,), words, 0)]
    if way > 0.65:
        for kind in chance.shuffled(("color", "shape", "beside", "larger", "where", "direction")):
            found = KINDS[kind](chance, scene, thing)
            if found:
                wording = chance.one(WORDINGS[chance.language][kind])
                return [Task("vqa"), Text(run_together(wording.format(**found), chance.language))], [
                    Text(found["answer"])
                ]
    answer = say(described(thing), chance.language, "a")
    return [Task("identify"), Box((thing.box,), image=0)], [Text(answer)]


PICTURE_TASKS: dict[str, Callable[[Chance], Turns]] = {
    f.__name__: f for f in (vqa, caption, grounded_caption, refer, identify, detection, picture_questions)
}
