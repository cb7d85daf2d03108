"""Both senses, several pictures or clips, and turns that refer back."""

from __future__ import annotations

from collections.abc import Callable

from weft.conversation import Box, Image, Part, Task, Text, Word, Words
from weft.named import beside
from weft.playground.chance import Chance
from weft.playground.phrases import PLACE_WORDS, PLACES, Phrase, described, place_of, say
from weft.playground.picture_tasks import Turns, alike, asked, mark, pointed, target
from weft.playground.scenes import Scene, Thing, draw_scene
from weft.playground.sentences import split_of
from weft.playground.sound_tasks import ORDINALS, alone, named, speech, told
from weft.playground.sounds import Clip, make_clip
from weft.playground.speech import say_aloud

_TABLES = beside(__file__)
SHOW, WHICH, THERE = _TABLES["show"], _TABLES["which"], _TABLES["there"]


def _picture(scene: Scene) -> Image:
    return Image(scene.render())


def spoken_question(chance: Chance) -> Turns:
    """A question about a picture that is only heard, answered in words."""
    scene, question, answer = to_say(chance)
    clip = say_aloud(chance, question, chance.language)
    return [(_either_way(chance, _picture(scene), clip.audio), [Text(answer)])]


def to_say(chance: Chance) -> tuple[Scene, str, str]:
    """A scene, a question of the split about it, and its answer."""
    while True:
        scene, (question, answer) = asked(chance)
        if split_of(question) == chance.split:
            return scene, question, answer


def spoken_refer(chance: Chance) -> Turns:
    """A thing to find that is only heard, answered with its box."""
    request = None
    while not request:
        scene, thing, phrase = pointed(chance)
        article = "accusative the" if chance.language == "de" else "the"
        request = _worded(chance, SHOW[chance.language], say(phrase, chance.language, article))
    clip = say_aloud(chance, request, chance.language)
    answer: list[Part] = [Box((thing.box,), say(phrase, chance.language), 0)]
    return [(_either_way(chance, _picture(scene), clip.audio), answer)]


def _worded(chance: Chance, wordings: tuple[str, ...], words: str) -> str | None:
    """A sentence of the split, or None where all of these belong to another."""
    fit = [s for s in (wording.format(words) for wording in wordings) if split_of(s) == chance.split]
    return chance.one(fit) if fit else None


def _either_way(chance: Chance, *parts: Part) -> list[Part]:
    return chance.shuffled(parts)


def _only_in_one(chance: Chance) -> tuple[list[Scene], int, Thing]:
    """Two pictures, which of them, and a thing whose like only that one has."""
    while True:
        scenes = [draw_scene(chance) for _ in range(2)]
        at = chance.whole(0, 1)
        thing = target(chance, scenes[at])
        if not alike(scenes[1 - at], Phrase(thing.shape, thing.color)):
            return scenes, at, thing


def which_picture(chance: Chance) -> Turns:
    """Which of two pictures words describe, written or spoken."""
    aloud, question = chance.yes(), None
    while not question:
        scenes, at, thing = _only_in_one(chance)
        place = place_of(thing)
        words = say(described(thing), article="a") + (f" {PLACE_WORDS['en'][PLACES.index(place)]}" if place else "")
        question = _worded(chance, WHICH, words) if aloud else chance.one(WHICH).format(words)
    asked_for: Part = say_aloud(chance, question).audio if aloud else Text(question)
    return [([*map(_picture, scenes), asked_for], [Text(f"the {ORDINALS[at]}")])]


def which_clip(chance: Chance) -> Turns:
    """Which of two clips names a thing of the picture."""
    told_of: list[str | None] = [None]
    while None in told_of:
        scenes, at, thing = _only_in_one(chance)
        other = chance.one(scenes[1 - at].things)
        if not alike(scenes[at], Phrase(other.shape, other.color)):
            told_of = [_worded(chance, THERE, say(described(t), article="a")) for t in (thing, other)]
    first = chance.whole(0, 1)
    clips = [say_aloud(chance, text).audio for text in (told_of[first], told_of[1 - first]) if text]
    question = Text(chance.one(("Which clip names what is in the picture?", "Which clip is about the picture?")))
    return [([_picture(scenes[at]), *clips, question], [Text(f"the {ORDINALS[first]}")])]


def several_pictures(chance: Chance) -> Turns:
    """Two or three pictures; a question about one, then a thing to find in one."""
    pictures = [pointed(chance) for _ in range(chance.whole(2, 3))]
    shown: list[Part] = [_picture(scene) for scene, _, _ in pictures]
    at, there = (chance.whole(0, len(pictures) - 1) for _ in range(2))
    kind = Phrase(chance.one(pictures[at][0].things).shape) if chance.yes(0.7) else Phrase()
    question = f"How many {say(kind, article='some')} are in the {ORDINALS[at]} picture?"
    first: tuple[list[Part], list[Part]] = (
        [*shown, Task("vqa"), Text(question)],
        [Text(str(len(alike(pictures[at][0], kind))))],
    )
    _, thing, phrase = pictures[there]
    mark(chance, thing)
    words = say(phrase)
    wanted = Text(f"{words} in the {ORDINALS[there]} picture")
    return [first, ([Task("refer"), wanted], [Box((thing.box,), words, there)])]


def several_clips(chance: Chance) -> Turns:
    """Two or three clips of sounds and one of speech among them: which has what, and what is said."""
    clips = [make_clip(chance) for _ in range(chance.whole(2, 3))]
    once = [
        (i, s.name)
        for i, clip in enumerate(clips)
        for s in clip.sounds
        if all(s.name not in [o.name for o in other.sounds] for other in clips if other is not clip)
    ]
    if not once:
        return several_clips(chance)
    at, name = chance.one(once)
    said = speech(chance)
    where = chance.whole(0, len(clips))
    heard = [clip.audio for clip in clips]
    heard.insert(where, said.audio)
    at += at >= where
    return [
        ([*heard, Text(f"Which clip has {named(name)}?")], [Text(f"the {ORDINALS[at]}")]),
        ([Text(f"What is said in the {ORDINALS[where]} clip?")], [Text(said.text)]),
    ]


def picture_conversation(chance: Chance) -> Turns:
    """A thing is named once, then only "it"."""
    while True:
        scene, thing, phrase = pointed(chance)
        place = place_of(thing)
        if place:
            break
    turns: Turns = []
    if "color" not in phrase.has:
        turns.append(([Text(f"What color is {say(phrase)}?")], [Text(thing.color)]))
    elif "shape" not in phrase.has:
        turns.append(([Text(f"What shape is {say(phrase)}?")], [Text(thing.shape)]))
    else:
        turns.append(([Text(f"Do you see {say(phrase)}?")], [Text("yes")]))
    more: Turns = [
        ([Text("How many others have the same color?")], [Text(str(len(alike(scene, Phrase(color=thing.color))) - 1))]),
        ([Text("How many others have its shape?")], [Text(str(len(alike(scene, Phrase(thing.shape))) - 1))]),
        ([Task("refer"), Text("it")], [Box((thing.box,), "it", 0)]),
    ]
    if not phrase.place:
        more.append(([Text("Where is it?")], [Text(PLACE_WORDS["en"][PLACES.index(place)])]))
    turns += chance.shuffled(more)[: chance.whole(1, 3)]
    turns[0][0].insert(0, _picture(scene))
    return turns


def sound_conversation(chance: Chance) -> Turns:
    while True:
        clip: Clip = make_clip(chance)
        if clip.sounds[-1] in alone(clip):
            break
    last = clip.sounds[-1]
    return [
        ([clip.audio, Text("Which sounds do you hear?")], [Text(told([s.name for s in clip.sounds]))]),
        ([Text("How many is that?")], [Text(str(len(clip.sounds)))]),
        ([Task("locate"), Text("the last one")], [Words((Word(last.name, last.start, last.end),), 0)]),
    ]


def speech_conversation(chance: Chance) -> Turns:
    clip = speech(chance)
    more: Turns = [
        ([Text("How many words is that?")], [Text(str(len(clip.words)))]),
        ([Text("Is that a man or a woman?")], [Text(f"a {clip.speaker}")]),
        ([Text("What is its last word?")], [Text(clip.words[-1].text)]),
    ]
    return [([clip.audio, Text("What is said?")], [Text(clip.text)]), *chance.shuffled(more)[: chance.whole(1, 2)]]


TOGETHER: dict[str, Callable[[Chance], Turns]] = {
    f.__name__: f
    for f in (
        *(spoken_question, spoken_refer, which_picture, which_clip, several_pictures, several_clips),
        *(picture_conversation, sound_conversation, speech_conversation),
    )
}
