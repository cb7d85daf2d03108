"""What is asked about one clip, of speech or of sounds, and the exact answer."""

from __future__ import annotations

from collections.abc import Callable

from weft.conversation import Part, Task, Text, Word, Words
from weft.playground import sentences
from weft.playground.chance import Chance
from weft.playground.phrases import LANGUAGES, run_together
from weft.playground.picture_tasks import Asked, Turns
from weft.playground.sounds import SOUNDS, Clip, Sound, draw_names, make_clip
from weft.playground.speech import Speech, say_aloud

LANGUAGE_NAMES = dict(zip(LANGUAGES, ("English", "French", "German", "Spanish"), strict=True))
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
UNCOUNTED = ("rain", "wind")  # names that stand without "a"


def named(sound: str) -> str:
    """A sound as a caption names it."""
    return sound if sound in UNCOUNTED else run_together(f"a {sound}", "en")


def told(names: list[str]) -> str:
    return ", then ".join(map(named, names))


def speech(chance: Chance) -> Speech:
    """A sentence of the chance's language and split, spoken."""
    if chance.language == "en":
        return say_aloud(chance, sentences.sentence(chance)[0])
    return say_aloud(chance, _said_in(chance), chance.language)


def _said_in(chance: Chance) -> str:
    return sentences.alike(chance)[LANGUAGES.index(chance.language)]


# -------------------------------------------------------------------------------------------------------------- speech


def transcribe(chance: Chance) -> Turns:
    """In words; where a number is said, it may be wanted in digits."""
    said, written = sentences.sentence(chance) if chance.language == "en" else (_said_in(chance),) * 2
    fields: dict[str, object] = {"language": chance.language}
    if said != written:
        fields["itn"] = chance.yes()
    clip = say_aloud(chance, said, chance.language)
    return [([clip.audio, Task("transcribe", fields)], [Text(written if fields.get("itn") else said)])]


def word_times(chance: Chance) -> Turns:
    clip = speech(chance)
    task = Task("transcribe", {"language": chance.language, "timestamps": True})
    return [([clip.audio, task], [Words(clip.words, 0)])]


def translate(chance: Chance) -> Turns:
    """From one of the other three languages."""
    row = sentences.alike(chance)
    source = chance.one([x for x in LANGUAGES if x != chance.language])
    clip = say_aloud(chance, row[LANGUAGES.index(source)], source)
    task = Task("translate", {"language": source, "to": chance.language})
    return [([clip.audio, task], [Text(row[LANGUAGES.index(chance.language)])])]


def speaker(chance: Chance) -> Turns:
    clip = speech(chance)
    return [([clip.audio, Task("speaker", {"language": chance.language})], [Text(f"a {clip.speaker}")])]


def _who(chance: Chance) -> tuple[Speech, Asked]:
    who = chance.one(("man", "woman"))
    clip = say_aloud(chance, sentences.sentence(chance)[0], "en", who)
    return clip, (chance.one(("Who is speaking, a man or a woman?", "Is the speaker a man or a woman?")), f"a {who}")


def _language(chance: Chance) -> tuple[Speech, Asked]:
    language = chance.one(LANGUAGES)
    clip = say_aloud(chance, sentences.alike(chance)[LANGUAGES.index(language)], language)
    question = chance.one(("Which language is spoken?", "What language is this?"))
    return clip, (question, LANGUAGE_NAMES[language])


def _word(chance: Chance) -> tuple[Speech, Asked]:
    clip = say_aloud(chance, sentences.sentence(chance)[0])
    at = chance.whole(0, min(len(clip.words), len(ORDINALS)))
    if at == min(len(clip.words), len(ORDINALS)):
        return clip, ("What is the last word?", clip.words[-1].text)
    return clip, (f"What is the {ORDINALS[at]} word?", clip.words[at].text)


# -------------------------------------------------------------------------------------------------------------- sounds


def alone(clip: Clip) -> list[Sound]:
    """The sounds whose name only one has."""
    names = [s.name for s in clip.sounds]
    return [s for s in clip.sounds if names.count(s.name) == 1]


def _which(chance: Chance) -> tuple[Clip, Asked]:
    clip = make_clip(chance, draw_names(chance, 2))
    names = [s.name for s in clip.sounds]
    at = chance.whole(0, len(names) - 1)
    if at and clip.sounds[at - 1] in alone(clip) and chance.yes():
        return clip, (f"Which sound comes after the {names[at - 1]}?", named(names[at]))
    place = "last" if at == len(names) - 1 and chance.yes() else ORDINALS[at]
    return clip, (f"Which sound is {place}?", named(names[at]))


def _how_many(chance: Chance) -> tuple[Clip, Asked]:
    if chance.yes():
        clip = make_clip(chance)
        return clip, (chance.one(("How many sounds are there?", "How many sounds do you hear?")), str(len(clip.sounds)))
    name = chance.one(("beep", "bell", "siren"))
    count = chance.whole(0, 3)
    others = [n for n in dict.fromkeys(draw_names(chance)) if n != name][: chance.whole(0, 4 - count)]
    names = chance.shuffled([name] * count + (others if count else others or ["rain"]))
    clip = make_clip(chance, names, apart=True)
    return clip, (f"How many {name}s are there?", str(count))


def _is_there(chance: Chance) -> tuple[Clip, Asked]:
    clip = make_clip(chance)
    there = {s.name for s in clip.sounds}
    yes = chance.yes()
    name = chance.one(sorted(there) if yes else [n for n in SOUNDS if n not in there])
    return clip, (f"{chance.one(('Is there', 'Do you hear'))} {named(name)}?", "yes" if yes else "no")


def _how_long(chance: Chance) -> tuple[Clip, Asked]:
    """In half seconds, which the sound asked about lasts exactly."""
    names = chance.shuffled(tuple(SOUNDS))[: chance.whole(1, 3)]
    halves = [chance.whole(1, (8, 8, 5)[len(names) - 1]) for _ in names]
    clip = make_clip(chance, names, [h / 2 for h in halves], apart=True)
    at = chance.whole(0, len(names) - 1)
    unit = "second" if halves[at] == 2 else "seconds"
    return clip, (f"How long is the {names[at]}?", f"{halves[at] / 2:g} {unit}")


def _higher(chance: Chance) -> tuple[Clip, Asked]:
    while True:
        clip = make_clip(chance, ["beep", "beep"], [chance.between(0.3, 1.5) for _ in range(2)], apart=True)
        first, second = (s.pitch or 0.0 for s in clip.sounds)
        if max(first, second) > 1.15 * min(first, second):
            answer = "higher" if second > first else "lower"
            return clip, ("Is the second beep higher or lower than the first?", answer)


SOUND_KINDS: dict[str, Callable[[Chance], tuple[Clip, Asked]]] = {
    "which": _which, "how many": _how_many, "is there": _is_there, "how long": _how_long, "higher": _higher,
}  # fmt: skip
SPEECH_KINDS: dict[str, Callable[[Chance], tuple[Speech, Asked]]] = {
    "who": _who, "language": _language, "word": _word,
}  # fmt: skip


def question(chance: Chance) -> Turns:
    """About sounds."""
    clip, (asked, answer) = SOUND_KINDS[chance.one(tuple(SOUND_KINDS))](chance)
    return [([clip.audio, Task("question"), Text(asked)], [Text(answer)])]


def speech_question(chance: Chance) -> Turns:
    clip, (asked, answer) = SPEECH_KINDS[chance.one(tuple(SPEECH_KINDS))](chance)
    return [([clip.audio, Task("question", {"language": "en"}), Text(asked)], [Text(answer)])]


def sound_caption(chance: Chance) -> Turns:
    clip = make_clip(chance)
    text = told([s.name for s in clip.sounds])
    return [([clip.audio, Task("caption", {"language": "en"})], [Text(f"{text[0].upper()}{text[1:]}.")])]


def event(chance: Chance) -> Turns:
    clip = make_clip(chance)
    return [([clip.audio, Task("event")], [Text(", ".join(s.name for s in clip.sounds))])]


def locate(chance: Chance) -> Turns:
    """When one of the sounds is heard, each time; or all sounds, where nothing is named."""
    clip = make_clip(chance)
    name = chance.one(clip.sounds).name if chance.yes(0.75) else None
    heard = tuple(Word(s.name, s.start, s.end) for s in clip.sounds if name in (None, s.name))
    asked: list[Part] = [clip.audio, Task("locate"), *([Text(f"the {name}")] if name else [])]
    return [(asked, [Words(heard, 0)])]


def locate_word(chance: Chance) -> Turns:
    """When a word is said that is said once."""
    clip = speech(chance)
    texts = [w.text.casefold() for w in clip.words]
    word = chance.one([w for w in clip.words if texts.count(w.text.casefold()) == 1 and len(w.text) > 2])
    return [([clip.audio, Task("locate"), Text(f'the word "{word.text}"')], [Words((word,), 0)])]


SPEECH_TASKS: dict[str, Callable[[Chance], Turns]] = {
    f.__name__: f for f in (transcribe, word_times, translate, speaker, speech_question, locate_word)
}
SOUND_TASKS: dict[str, Callable[[Chance], Turns]] = {f.__name__: f for f in (question, sound_caption, event, locate)}
