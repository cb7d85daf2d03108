"""Both senses: what is said aloud is about the picture, belongs to the split, and the answer follows from it."""

import importlib.util
import re

import numpy as np
import pytest
from playground_reading import found

from weft.conversation import Box
from weft.playground import together
from weft.playground.chance import Chance
from weft.playground.scenes import HELD_OUT
from weft.playground.sentences import split_of
from weft.playground.together import TOGETHER

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="needs espeak-ng: pip install espeakng-loader"
)


def made(monkeypatch, task, seed, split="test"):
    """A sample's turns, the pictures that they show, and all that is said aloud in their clips, in order."""
    drawn, said = {}, []
    shown, speak = together._picture, together.say_aloud
    monkeypatch.setattr(together, "_picture", lambda scene: drawn.setdefault(id(scene), (scene, shown(scene)))[1])
    monkeypatch.setattr(together, "say_aloud", lambda chance, text, *a: said.append(text) or speak(chance, text, *a))
    chance = Chance(np.random.default_rng((8, seed)), split)
    turns = TOGETHER[task](chance)
    monkeypatch.undo()
    return turns, [scene for scene, _ in drawn.values()], said, chance


@needs_espeak
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("split", ["train", "test"])
def test_what_is_to_be_found_is_what_is_said(monkeypatch, seed, split):
    turns, (scene,), (text,), chance = made(monkeypatch, "spoken_refer", seed, split)
    assert split_of(text) == split
    (thing,) = found(re.search(r"the (?!.*around the).+(?=[.?])|(?<=around )the .+(?=\.)", text)[0], scene)
    ((_, (box,)),) = turns
    assert isinstance(box, Box) and box.boxes == (thing.box,)
    assert ("new_pair" in chance.marks) == ((thing.color, thing.shape) in HELD_OUT)


@needs_espeak
@pytest.mark.parametrize("seed", range(8))
def test_one_of_two_pictures_shows_what_is_asked_for(monkeypatch, seed):
    ((asked, (answer,)),), scenes, said, _ = made(monkeypatch, "which_picture", seed)
    question = said[0] if said else asked[-1].text
    assert split_of(question) == "test" or not said
    words = re.search(r"\b(an? (?!picture).+?)\?", question.replace("Which one is the picture with ", ""))[1]
    fit = [bool(found(words, scene)) for scene in scenes]
    assert fit.count(True) == 1 and answer.text == ("the first", "the second")[fit.index(True)]


@needs_espeak
@pytest.mark.parametrize("seed", range(8))
def test_one_of_two_clips_is_about_the_picture(monkeypatch, seed):
    ((_, (answer,)),), (scene,), said, _ = made(monkeypatch, "which_clip", seed)
    assert [split_of(text) for text in said] == ["test", "test"]
    named = [re.search(r"(an? (?!picture)[a-z ]+?)(?: here| in it)?\.", text)[1] for text in said]
    fit = [bool(found(words, scene)) for words in named]
    assert fit.count(True) == 1 and answer.text == ("the first", "the second")[fit.index(True)]


@pytest.mark.parametrize("seed", range(12))
def test_what_is_asked_of_several_pictures_is_seen_in_the_one_named(monkeypatch, seed):
    turns, scenes, _, _ = made(monkeypatch, "several_pictures", seed)
    ((first, (count,)), (second, (box,))) = turns
    order = ("first", "second", "third")
    what, which = re.match(r"How many (.+) are in the (\w+) picture", first[-1].text).groups()
    assert count.text == str(len(found(what, scenes[order.index(which)])))
    what, which = re.match(r"(.+) in the (\w+) picture", second[-1].text).groups()
    (thing,) = found(what, scenes[order.index(which)])
    assert box == Box((thing.box,), what, order.index(which))


@pytest.mark.parametrize("seed", range(15))
def test_later_turns_are_about_what_the_first_named(monkeypatch, seed):
    turns, (scene,), _, _ = made(monkeypatch, "picture_conversation", seed)
    words = re.search(r"(?:is|see) (the .+)\?", turns[0][0][-1].text)[1]
    (thing,) = found(words, scene)
    for asked, (answer,) in turns[1:]:
        if isinstance(answer, Box):
            assert answer.boxes == (thing.box,)
        elif "same color" in asked[0].text:
            assert int(answer.text) == sum(t.color == thing.color for t in scene.things) - 1
        elif "shape" in asked[0].text:
            assert int(answer.text) == sum(t.shape == thing.shape for t in scene.things) - 1
        else:
            assert thing in found(f"the object {answer.text}", scene)
