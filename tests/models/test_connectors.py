import pytest
import torch

from weft.conversation import WeftError
from weft.models.blocks import Blocks
from weft.models.config import Connector
from weft.models.connectors import InOrder, build_connector
from weft.models.more_connectors import turned, turns


def test_neighbours_in_a_row_are_merged_in_order():
    features = torch.arange(32 * 2.0).view(1, 32, 2)
    groups = InOrder(4).groups(features)
    assert groups[0, 1, :, 0].tolist() == [8, 10, 12, 14]


def test_grid_blocks_are_square_and_in_raster_order():
    features = torch.arange(4 * 6.0).view(1, 24, 1)  # 4 rows of 6
    groups = Blocks(4, (4, 6)).groups(features)[..., 0]
    assert groups[0, 0].tolist() == [0, 1, 6, 7]
    assert groups[0, 1].tolist() == [2, 3, 8, 9]
    assert groups[0, 3].tolist() == [12, 13, 18, 19]


def test_a_grid_that_does_not_divide_is_filled_up_with_zeros():
    groups = Blocks(4, (3, 5)).groups(torch.ones(1, 15, 1))[..., 0]
    assert groups.shape == (1, 6, 4)
    assert groups.sum() == 15 and groups[0, 5].tolist() == [1, 0, 0, 0]


def test_a_last_group_is_filled_up_with_zeros_and_averaged_over_what_is_there():
    features = torch.ones(1, 5, 2)
    linear = build_connector(Connector(merge=3, bias=False), 2, 1)
    with torch.no_grad():
        linear.proj.weight.fill_(1.0)
    assert linear(features)[0].flatten().tolist() == [6.0, 4.0]
    pool = build_connector(Connector(kind="pool", merge=3, bias=False), 2, 1)
    with torch.no_grad():
        pool.proj.weight.fill_(1.0)
    tokens, lengths = pool(torch.cat([features, torch.zeros(1, 1, 2)], 1), torch.tensor([5]))
    assert tokens.flatten().tolist() == [2.0, 2.0] and lengths.tolist() == [2]


def test_none_hands_features_on_and_needs_equal_widths():
    features = torch.randn(1, 5, 4)
    assert torch.equal(build_connector(Connector(kind="none"), 4, 4)(features)[0], features)
    with pytest.raises(WeftError, match="they have 4 and 8"):
        build_connector(Connector(kind="none"), 4, 8)


@pytest.mark.parametrize("kind", ["none", "linear", "mlp", "pool", "queries", "transformer"])
def test_scale_multiplies_what_a_connector_gives(kind):
    one, half = (build_connector(Connector(kind=kind, scale=s, queries=3, heads=2), 8, 8) for s in (1.0, 0.5))
    half.load_state_dict(one.state_dict())
    features = torch.randn(1, 5, 8)
    torch.testing.assert_close(half(features)[0], 0.5 * one(features)[0])


def test_a_transformers_clip_in_a_batch_is_as_alone():
    torch.manual_seed(0)
    connector = build_connector(Connector(kind="transformer", merge=2, heads=2, norm=True), 6, 16)
    long, short = torch.randn(1, 11, 6), torch.randn(1, 4, 6)
    both = torch.cat([long, torch.nn.functional.pad(short, (0, 0, 0, 7))])
    tokens, lengths = connector(both, torch.tensor([11, 4]))
    assert lengths.tolist() == [6, 2]
    torch.testing.assert_close(tokens[1, :2], connector(short, torch.tensor([4]))[0][0])
    torch.testing.assert_close(tokens[:1], connector(long, torch.tensor([11]))[0])


def test_a_transformers_tokens_hear_those_around_them():
    torch.manual_seed(0)
    connector = build_connector(Connector(kind="transformer", heads=2), 6, 16)
    features = torch.randn(1, 5, 6)
    changed = features.clone()
    changed[0, 4] += 1
    assert ((connector(features)[0] - connector(changed)[0]).abs().amax(-1) > 1e-4).all()


def test_positions_of_a_transformer_are_relative_in_each_direction():
    q, k = torch.randn(2, 8).expand(1, 1, 12, 2, 8).unbind(-2)  # alike at each of 3 x 4 places
    angles = turns((3, 4), 8, torch.device("cpu"))
    scores = (turned(q, angles) @ turned(k, angles).transpose(-1, -2))[0, 0].view(3, 4, 3, 4)
    torch.testing.assert_close(scores[0, 0, 1, 2], scores[1, 1, 2, 3])
    torch.testing.assert_close(scores[2, 1, 0, 0], scores[2, 3, 0, 2])
    assert abs(float(scores[0, 0, 1, 2] - scores[0, 0, 2, 1])) > 1e-3


def test_a_transformers_width_must_fit_its_heads():
    with pytest.raises(WeftError, match="its width 30 must be a multiple of four times its heads"):
        build_connector(Connector(kind="transformer", hidden=30), 8, 16)
