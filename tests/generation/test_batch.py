"""The running batch: whoever joins and leaves, each answer is that of the prompt alone."""

import numpy as np
import pytest
import tiny

from marks import nightly
from tiny_model import picture, questions, sound, user
from weft.conversation import parse_messages
from weft.generation import Options
from weft.generation.batch import Row, RunningBatch
from weft.generation.embedding import Embedder
from weft.models.encoding import Encoded

STATEFUL = {
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "qwen3_next": {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "num_experts": 0,
        "mlp_only_layers": [0, 1],
    },
}


def words(length, seed):
    ids = np.array(tiny.words(length, seed))
    return Encoded(ids, np.zeros(length, bool))


def run(batch, coming):
    """All answers of rows that come at certain steps: ``[(step, row)]``; and how many ran at most."""
    coming, step, most = sorted(coming, key=lambda c: c[0]), 0, 0
    while coming or len(batch):
        while coming and coming[0][0] <= step:
            batch.add(coming.pop(0)[1])
        batch.step()
        most, step = max(most, len(batch.running)), step + 1
    return most


def asked(model, question, **options):
    encoded = model.processor.encode(parse_messages(question), generate=True)
    return Row(encoded, Options(**options), options.get("max_new_tokens", 12))


# In what the running batch does with them.
LIKE_OTHERS = ("gemma", "gemma2", "gemma3_text", "mistral", "qwen2", "qwen3", "lfm2")


@pytest.mark.parametrize(
    "family",
    [nightly(f) if f in LIKE_OTHERS else f for f in (*tiny.FAMILIES, *STATEFUL)],
)
def test_rows_that_join_and_leave_at_any_step_are_as_alone(family):
    stateful = STATEFUL.get(family)
    model = tiny.model("llama", model_type=family, **stateful) if stateful else tiny.model(family)
    lengths, limits, steps = (3, 40, 1, 9, 17, 5, 90, 12), (30, 4, 25, 9, 1, 16, 7, 30), (0, 0, 2, 3, 3, 11, 12, 20)
    alone = []
    for i, (length, limit) in enumerate(zip(lengths, limits, strict=True)):
        row = Row(words(length, i), Options(), limit)
        run(RunningBatch(model, Embedder(model, None), frozenset()), [(0, row)])
        alone.append(row.ids)
    rows = [Row(words(n, i), Options(), limit) for i, (n, limit) in enumerate(zip(lengths, limits, strict=True))]
    most = run(RunningBatch(model, Embedder(model, None), frozenset(), tokens=1 << 20), zip(steps, rows, strict=True))
    assert [row.ids for row in rows] == alone
    assert most >= 4 and [len(row.ids) for row in rows] == list(limits)
    assert len(set(map(tuple, alone))) == len(alone)


def test_questions_with_media_are_answered_as_alone_whoever_else_is_asked(model):
    together = [asked(model, q, max_new_tokens=12) for q in questions()]
    batch = model.batch(4)
    run(batch, [(2 * i, row) for i, row in enumerate(together)])
    for question, row in zip(questions(), together, strict=True):
        alone = asked(model, question, max_new_tokens=12)
        run(model.batch(1), [(0, alone)])
        assert row.ids == alone.ids


def test_rows_may_have_options_of_their_own(model):
    options = [
        {},
        {"do_sample": True, "temperature": 1.5, "seed": 3},
        {"repetition_penalty": 1.7},
        {"do_sample": True, "top_k": 3, "seed": 4},
        {"do_sample": True, "top_p": 0.5, "seed": 4, "repetition_penalty": 1.3},
    ]
    question = questions()[1]
    together = [asked(model, question, max_new_tokens=12, **o) for o in options]
    run(model.batch(8), [(0, row) for row in together])
    for own, row in zip(options, together, strict=True):
        alone = asked(model, question, max_new_tokens=12, **own)
        run(model.batch(1), [(0, alone)])
        assert row.ids == alone.ids
    assert len({tuple(row.ids) for row in together}) >= 4


def test_a_row_that_is_dropped_gives_no_more_and_frees_its_place(model):
    batch = model.batch(2)
    rows = [asked(model, question, max_new_tokens=12) for question in questions()[:4]]
    for row in rows:
        batch.add(row)
    batch.step()
    assert {*batch.running} == {*rows[:2]}
    batch.drop(rows[0])
    batch.drop(rows[3])
    batch.step()
    assert len(rows[0].ids) == 1 and rows[2] in batch.running
    while len(batch):
        batch.step()
    assert len(rows[3].ids) == 0 < len(rows[1].ids)


def test_a_prompt_that_fails_harms_no_other(model):
    good = [asked(model, question, max_new_tokens=8) for question in (user("a"), user("b"))]
    bad = asked(model, user(picture(1), "c"), max_new_tokens=8)
    bad.prompt.images[0] = bad.prompt.images[0][:, :, :5]  # a picture that no encoder takes
    run(model.batch(4), [(0, row) for row in (good[0], bad, good[1])])
    assert bad.error is not None and not bad.ids
    for row, question in zip(good, (user("a"), user("b")), strict=True):
        alone = asked(model, question, max_new_tokens=8)
        run(model.batch(1), [(0, alone)])
        assert row.ids == alone.ids and row.error is None


def test_the_batch_holds_no_more_rows_or_tokens_than_it_may(model):
    rows = [asked(model, user("a " * n), max_new_tokens=6) for n in (1, 40, 3, 5, 2, 60, 1)]
    assert run(model.batch(3), [(0, row) for row in rows]) == 3
    rows = [asked(model, user("a " * 20), max_new_tokens=6) for _ in range(6)]
    wide = rows[0].length + 6
    assert run(model.batch(16, tokens=2 * wide + 1), [(0, row) for row in rows]) == 2
    alone = asked(model, user("a " * 90), max_new_tokens=6)
    assert run(model.batch(16, tokens=10), [(0, alone)]) == 1 and alone.error is None


def test_an_item_that_was_seen_is_not_encoded_again_until_others_need_its_place(model, monkeypatch):
    encoded = []
    real = type(model.model).embed_images
    monkeypatch.setattr(type(model.model), "embed_images", lambda self, p: (encoded.append(len(p)), real(self, p))[1])
    embedder = Embedder(model.model, model.processor)

    def embed(*parts):
        prompts = [model.processor.encode(parse_messages(user(*parts, "a")), generate=True)]
        return embedder(prompts)[0]

    first = embed(picture(1), sound(0.5))
    assert embed(picture(1), sound(0.5)).equal(first) and encoded == [1]
    embed(picture(2), picture(1), picture(2))
    assert encoded == [1, 1] and embedder.misses == 3 and embedder.hits == 4
    most = embedder.bytes // 2
    small = Embedder(model.model, model.processor, most)
    embedder, encoded[:] = small, []
    for seed in (1, 2, 3, 4, 1):
        embed(picture(seed))
    assert encoded == [1] * 5 and 0 < small.bytes <= most
