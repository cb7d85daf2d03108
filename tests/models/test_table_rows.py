"""Rows that are looked up are those of peft's merged table, and train as they do."""

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from weft.models.table_rows import look_up, table_rows

IDS = torch.tensor([[3, 7, 7, 0], [11, 5, 3, 9]])


class Small(nn.Module):
    def __init__(self, padding: int | None) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 6, padding_idx=padding)
        self.proj = nn.Linear(6, 6)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.proj(self.table(ids))


@pytest.mark.parametrize("padding", [None, 0, 7])
def test_values_and_gradients_are_those_of_the_merged_table(padding):
    torch.manual_seed(0)
    model = Small(padding)
    config = LoraConfig(r=2, target_modules=["proj"], trainable_token_indices={"table": [7, 3, 11]})
    inject_adapter_in_model(config, model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "delta" in name:
                weight.add_(torch.randn_like(weight))
    quick = copy.deepcopy(model)
    look_up(quick)
    quick = copy.deepcopy(quick)  # what is looked up in is the copy's own
    for each in (model, quick):
        for name, weight in each.named_parameters():
            weight.requires_grad_("delta" in name or "lora" in name)
        each(IDS).square().sum().backward()
    assert quick.table(IDS).equal(model.table(IDS)) and quick(IDS).equal(model(IDS))
    assert table_rows(quick.table, IDS).equal(model.table.weight[IDS])
    for (name, one), (_, other) in zip(model.named_parameters(), quick.named_parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, other.grad, msg=name)
    with torch.no_grad():
        next(p for n, p in quick.named_parameters() if "delta" in n).add_(1.0)
    assert not quick.table(IDS).equal(model.table(IDS))


def test_rows_are_those_of_the_adapters_that_are_active():
    torch.manual_seed(0)
    model = Small(None)
    for name, ids in (("one", [7, 3]), ("other", [5, 11])):
        config = LoraConfig(r=2, target_modules=["proj"], trainable_token_indices={"table": ids})
        inject_adapter_in_model(config, model, adapter_name=name)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "delta" in name:
                weight.add_(torch.randn_like(weight))
    layer, plain = model.table.token_adapter, copy.deepcopy(model)
    look_up(model)
    for active in (["one"], ["other"], ["one", "other"], ["one"]):
        for each in (layer, plain.table.token_adapter):
            each.set_adapter(active)
        wanted = plain.table(IDS)
        assert model.table(IDS).equal(wanted) and table_rows(model.table, IDS).equal(wanted)
    layer.enable_adapters(False)
    assert table_rows(model.table, IDS).equal(layer.base_layer(IDS)) and model.table(IDS).equal(layer.base_layer(IDS))


def test_a_plain_table_gives_its_rows():
    table = nn.Embedding(12, 6)
    assert table_rows(table, IDS).equal(table(IDS))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.proj, self.head = nn.Embedding(12, 6), nn.Linear(6, 6), nn.Linear(6, 12, bias=False)
        self.head.weight = self.table.weight
        self._tied_weights_keys = {"head.weight": "table.weight"}

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.proj(self.table(ids)))


def test_a_tied_head_has_the_logits_and_gradients_of_the_merged_table():
    torch.manual_seed(0)
    model = Tied()
    tied = LoraConfig(r=2, target_modules=["proj"], trainable_token_indices={"table": [7, 3], "head": [7, 3]})
    inject_adapter_in_model(tied, model)
    for name, weight in model.named_parameters():
        weight.requires_grad_("delta" in name or "lora" in name)
        weight.data += torch.randn_like(weight) if "delta" in name else 0
    quick = copy.deepcopy(model)
    look_up(quick)
    for each in (model, quick):
        each(IDS).softmax(-1)[..., 7].sum().backward()
    torch.testing.assert_close(quick(IDS), model(IDS))
    for (name, one), (_, other) in zip(model.named_parameters(), quick.named_parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, other.grad, msg=name)
