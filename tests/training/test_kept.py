"""Frozen weights that are cast once for all updates."""

import torch
from peft import LoraConfig, inject_adapter_in_model

from training_world import tiny_spec
from weft.training.build import build_model
from weft.training.kept import Kept


def run(model, ids):
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.last_hidden(input_ids=ids)
    hidden.float().square().mean().backward()
    return hidden.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_results_have_the_same_bits_and_nothing_is_kept_but_while_it_is_open():
    model, _ = build_model(tiny_spec())
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False), model.language_model)
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora" in name)
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
