"""What is counted without adapters is what training makes."""

import pytest

from marks import slow
from weft.recipes import load_recipe
from weft.recipes.tiny import TINY
from weft.training.counting import count_trained
from weft.training.parts import apply_parts, dialect_tokens
from weft.training.recipe import Lora, PartTraining
from weft.training.sizes import planned, weightless


def assert_alike(recipe, stages):
    config, processor = planned(recipe.model, outline=True)
    tokens, untouched = dialect_tokens(processor), weightless(config)
    before = {name: (p.shape, p.requires_grad) for name, p in untouched.named_parameters()}
    for stage in stages:
        made = weightless(config)
        parts = apply_parts(made, stage, tokens=tokens)
        trained = {p.name: sum(x.numel() for x in p.parameters.values()) for p in parts if p.parameters}
        counted = count_trained(untouched, stage, tokens)
        assert {c.name: c.trained for c in counted} == trained
        held = sum(p.numel() for p in untouched.parameters()) + sum(c.added for c in counted)
        assert held == sum(p.numel() for p in made.parameters())
    assert before == {name: (p.shape, p.requires_grad) for name, p in untouched.named_parameters()}


@pytest.mark.parametrize("name", TINY)
def test_trained_parameters_are_counted_as_they_are_made(name):
    recipe = load_recipe(name, "tiny")
    assert_alike(recipe, recipe.stages)


@pytest.mark.parametrize("name", ["llava", "omni", "qwen_audio"])
@pytest.mark.parametrize("targets", [slow("all-linear"), ("q_proj", "fc1")])
def test_adapters_of_every_part_are_counted_as_they_are_made(name, targets):
    recipe = load_recipe(name, "tiny")
    vision, audio = ((part, f"{part}_connector") if getattr(recipe.model, part) else () for part in ("vision", "audio"))
    language = PartTraining(train="lora", lora=Lora(r=3, targets=targets))
    towers = PartTraining(train="lora", lora=Lora(r=2))
    parts = {"language": language, **dict.fromkeys((*vision, *audio), towers)}
    assert_alike(recipe, [recipe.stages[0].model_copy(update={"parts": parts})])
