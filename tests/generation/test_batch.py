"""The running batch: whoever joins and leaves, each answer is that of the prompt alone."""

import numpy as np
import pytest
import tiny

from weft.conversation import parse_messages
from weft.generation import Options
from weft.generation.batch import Batch, Row
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


@pytest.mark.parametrize("family", [*tiny.FAMILIES, *STATEFUL])
def test_rows_that_join_and_leave_at_any_step_are_as_alone(family):
    stateful = STATEFUL.get(family)
    model = tiny.model("llama", model_type=family, **stateful) if stateful else tiny.model(family)
    lengths, limits, steps = (3, 40, 1, 9, 17, 5, 90, 12), (30, 4, 25, 9, 1, 16, 7, 80), (0, 0, 2, 3, 3, 11, 12, 20)
    alone = []
    for i, (length, limit) in enumerate(zip(lengths, limits, strict=True)):
        row = Row(words(length, i), Options(), limit)
        run(Batch(model, Embedder(model, None), frozenset()), [(0, row)])
        alone.append(row.ids)
    rows = [Row(words(n, i), Options(), limit) for i, (n, limit) in enumerate(zip(lengths, limits, strict=True))]
    most = run(Batch(model, Embedder(model, None), frozenset(), tokens=1 << 20), zip(steps, rows, strict=True))
    assert [row.ids for row in rows] == alone
    assert most >= 4 and [len(row.ids) for row in rows] == list(limits)
    assert len(set(map(tuple, alone))) == len(alone)
