import pytest
import torch

from weft.conversation import WeftError
from weft.models.config import Connector
from weft.models.connectors import build_connector, merge_neighbours


def test_neighbours_in_a_row_are_merged_in_order():
    features = torch.arange(32 * 2.0).view(1, 32, 2)
    groups = merge_neighbours(features, 4)
    assert groups[0, 1, :, 0].tolist() == [8, 10, 12, 14]


def test_grid_blocks_are_square_and_in_raster_order():
    features = torch.arange(4 * 6.0).view(1, 24, 1)  # 4 rows of 6
    groups = merge_neighbours(features, 4, grid=(4, 6))[..., 0]
    assert groups[0, 0].tolist() == [0, 1, 6, 7]
    assert groups[0, 1].tolist() == [2, 3, 8, 9]
    assert groups[0, 3].tolist() == [12, 13, 18, 19]


def test_a_grid_that_does_not_divide_is_filled_up_with_zeros():
    groups = merge_neighbours(torch.ones(1, 15, 1), 4, grid=(3, 5))[..., 0]
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


@pytest.mark.parametrize("kind", ["none", "linear", "mlp", "pool", "queries"])
def test_scale_multiplies_what_a_connector_gives(kind):
    one, half = (build_connector(Connector(kind=kind, scale=s, queries=3), 8, 8) for s in (1.0, 0.5))
    half.load_state_dict(one.state_dict())
    features = torch.randn(1, 5, 8)
    torch.testing.assert_close(half(features)[0], 0.5 * one(features)[0])
