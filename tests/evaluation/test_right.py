"""A sample is right when what its task asks for is right: each task, with answers that only seem so."""

import pytest

from weft.conversation import Box, Text, Word, Words
from weft.conversation.tasks import TASKS
from weft.evaluation.metrics import chosen, measure
from weft.evaluation.pairs import Pair
from weft.evaluation.right import GRADED, TIME_TOLERANCE, is_right, rule

LEFT, RIGHT, NEAR = (0.1, 0.1, 0.4, 0.4), (0.6, 0.6, 0.9, 0.9), (0.1, 0.1, 0.4, 0.38)


def box(*boxes, label=None, image=None):
    return Box(boxes, label, image)


def words(*rows, audio=None):
    return Words(tuple(Word(*row) for row in rows), audio)


BARK, BELL = ("dog bark", 0.5, 1.2), ("bell", 1.5, 2.5)
LATE = ("bell", 1.5 + TIME_TOLERANCE + 0.01, 2.5)
CASES = {  # task: expected, right answers, wrong answers
    "refer": (
        [box(LEFT, label="the cup")],
        [[box(LEFT)], [box(NEAR)], [Text("It is here:"), box(LEFT, label="a mug")]],
        [[box(RIGHT)], [], [Text("the cup")], [box(LEFT, RIGHT)], [box(LEFT, image=1)], [box(RIGHT, LEFT)]],
    ),
    "detection": (
        [box(LEFT, label="cup"), box(RIGHT, label="dog")],
        [[box(RIGHT, label="dog"), box(LEFT, label="Cup")]],
        [[box(LEFT, label="dog"), box(RIGHT, label="cup")], [box(LEFT, label="cup")], [box(LEFT, RIGHT, label="cup")]],
    ),
    "grounded_caption": (
        [Text("a man on a horse"), box(LEFT, label="a man"), box(RIGHT, label="a horse")],
        [[Text("someone rides"), box(LEFT, label="someone"), box(RIGHT)]],
        [[Text("a man on a horse")], [Text("a man on a horse"), box(LEFT)], [box(LEFT, RIGHT, LEFT)]],
    ),
    "locate": (
        [words(BARK, BELL)],
        [[words(BELL, BARK)], [words(BARK), words(("Bell", 1.4, 2.6))]],
        [
            [words(BARK, LATE)],
            [words(BARK, BELL, BELL)],
            [words(BARK)],
            [Text("dog bark bell")],
            [words(BARK, BELL, audio=1)],
        ],
    ),
    "transcribe": ([Text("one two")], [[Text(" one  two ")]], [[Text("one too")], [Text("one")], []]),
    "translate": ([Text("eins zwei")], [], []),
    "caption": ([Text("a cup")], [], []),
    "vqa": ([Text("Red")], [[Text("red.")]], [[Text("red cup")], []]),
    "identify": ([Text("a cup")], [[Text("A cup")]], [[Text("cup")], [box(LEFT)]]),
} | {
    task: ([Text("a bell")], [[Text("A bell.")]], [[Text("a bark")], [Text("a bell, a bark")], []])
    for task in ("question", "emotion", "vocal_sound", "scene", "event", "note", "music", "speaker", "entities", "chat")
}


def test_every_task_has_its_rule():
    assert CASES.keys() == TASKS.keys() | {"chat"}


@pytest.mark.parametrize("task", CASES)
def test_a_sample_is_right_when_what_its_task_asks_for_is_right(task):
    expected, right, wrong = CASES[task]
    verdict = lambda given: is_right(Pair(task, tuple(expected), tuple(given)))  # noqa: E731
    if task in ("translate", "caption"):
        assert verdict(expected) is None and verdict([]) is None
        assert rule([Pair(task, tuple(expected), ())]) == GRADED
    else:
        assert [verdict(given) for given in [expected, *right]] == [True] * (1 + len(right))
        assert [verdict(given) for given in wrong] == [False] * len(wrong)


def test_a_timed_transcript_needs_words_and_times():
    expected = (words(("one", 0.1, 0.4), ("two", 0.5, 0.9)),)

    def verdict(*given):
        return is_right(Pair("transcribe", expected, given))

    assert verdict(words(("one", 0.2, 0.5), ("two", 0.5, 0.9)))
    assert not verdict(words(("one", 0.1, 0.4), ("two", 0.5, 1.1)))
    assert not verdict(words(("one", 0.1, 0.4), ("too", 0.5, 0.9)))
    assert not verdict(Text("one two"))
    assert not verdict(words(("one two", 0.1, 0.9)))
    said = rule([Pair("transcribe", expected, ()), Pair("transcribe", (Text(""),), ())])
    assert "150 ms" in said and "wer 0" in said and "nothing is said" in said


def test_in_a_conversation_without_a_task_all_that_is_expected_counts():
    expected = (Text("Here."), box(LEFT))
    assert is_right(Pair("chat", expected, (Text("here"), box(LEFT))))
    assert not is_right(Pair("chat", expected, (Text("there"), box(LEFT))))
    assert not is_right(Pair("chat", expected, (Text("here"), box(RIGHT))))
    assert not is_right(Pair("chat", expected, (Text("here"),)))


def test_finding_nothing_where_nothing_is_is_right():
    assert is_right(Pair("detection", (Text(""),), ())) and not is_right(Pair("detection", (Text(""),), (box(LEFT),)))
    assert is_right(Pair("locate", (words(),), ())) and not is_right(Pair("locate", (words(),), (words(BARK),)))
    silent = Pair("transcribe", (Text(""),), ())
    assert is_right(silent) and not is_right(Pair("transcribe", (Text(""),), (Text("you"),)))
    for task in ("chat", "vqa", "refer"):
        for nothing in ((box(),), (Text(""),)):
            assert is_right(Pair(task, nothing, ())) and is_right(Pair(task, nothing, (box(),)))
            assert not is_right(Pair(task, nothing, (box(LEFT),)))


def test_boxes_given_where_none_are_expected_are_no_exact_answer():
    for task in ("chat", "detection"):
        figures = measure([Pair(task, (box(),), (box(LEFT),))], chosen(["exact", "box_f1_50"])).metrics[task]
        assert figures == {"box_f1_50": 0.0}
