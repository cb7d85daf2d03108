"""Under autocast a norm's result is cast once for the layers that read it."""

import pytest
import tiny
import torch

from training_world import run_in_half as run
from weft.models.half import cast_once


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_the_result_has_the_same_bits_and_the_gradient_is_as_near_as_its_type(family, monkeypatch):
    once = tiny.model(family)
    with monkeypatch.context() as patched:
        patched.setattr("weft.models.modeling.cast_once", lambda model: None)
        each = tiny.model(family)
    each.load_state_dict(once.state_dict())
    ids = torch.tensor([tiny.words(20)])
    (mine, gradient), (plain, wanted) = run(once, ids), run(each, ids)
    assert torch.equal(mine, plain)
    assert (gradient - wanted).norm() < 0.01 * wanted.norm()


def test_outside_autocast_nothing_is_cast():
    seen = []
    model = tiny.model("qwen2")
    for layer in model.language_model.model.layers:
        layer.mlp.gate_proj.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    model.last_hidden(input_ids=torch.tensor([tiny.words(5)]))
    with torch.autocast("cpu", torch.bfloat16):
        model.last_hidden(input_ids=torch.tensor([tiny.words(5)]))
    assert seen == [torch.float32] * 2 + [torch.bfloat16] * 2


def test_only_layers_that_read_one_input_are_taken():
    model = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(2, 2), "up_proj": torch.nn.Linear(2, 2)})
    cast_once(model)
    assert not model._forward_pre_hooks
