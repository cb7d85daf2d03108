"""What layers do between products, in fewer passes: as near to float32 as what autocast makes of the layers."""

import copy

import pytest
import tiny
import torch

from weft.training import passes
from weft.training.kept import Kept

FAMILIES = [family for family in tiny.FAMILIES if family in ("llama", "mistral", "qwen2", "qwen3", "weft_qwen")]


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(passes, "has_fast_products", lambda: True)


def run(model, ids, segments, half=True):
    """The last hidden states of a packed row, and gradients by name."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        hidden = model.last_hidden(input_ids=ids, segment_lengths=segments)
    hidden.float().square().mean().backward()
    return hidden.detach().float(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def row():
    return torch.tensor([tiny.words(45)]), torch.tensor([20, 1, 24])


@pytest.mark.parametrize("family", FAMILIES)
def test_results_and_gradients_are_as_near_to_float32_as_the_layers_own(family):
    model, (ids, segments) = tiny.model(family), row()
    for weight in model.parameters():
        weight.data += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    exact, usual = run(model, ids, segments, half=False), run(model, ids, segments)
    with Kept(model):
        mine = run(model, ids, segments)
    assert mine[0].shape == exact[0].shape and mine[1].keys() == exact[1].keys()
    whole = [torch.cat([grad.flatten() for grad in each[1].values()]) for each in (mine, usual, exact)]
    for one, other, true in ((mine[0], usual[0], exact[0]), whole):
        assert (one - true).norm() < 1.3 * (other - true).norm()


def test_layers_see_whole_rows_and_what_fills_them_up_changes_nothing():
    model, (ids, segments), seen = tiny.model("qwen2"), row(), []
    model.language_model.model.layers[0].mlp.up_proj.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    with Kept(model):
        hidden, slopes = run(model, ids, segments)
        again, gradients = run(model, ids, segments)
        longer, _ = run(model, torch.cat([ids, ids], 1), torch.cat([segments, segments]))
    assert {each.shape[1] for each in seen} == {passes.WHOLE} and seen[0].dtype == torch.bfloat16
    assert torch.equal(hidden, again) and all(torch.equal(slopes[n], gradients[n]) for n in slopes)
    assert torch.equal(hidden, longer[:, : ids.shape[1]])


def test_clips_of_several_lengths_are_filled_up_too_and_stay_what_they_are():
    model, seen = tiny.model(audio=tiny.audio()), []
    mel, lengths = torch.randn(3, 40, 8, requires_grad=True), torch.tensor([40, 30, 6])
    model.audio.tower.layers[1].fc1.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[1]))

    def heard():
        with torch.autocast("cpu", torch.bfloat16):
            features, _ = model.audio(mel, lengths)
        (slope,) = torch.autograd.grad(features.float().square().sum(), mel)
        return features.detach().float(), slope

    wanted = heard()
    with Kept(model):
        mine = heard()
    assert seen == [38, passes.WHOLE]
    for one, other in zip(mine, wanted, strict=True):
        assert one.shape == other.shape and (one - other).norm() < 0.02 * other.norm()


def test_closed_in_float32_and_without_fast_products_layers_are_as_they_were(monkeypatch):
    model, (ids, segments) = tiny.model("llama"), row()
    plain, other = copy.deepcopy(model), copy.deepcopy(model)
    Kept(model)
    model = copy.deepcopy(model)  # as a second stage may meet it
    kept = Kept(model)
    wanted, _ = run(plain, ids, segments)
    with kept:
        exact, _ = run(model, ids, segments, half=False)
    assert torch.equal(exact, run(plain, ids, segments, half=False)[0])
    monkeypatch.setattr(passes, "has_fast_products", lambda: False)
    with Kept(other):
        slow, _ = run(other, ids, segments)
    for mine in (run(model, ids, segments)[0], slow):
        assert torch.equal(mine, wanted)


def test_a_norm_that_is_frozen_and_an_input_that_learns_nothing_get_no_gradient():
    x, weight = torch.randn(3, 200, 8, requires_grad=True), torch.rand(8)
    passes.RootMeanSquare.apply(x, weight, 1e-6).float().sum().backward()
    assert x.grad is not None and weight.grad is None
