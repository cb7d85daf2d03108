"""Clips that grow with the run, and questions about one picture in one conversation."""

import numpy as np
import pytest
import teaching_kit

from training_world import RATE, asked_twice, tiny_spec
from weft.data.augment import Augment
from weft.data.clips import draw_clip
from weft.teaching.samples import Easing
from weft.training.build import build_model


@pytest.fixture(scope="module")
def processor():
    return build_model(tiny_spec())[1]


def data(path, processor, row_tokens=300, **lessons):
    return teaching_kit.data([path], processor, row_tokens, lessons, seed=3)


def test_clips_ease_in_from_single_words():
    augment = Augment(pad_seconds=0.2, join=0.9)

    def drawn(position, seed):
        points = [RATE * i // 2 for i in range(5)]
        now = Easing(augment, 100)(position)
        return draw_clip(now, np.random.default_rng(seed), 0, lambda _: points, np.arange(50), RATE)

    start, middle, end = ([drawn(position, seed) for seed in range(30)] for position in (0, 50, 100))
    assert all(len(plan.takes) == 1 and len(set(plan.takes[0].words)) == 1 for plan in start)
    assert all(t.words is None for plan in end for t in plan.takes)
    heard = [np.mean([plan.samples for plan in plans]) for plans in (start, middle, end)]
    assert heard[0] < heard[1] < heard[2]
    assert Easing(augment, 100)(100) == augment


def test_questions_about_one_picture_become_one_conversation_about_it(processor, tmp_path):
    path = asked_twice(tmp_path / "pictures")
    alone, together = data(path, processor), data(path, processor, converse=1.0)
    for position in range(18):
        one, joined = alone.conversation(position), together.conversation(position)
        assert len(joined.images) == 1 and len(joined.messages) == 6
        assert joined.messages[:2] == one.messages or joined.messages[1] == one.messages[1]
        answers = {str(m.parts[0]) for m in joined.messages if m.role == "assistant"}
        assert len(answers) == 3  # the picture's own three, each once
        encoded = together.encode(position)[0]
        assert len(encoded.images) == 1 and 0 < len(encoded) <= together.length(position)
    some = data(path, processor, converse=0.5)
    assert {len(some.conversation(p).messages) for p in range(18)} == {2, 4, 6}
    batch = next(together.batches())
    ((labels, starts),) = zip(batch.inputs["labels"], [batch.inputs["labels"][0] != -100], strict=True)
    assert int((starts[1:] & ~starts[:-1]).sum()) == 3 * len(batch.samples) and batch.labels == int((labels >= 0).sum())


def test_a_conversation_is_never_longer_than_a_row(processor, tmp_path):
    path = asked_twice(tmp_path / "pictures")
    longest = int(data(path, processor).lengths[0].tokens.max())
    bounded = data(path, processor, converse=1.0, row_tokens=longest + 3)
    assert all(bounded.length(p) <= longest + 3 and len(bounded.encode(p)[0]) <= longest + 3 for p in range(18))
    assert {len(bounded.conversation(p).messages) for p in range(18)} == {2}
