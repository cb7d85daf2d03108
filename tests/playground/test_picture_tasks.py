"""Questions about pictures: the answer is what a reader of the question finds in the picture."""

import re
from collections import Counter

import numpy as np
import pytest
from playground_reading import PHRASE, PLACES, found, is_at, is_beside, middle

from weft.conversation import Box, Image, Task, Text
from weft.playground import picture_tasks
from weft.playground.chance import Chance
from weft.playground.phrases import LANGUAGES
from weft.playground.picture_tasks import KINDS, PICTURE_TASKS, WORDINGS, asked


def chance(seed, split="test", language="en"):
    return Chance(np.random.default_rng((9, seed)), split, language)


def one(words, scene):
    (thing,) = found(words, scene)
    return thing


def called(thing):
    article = "an" if thing.color == "orange" else "a"
    return f"{article} {thing.color} {thing.shape}" + (f" pointing {thing.direction}" if thing.direction else "")


def area(thing):
    return (thing.box[2] - thing.box[0]) * (thing.box[3] - thing.box[1])


def answered(kind, question, scene):
    """The answer to an English question, found by reading it."""
    if question.endswith(" point to?"):
        question = question.replace(" point to?", " point")
    if kind == "count":
        return str(len(found(re.match(r"How many (.+?) (?:are|do) ", question)[1], scene)))
    if kind == "color":
        return one(re.search(r"(the .+?)(?: have)?\?", question)[1], scene).color
    if kind == "shape":
        return one(re.search(r"(the .+?)(?: have)?\?", question)[1], scene).shape
    if kind == "exists":
        return (
            "yes" if found(re.match(r".*?(?:there|see) (an? .+?)(?: in the picture)?\?", question)[1], scene) else "no"
        )
    if kind == "beside":
        relation, landmark = re.search(r"is (left of|right of|above|below) (.+)\?", question).groups()
        (thing,) = [t for t in scene.things if is_beside(t, scene, relation, one(landmark, scene))]
        return called(thing)
    if kind == "larger":
        two = re.search(r"larger, (.+) or (.+)\?|bigger, (.+) or (.+)\?", question).groups()
        return max((words for words in two if words), key=lambda words: area(one(words, scene)))
    if kind == "where":
        thing = one(re.search(r"is (the .+)\?", question)[1], scene)
        (place,) = [
            words
            for words, cell in PLACES.items()
            if is_at(thing, scene, words) and [1 if c is None else c for c in cell] == cell_of(thing, scene)
        ]
        return place
    return one(re.search(r"does (the .+) point", question)[1], scene).direction


def cell_of(thing, scene):
    x, y = middle(thing, scene)
    return [int(3 * x / scene.width), int(3 * y / scene.height)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_what_is_seen(kind):
    answers = Counter()
    for i in range(30):
        scene, (question, answer) = asked(chance(i), kind)
        assert answered(kind, question, scene) == answer, (question, scene.things)
        answers[answer] += 1
    assert len(answers) > 1 and max(answers.values()) < 24, answers


def test_half_of_what_is_asked_for_is_there():
    answers = Counter(asked(chance(i, "train"), "exists")[1][1] for i in range(120))
    assert 40 < answers["yes"] < 80


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_kind(language):
    assert set(WORDINGS[language]) == set(KINDS)
    for kind in KINDS:
        question, answer = asked(chance(3, language=language), kind)[1]
        assert question.endswith("?") and "{" not in question + answer and answer
        assert not re.search(r"\b(de le|de la le|de el|a [aeiou]|von dem|de [aeiou]|le [aeiou])\b", question), question


def turns_of(task, seed, **options):
    """A task's questions and answers, and the scene that was drawn for them."""
    drawn = []
    original = picture_tasks.draw_scene
    picture_tasks.draw_scene = lambda *given: drawn.append(original(*given)) or drawn[-1]
    try:
        turns = PICTURE_TASKS[task](chance(seed, **options))
    finally:
        picture_tasks.draw_scene = original
    assert np.array_equal(np.asarray(turns[0][0][0].source), np.asarray(drawn[-1].render()))
    return turns, drawn[-1]


def parts(task, seed):
    """The question and answer of a task that asks once, and the scene."""
    ((question, answer),), scene = turns_of(task, seed)
    return question, answer, scene


@pytest.mark.parametrize("seed", range(12))
def test_boxes_are_those_of_what_is_named(seed):
    question, (box,), scene = parts("refer", seed)
    assert box == Box((one(question[2].text, scene).box,), question[2].text, 0)
    question, (box,), scene = parts("detection", seed)
    assert sorted(box.boxes) == list(box.boxes) == sorted(t.box for t in found(question[2].text, scene))
    question, (name,), scene = parts("identify", seed)
    (thing,) = [t for t in scene.things if (t.box,) == question[2].boxes]
    assert name == Text(called(thing))


@pytest.mark.parametrize("seed", range(12))
def test_a_caption_names_every_thing_and_its_place(seed):
    question, (text,), scene = parts("caption", seed)
    assert text.text[0].isupper() and text.text.endswith(".")
    said = re.split(r", | and ", text.text[0].lower() + text.text[1:-1])
    assert len(said) == len(scene.things)
    for phrase in said:
        assert PHRASE.match(phrase) and len(found(phrase, scene)) >= 1, phrase
    names = Counter(re.match(r"(an? .*?) (?:on|at|in) the", phrase)[1] for phrase in said)
    assert names == Counter(map(called, scene.things))


@pytest.mark.parametrize("seed", range(12))
def test_a_grounded_caption_is_the_caption_with_a_box_at_each_name(seed):
    _, answer, scene = parts("grounded_caption", seed)
    boxes = [p for p in answer if isinstance(p, Box)]
    assert sorted(b.boxes[0] for b in boxes) == sorted(t.box for t in scene.things)
    for box in boxes:
        (thing,) = [t for t in scene.things if t.box == box.boxes[0]]
        assert box.label.lower() == called(thing)
    text = "".join(p.text if isinstance(p, Text) else p.label for p in answer)
    assert re.fullmatch(r"An? .+ (on|at|in) the [a-z ]+\.", text)


def kind_of(question):
    """The kind of an English question, by its wording."""
    wordings = {
        re.compile(re.sub(r"\\{\w+\\}", "(.+)", re.escape(text))): kind
        for kind, texts in WORDINGS["en"].items()
        for text in texts
    }
    (kind,) = {kind for wording, kind in wordings.items() if wording.fullmatch(question)}
    return kind


def told(turn):
    """Task, text and boxes of a question, and its one answer."""
    question, (answer,) = turn
    (task,) = [part.name for part in question if isinstance(part, Task)]
    text = "".join(part.text for part in question if isinstance(part, Text))
    return task, text, [box for part in question if isinstance(part, Box) for box in part.boxes], answer


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_turn_about_a_picture_is_answered_by_it(split):
    asked_for = Counter()
    for seed in range(40):
        turns, scene = turns_of("picture_questions", seed, split=split)
        about = []
        for turn in turns:
            task, text, boxes, answer = told(turn)
            if task == "refer":
                assert answer == Box((one(text, scene).box,), text, 0)
                about.append(answer.boxes[0])
            elif task == "identify":
                (thing,) = [t for t in scene.things if [t.box] == boxes]
                assert answer == Text(called(thing))
                about += boxes
            else:
                assert answer == Text(answered(kind_of(text), text, scene)), (text, scene.things)
                task = kind_of(text)
            asked_for[task] += 1
        assert len(about) == len(set(about))
        assert len(scene.things) <= len(turns) <= len(scene.things) + 1
    assert {"refer", "identify", "color", "shape", "beside", "larger", "where", "count", "exists"} <= set(asked_for)
    assert asked_for["refer"] > 40 and asked_for["identify"] > 40


def test_nothing_is_asked_twice_about_a_picture():
    for seed in range(60):
        asked_for = []
        for turn in turns_of("picture_questions", seed, split="train")[0]:
            task, text, boxes, _ = told(turn)
            two = re.fullmatch(r"Which is \w+, (.+) or (.+)\?", text)
            asked_for.append((task, frozenset(two.groups()) if two else text, *boxes))
        assert len(asked_for) == len(set(asked_for))


def test_a_picture_is_shown_once_and_asked_about_alike_each_time():
    for seed in range(10):
        turns, scene = turns_of("picture_questions", seed)
        pictures = [part for question, _ in turns for part in question if isinstance(part, Image)]
        assert len(pictures) == 1 and turns[0][0][0] is pictures[0]
        again, same = turns_of("picture_questions", seed)
        assert same.things == scene.things and list(map(told, again)) == list(map(told, turns))
    assert len({str(list(map(told, turns_of("picture_questions", seed)[0]))) for seed in range(10)}) == 10
