"""What trains, how fast, and how LoRA comes and goes."""

import pytest
import torch

from training_world import ALL, speech, tiny_recipe, tiny_spec, write
from weft.conversation import WeftError
from weft.data.augment import Augment
from weft.data.loader import SourceSpec, TrainingData
from weft.models.adapters import merge_lora
from weft.training.build import build_model
from weft.training.optim import build_optimizer, embedding_ids, learning_rate, set_rate, step_where_finite
from weft.training.parts import apply_parts, dialect_tokens, spare_activations
from weft.training.recipe import Lora, Optim, PartTraining, Stage


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("clips"), 12, (speech,))
    _, processor = build_model(tiny_spec())
    return TrainingData([SourceSpec(path, augment=Augment())], processor, row_tokens=256).batches().__next__()


def stage(**parts):
    return Stage(parts={k: PartTraining(train=v) if isinstance(v, str) else v for k, v in parts.items()})


def step(model, parts, batch, optim=None):
    optim = optim or Optim(lr=1e-2)
    optimizer = build_optimizer(parts, optim, embedding_ids(model))
    set_rate(optimizer, optim.lr)
    model(**batch.inputs).loss.backward()
    optimizer.step()
    return optimizer


def test_frozen_parts_keep_every_bit_and_stay_in_eval_mode(batch):
    model, _ = build_model(tiny_spec(dropout=0.5))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    step(model, apply_parts(model, stage(audio_connector="full", language="full")), batch)
    after = model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith(("audio.", "vision")))
    assert any(not torch.equal(before[k], after[k]) for k in before if k.startswith("language_model."))
    assert not model.audio.training and model.language_model.training
    assert all(p.grad is None for p in model.audio.parameters())


def test_lora_starts_as_the_model_and_merged_equals_unmerged(batch):
    model, _ = build_model(tiny_spec())
    with torch.no_grad():
        start = model(**batch.inputs).loss
    lora = PartTraining(train="lora", lora=Lora(r=4, alpha=8))
    parts = apply_parts(model, stage(language=lora, audio=lora), seed=1)
    names = [n for p in parts for n in p.parameters]
    assert names and all("lora_" in n for n in names) and not any("lm_head" in n for n in names)
    with torch.no_grad():
        assert torch.equal(model(**batch.inputs).loss, start)
    for _ in range(3):
        step(model, parts, batch)
    with torch.no_grad():
        trained = model(**batch.inputs).loss
        assert merge_lora(model) > 0
        merged = model(**batch.inputs).loss
    assert not any("lora" in n or "base_layer" in n for n in model.state_dict())
    assert abs(float(trained - start)) > 1e-3 and abs(float(trained - merged)) < 1e-5


@pytest.mark.parametrize("tied", [True, False])
def test_the_dialects_own_tokens_train_beside_lora_and_no_others(batch, tied):
    spec = tiny_spec()
    config = {**spec.language.config, "tie_word_embeddings": tied}
    spec = spec.model_copy(update={"language": spec.language.model_copy(update={"config": config})})
    model, processor = build_model(spec)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    tokens = dialect_tokens(processor)
    parts = apply_parts(model, stage(language="lora"), tokens=tokens)
    for _ in range(2):
        step(model, parts, batch)
    with torch.no_grad():
        trained = model(**batch.inputs).loss
        merge_lora(model)
        assert abs(float(model(**batch.inputs).loss - trained)) < 1e-5
    assert model.state_dict().keys() == before.keys()
    known = sorted(set(range(len(before["language_model.lm_head.weight"]))) - set(tokens))
    for name in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        after = model.state_dict()[name]
        assert torch.equal(after[known], before[name][known]) and not torch.equal(after, before[name])
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied


def test_lora_begins_from_the_seed():
    values = []
    for seed in (1, 1, 2):
        model, _ = build_model(tiny_spec())
        parts = apply_parts(model, stage(language="lora"), seed=seed)
        values.append(torch.cat([p.flatten() for part in parts for p in part.parameters.values()]))
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


def test_lora_can_follow_lora(batch):
    model, _ = build_model(tiny_spec())
    for seed in range(2):
        parts = apply_parts(model, stage(language="lora"), seed=seed)
        step(model, parts, batch)
        merge_lora(model)
    assert not any("lora" in n for n in model.state_dict())


def test_a_stage_that_trains_nothing_or_a_missing_part_is_refused():
    spec = tiny_spec().model_copy(update={"vision": None})
    model, _ = build_model(spec)
    with pytest.raises(WeftError, match="every part is frozen"):
        apply_parts(model, Stage())
    with pytest.raises(WeftError, match="trains vision, which this model does not have; it has audio"):
        apply_parts(model, stage(vision="full"))


def test_lora_on_layers_that_are_not_there_is_refused():
    model, _ = build_model(tiny_spec())
    with pytest.raises(WeftError, match=r"lora.targets nope: no such layer; there are .*q_proj"):
        apply_parts(model, stage(language=PartTraining(train="lora", lora=Lora(targets=("nope",)))))


def test_the_dialects_new_tokens_have_a_rate_of_their_own():
    model, processor = build_model(tiny_spec())
    wanted = stage(language=PartTraining(train="lora", lr_scale=0.5, tokens_lr_scale=8))
    parts = apply_parts(model, wanted, tokens=dialect_tokens(processor))
    optimizer = build_optimizer(parts, Optim(), embedding_ids(model))
    set_rate(optimizer, 1e-3)
    names = {id(p): n for n, p in model.named_parameters()}
    rates = {"tokens" in names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rates == {True: 4e-3, False: 5e-4}


def test_rates_are_scaled_by_part_and_1d_tensors_and_embeddings_do_not_decay():
    model, _ = build_model(tiny_spec())
    parts = apply_parts(model, stage(**{**ALL, "language": PartTraining(train="full", lr_scale=0.1)}))
    optimizer = build_optimizer(parts, Optim(weight_decay=0.3), embedding_ids(model))
    set_rate(optimizer, 1e-2)
    assert not any(p is model.audio.tower.embed_positions.weight for g in optimizer.param_groups for p in g["params"])
    embedding = model.get_input_embeddings().weight
    for group in optimizer.param_groups:
        for p in group["params"]:
            assert (group["weight_decay"] == 0.3) == (p.ndim >= 2 and p is not embedding)
    rates = {g["lr"] for g in optimizer.param_groups}
    assert rates == {1e-2, 1e-3}
    counted = sum(p.numel() for g in optimizer.param_groups for p in g["params"])
    assert counted == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_the_rate_warms_up_and_comes_down():
    for schedule in ("cosine", "linear", "constant"):
        optim = Optim(lr=1.0, min_lr=0.1, warmup_steps=10, schedule=schedule)
        rates = [learning_rate(s, 100, optim) for s in range(100)]
        assert all(a < b for a, b in zip(rates[:10], rates[1:11], strict=True)) and rates[10] == 1.0
        assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))
        assert rates[-1] == 1.0 if schedule == "constant" else 0.1 <= rates[-1] < 0.12
    assert 0 < learning_rate(0, 1, Optim(warmup_steps=100)) <= Optim().lr


def test_recipes_are_frozen_and_strict(tmp_path):
    recipe = tiny_recipe(tmp_path / "x.jsonl")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3
    with pytest.raises(ValueError, match="Extra inputs"):
        Stage(stepz=3)


def test_a_frozen_language_model_saves_activations_too(batch):
    """It hands gradients on to the connectors; transformers recomputes layers in train mode only."""
    spec = tiny_spec()
    deep = {**spec.language.config, "num_hidden_layers": 4, "attention_dropout": 0.5}
    spec = spec.model_copy(update={"language": spec.language.model_copy(update={"config": deep})})

    def kept(checkpoint):
        model, _ = build_model(spec)
        apply_parts(model, stage(audio_connector="full").model_copy(update={"checkpoint_activations": checkpoint}))
        if checkpoint:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            loss = model(**batch.inputs).loss
        return sum(sizes), loss

    (much, plain), (less, again) = kept(False), kept(True)
    assert less < 0.6 * much and torch.equal(plain, again)


def test_rows_of_the_dialects_tokens_do_not_decay():
    model, processor = build_model(tiny_spec())
    parts = apply_parts(model, stage(language="lora"), tokens=dialect_tokens(processor))
    optimizer = build_optimizer(parts, Optim(weight_decay=0.1), embedding_ids(model))
    rows = [p for n, p in model.named_parameters() if "trainable_tokens_delta" in n]
    still = {id(p) for group in optimizer.param_groups if not group["weight_decay"] for p in group["params"]}
    assert rows and all(id(p) in still for p in rows)


@pytest.mark.parametrize("steps_before", [0, 2])
def test_an_update_that_is_not_finite_changes_nothing(steps_before):
    """Not even in the optimizer, so that those that follow are as they would have been."""
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    spoilt, untouched = (torch.optim.AdamW([p], lr=0.1, fused=True) for p in weights)

    def step(optimizer, p, gradient):
        p.grad = torch.full((3,), gradient)
        step_where_finite(optimizer, p.grad.isfinite().all())

    for _ in range(steps_before):
        step(spoilt, weights[0], 1.0)
        step(untouched, weights[1], 1.0)
    step(spoilt, weights[0], float("nan"))
    for optimizer, p in ((spoilt, weights[0]), (untouched, weights[1])):
        step(optimizer, p, 0.5)
    assert torch.equal(*weights)


def test_a_frozen_encoder_keeps_nothing_where_activations_are_spared(batch):
    """transformers has the first layer of each tower ask for a gradient then, LoRA or not."""
    model, _ = build_model(tiny_spec())
    lora = PartTraining(train="lora", lora=Lora(r=2))
    apply_parts(model, stage(audio_connector="full", language=lora).model_copy(update={"checkpoint_activations": True}))
    spare_activations(model, True)
    asked = []
    model.audio.register_forward_hook(lambda _, given, out: asked.append(out[0].requires_grad))
    model(**batch.inputs).loss.backward()
    assert asked == [False]
    assert all(p.grad is not None for p in model.audio_connector.parameters())
    assert all(p.grad is not None for n, p in model.named_parameters() if "lora_" in n)
