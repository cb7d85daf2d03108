"""The order of samples and the rows they are packed in: exact, complete, and the same for any number of ranks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.data import mixture as mixture_module
from weft.data.mixture import Mixture
from weft.data.packing import PackingPlan, micro_step_rows, pack, pack_evenly


def test_a_source_comes_once_an_epoch_in_another_order_each():
    mixture = Mixture([10], seed=3)
    epochs = [[mixture[e * 10 + i][1] for i in range(10)] for e in range(3)]
    assert all(sorted(e) == list(range(10)) for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_order_of_a_large_source_is_a_function_of_the_place(monkeypatch):
    monkeypatch.setattr(mixture_module, "LARGE", 30)
    mixture, again = Mixture([1000, 10], [3, 1], seed=3), Mixture([1000, 10], [3, 1], seed=3)
    drawn = [index for source, index in (mixture[i] for i in range(4000)) if source == 0]
    assert [sorted(drawn[e * 1000 : (e + 1) * 1000]) for e in range(3)] == [list(range(1000))] * 3
    assert drawn[:1000] != drawn[1000:2000] and abs(np.corrcoef(drawn[:1000], range(1000))[0, 1]) < 0.1
    assert [again[i] for i in (3999, 17)] == [mixture[i] for i in (3999, 17)]


def test_weights_are_kept_at_every_length():
    mixture = Mixture([1000, 50, 7], [0.6, 0.3, 0.1], seed=1)
    drawn = np.array([mixture[i][0] for i in range(4000)])
    for length in (100, 1000, 4000):
        shares = np.bincount(drawn[:length], minlength=3) / length
        assert np.abs(shares - [0.6, 0.3, 0.1]).max() < 0.02


def test_each_source_of_a_mixture_is_drawn_in_whole_epochs():
    mixture = Mixture([6, 4], [1.0, 3.0], seed=0)
    seen = {0: [], 1: []}
    for position in range(400):
        source, index = mixture[position]
        seen[source].append(index)
    for source, size in ((0, 6), (1, 4)):
        for epoch in range(len(seen[source]) // size):
            assert sorted(seen[source][epoch * size : (epoch + 1) * size]) == list(range(size))


def test_a_position_does_not_depend_on_what_was_asked_before():
    one, other = Mixture([9, 5], [2, 1], seed=7), Mixture([9, 5], [2, 1], seed=7)
    forward = [one[i] for i in range(60)]
    assert [other[i] for i in reversed(range(60))] == forward[::-1]
    assert [Mixture([9, 5], [2, 1], seed=8)[i] for i in range(60)] != forward


@given(st.lists(st.integers(0, 64), max_size=80))
def test_packing_places_each_sample_once_and_fills_no_row_over(lengths):
    rows = pack(lengths, 64)
    assert sorted(i for row in rows for i in row) == [i for i, n in enumerate(lengths) if n]
    assert all(0 < sum(lengths[i] for i in row) <= 64 for row in rows)
    assert len(rows) <= 1.3 * sum(lengths) / 64 + 2


def test_a_sample_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="65 tokens"):
        pack([3, 65], 64)


LENGTHS = np.random.default_rng(0).integers(5, 60, 300)


def plan(**options):
    return PackingPlan(lambda p: int(LENGTHS[p % 300]), 128, window=50, **options)


def test_an_epoch_is_covered_once():
    whole = plan(end=300)
    rows = []
    with pytest.raises(IndexError):
        while True:
            rows.append(whole[len(rows)])
    assert sorted(p for row in rows for p in row) == list(range(300))


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_out_what_one_rank_would_read(world):
    alone = [plan()[r] for step in range(6 * world) for r in micro_step_rows(step, 2)]
    shared = [plan()[r] for step in range(6) for rank in range(world) for r in micro_step_rows(step, 2, rank, world)]
    assert shared == alone


def test_an_anchor_gives_the_same_rows_without_planning_the_ones_before():
    asked = []

    def length(position):
        asked.append(position)
        return int(LENGTHS[position % 300])

    before = plan(seed=5)
    rows = [before[i] for i in range(60, 70)]
    resumed = PackingPlan(length, 128, window=50, seed=5, anchor=before.anchor(60))
    assert [resumed[i] for i in range(60, 70)] == rows
    assert min(asked) >= 50


@pytest.mark.usefixtures("whole_plans")
def test_rows_are_nearly_full():
    whole = PackingPlan(lambda p: int(LENGTHS[p % 300]), 128)
    used = sum(int(LENGTHS[p % 300]) for row in range(200) for p in whole[row])
    assert used / (200 * 128) > 0.97


def test_a_row_mixes_kinds():
    kinds = PackingPlan(lambda p: 20 + p % 4, 256)  # four kinds of sample, told by their lengths
    seen = [len({p % 4 for p in kinds[row]}) for row in range(60)]
    assert np.mean(seen) > 3.5


def test_without_packing_each_row_is_one_sample():
    single = plan(packing=False)
    assert all(len(single[i]) == 1 for i in range(120))


@given(st.lists(st.tuples(st.integers(0, 64), st.integers(0, 30), st.integers(0, 9)), max_size=80))
def test_even_rows_hold_each_sample_once_and_none_is_too_full(samples):
    lengths, media = [s[0] for s in samples], [s[1:] for s in samples]
    rows = pack_evenly(np.array(lengths), np.array(media).reshape(-1, 2), 64)
    assert sorted(i for row in rows for i in row) == [i for i, n in enumerate(lengths) if n]
    assert all(0 < sum(lengths[i] for i in row) <= 64 for row in rows)


@pytest.mark.usefixtures("whole_plans")
def test_even_rows_have_like_shares_of_pictures_and_sound_in_any_process():
    """A third each of text, pictures of one to thirteen views, and clips; rows of 4,096 tokens, 32 ranks."""
    rng = np.random.default_rng(0)
    views = np.where(np.arange(4096) % 3 == 1, rng.integers(1, 6, 4096) * 64, 0)
    sound = np.where(np.arange(4096) % 3 == 2, rng.integers(12, 375, 4096), 0)
    tokens = views + sound + rng.integers(20, 400, 4096)

    def plan(media):
        return PackingPlan(lambda p: int(tokens[p]), 4096, seed=1, media=media)

    even, plain = plan(lambda p: (int(views[p]), int(sound[p]))), plan(None)
    for row in (7, 0, 300):
        assert plan(even.media)[row] == even[row]
    for has in (views, sound):
        spread = []
        for each in (even, plain):
            loads = np.array([has[each[row]].sum() for row in range(256)]).reshape(-1, 32)
            spread.append((loads.max(1) / loads.mean(1)).mean())
        assert spread[0] < 1.12 < 1.4 < spread[1]
    filled = [sum(int(tokens[each[row]].sum()) for row in range(256)) / 256 / 4096 for each in (even, plain)]
    assert filled[0] > 0.98 and filled[0] > filled[1] - 0.01
