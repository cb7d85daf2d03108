"""Frozen weights that are cast once for all updates."""

import gc
import weakref

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer

from training_world import run_in_half as run
from training_world import tiny_spec
from weft.training.build import build_model
from weft.training.kept import Kept


def test_results_have_the_same_bits_and_nothing_is_kept_but_while_it_is_open(monkeypatch):
    monkeypatch.setattr("weft.training.passes.has_fast_products", lambda: False)
    model, _ = build_model(tiny_spec())
    for name, weight in model.named_parameters():
        weight.requires_grad_("norm" in name)
    ids = torch.arange(40, 60)[None]
    wanted, slopes = run(model, ids)
    kept = Kept(model)
    for _ in range(2):
        with kept:
            mine, gradient = run(model, ids)
        assert torch.equal(mine, wanted)
        assert torch.equal(gradient, slopes)
    frozen = model.language_model.model.layers[0].mlp.up_proj
    with torch.no_grad():
        frozen.weight.zero_()
    outside, _ = run(model, ids)
    assert not torch.equal(outside, wanted)  # nothing is kept but while it is open


def adapted(**options):
    """A model with LoRA that is not at its start, alone trained."""
    model, _ = build_model(tiny_spec())
    found = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "up_proj"], "init_lora_weights": False} | options
    torch.manual_seed(0)
    inject_adapter_in_model(LoraConfig(**found), model.language_model)
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora" in name)
    return model, torch.arange(40, 90)[None]


def test_lora_comes_out_as_near_to_float32_as_in_peft():
    model, ids = adapted()
    exact = model.last_hidden(input_ids=ids)
    exact.square().mean().backward()
    slopes = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    usual = run(model, ids)
    with Kept(model):
        mine = run(model, ids)
    for one, other, true in zip(mine, usual, (exact.detach(), slopes), strict=True):
        assert not torch.equal(one, other)
        assert (one - true).norm() < 1.2 * (other - true).norm()


def test_a_further_stage_forgets_what_the_one_before_kept():
    model, ids = adapted()
    first = Kept(model)
    with first:
        wanted = run(model, ids)
    held = weakref.ref(first)
    second = Kept(model)
    del first
    gc.collect()
    assert held() is None
    with second:
        for one, other in zip(run(model, ids), wanted, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}, {"lora_dropout": 1.0}])
def test_other_adapters_and_dropout_give_what_peft_gives(options):
    model, ids = adapted(**options)
    usual = run(model.train(), ids)
    with Kept(model):
        mine = run(model, ids)
    for one, other in zip(mine, usual, strict=True):
        assert (one - other).norm() <= 0.01 * other.norm()


def test_lora_that_is_switched_off_adds_nothing():
    model, ids = adapted()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), Kept(model):
        on = model.last_hidden(input_ids=ids)
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                layer.enable_adapters(False)
        off = model.last_hidden(input_ids=ids)
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                for weight in layer.lora_B.parameters():
                    weight.zero_()
                layer.enable_adapters(True)
        assert torch.equal(off, model.last_hidden(input_ids=ids))
    assert not torch.equal(on, off)
