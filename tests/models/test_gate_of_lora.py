"""LoRA for media alone: before the first picture or sound of a conversation, tokens are the base model's own."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import weft
from tiny_model import picture, sound, tiny, user
from weft.cli import run
from weft.conversation import WeftError
from weft.conversation.samples import parse_messages
from weft.data.loader import Batch
from weft.generation import Options
from weft.generation.batch import Row, RunningBatch
from weft.generation.embedding import Embedder
from weft.generation.turns import Turns
from weft.models import gate
from weft.models.config import WeftConfig
from weft.recipes.finetune import finetune_recipe
from weft.teaching.losses import Answers
from weft.training.gated import ENDS, switch
from weft.training.kept import Kept
from weft.training.parts import add_lora, dialect_tokens
from weft.training.recipe import Lora, Recipe, Source
from weft.training.update import MicroStep, backward

LORA = Lora(r=2, alpha=8, targets=("q_proj", "v_proj", "down_proj"))
TEXTS = [user("hello there"), user("what is that?", *()), user("tell me more about it")]


def adapted(tied: bool = False):
    """A model with LoRA and rows of tokens, some of them of words, that change a good deal; and its base."""
    base = tiny()
    model = copy.deepcopy(base.model)
    if tied:
        model.language_model.lm_head.weight = model.get_input_embeddings().weight
        model.config.text_config.tie_word_embeddings = model.config.tie_word_embeddings = True
        model.language_model._tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
        base.model.get_output_embeddings().weight = base.model.get_input_embeddings().weight
    torch.manual_seed(0)
    words = base.processor.renderer.encode_text("hello what")
    add_lora(model.language_model, LORA, [*words, *dialect_tokens(base.processor)])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name or "trainable_tokens_delta" in name:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    model.config.lora_for_media = True
    gate.install(model)
    return weft.Model(model.eval(), base.processor, "gated"), base


@pytest.fixture(scope="module")
def both():
    return adapted()


def said(text):
    return [{"role": "assistant", "content": text}]


def talks():
    """Conversations of both kinds, one whose picture comes late."""
    late = [*user("hello what is new?"), *said("nothing"), *user(picture(), "what is it?")]
    return [TEXTS[0], user(picture(), "what is that?"), TEXTS[1], late, user(sound(1.0), "hello"), TEXTS[2]]


def inputs(model, talk, generate=True):
    encoded = model.processor.encode(parse_messages(talk), generate=generate)
    return model.processor.collate([encoded])


@torch.inference_mode()
def logits(model, talk):
    given = inputs(model, talk)
    given.pop("labels", None)
    return model.model(**given).logits[0]


@pytest.mark.parametrize("tied", [False, True])
def test_text_alone_is_the_base_models_own_and_media_are_not(tied):
    model, base = adapted(tied)
    for talk in talks():
        now, before = logits(model, talk), logits(base, talk)
        ids = inputs(base, talk)["input_ids"][0]
        media = torch.isin(ids, torch.tensor([i for i in model.model.gate.ids if i is not None])).nonzero()
        first = int(media[0]) if len(media) else len(ids)
        assert now[:first].equal(before[:first])
        assert first == len(ids) or (now[first:] - before[first:]).abs().amax(1).min() > 1e-3
    texts = [model.chat(talk, max_new_tokens=12).raw for talk in TEXTS]
    assert texts == [base.chat(talk, max_new_tokens=12).raw for talk in TEXTS]
    shown = user(picture(), "what is that?")
    assert model.chat(shown, max_new_tokens=12).raw != base.chat(shown, max_new_tokens=12).raw


def test_batches_of_both_kinds_answer_as_each_alone(both):
    model, _ = both
    options = Options(max_new_tokens=10)
    alone = [model.chat(talk, options).raw for talk in talks()]
    assert [reply.raw for reply in model.chat_batch(talks(), options)] == alone
    # One after the other joins a batch that runs.
    running = RunningBatch(model.model, Embedder(model.model, model.processor), frozenset(), 4)
    prompts = [model.processor.encode(parse_messages(talk), generate=True) for talk in talks()]
    rows = [Row(prompt, Options(), 8) for prompt in prompts]
    for row in rows:
        running.add(row)
        running.step()
    while len(running):
        running.step()
    for row, prompt in zip(rows, prompts, strict=True):
        single = Row(prompt, Options(), 8)
        one = RunningBatch(model.model, Embedder(model.model, model.processor), frozenset(), 1)
        one.add(single)
        while len(one):
            one.step()
        assert row.ids == single.ids and row.error is None


def test_labels_that_are_weighed_are_told_of_their_own_pass(both):
    """Of a pass that comes when it is asked for, after one of a shorter text."""
    model, _ = both
    answers, found = Answers(balance=0.5), []
    for talk in ([*user("hello"), *said("no")], [*user(picture(), "what is that?"), *said("it is a picture")]):
        batch = SimpleNamespace(inputs=inputs(model, talk, generate=False), extra=None)
        with torch.no_grad():
            known = MicroStep(model.model, batch)
            assert known.hidden_BLD is not None
            counts = answers.counts(batch)
            found.append((batch, answers.loss(known, None, counts)))
    for batch, loss in [*found, found[0]]:
        with torch.no_grad():
            assert answers.loss(MicroStep(model.model, batch), None, answers.counts(batch)).equal(loss)


@pytest.mark.parametrize("how", [{}, {"num_beams": 2}, {"num_return_sequences": 2, "num_beams": 2}])
def test_generate_of_transformers_agrees(both, how):
    model, base = both
    for talk in (TEXTS[0], talks()[1], talks()[3]):
        given = inputs(model, talk)
        given.pop("labels", None)
        made = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, **how}
        found = model.model.generate(**given, **made)
        if not how:
            row = Row(model.processor.encode(parse_messages(talk), generate=True), Options(), 8)
            one = RunningBatch(model.model, Embedder(model.model, model.processor), frozenset(model.stop), 1)
            one.add(row)
            while len(one):
                one.step()
            assert found[0, given["input_ids"].shape[1] :].tolist() == row.ids
        if talk is TEXTS[0]:
            assert found.equal(base.model.generate(**given, **made))
        else:
            assert not found.equal(base.model.generate(**given, **made))
    if not how:  # a batch of both kinds, and the plain loop of steps over a cache
        pair = [model.processor.encode(parse_messages(t), generate=True) for t in (TEXTS[0], talks()[1])]
        together = model.collated(pair)
        out = model.model.generate(**together, **made)
        for row, prompt in zip(out, pair, strict=True):
            single = {k: v for k, v in model.processor.collate([prompt]).items() if k != "labels"}
            alone = model.model.generate(**single, **made)[0, len(prompt) :].tolist()
            assert row[together["input_ids"].shape[1] :][: len(alone)].tolist() == alone
        step = model.model(**single, use_cache=True)
        ids = [int(step.logits[0, -1].argmax())]
        for _ in range(len(alone) - 1):
            cache = step.get("cache") if step.get("cache") is not None else step.get("past_key_values")
            step = model.model(input_ids=torch.tensor([ids[-1:]]), past_key_values=cache, use_cache=True)
            ids.append(int(step.logits[0, -1].argmax()))
        assert ids == alone


def test_a_picture_in_a_later_turn_is_answered_as_in_one_piece(both):
    model, base = both
    turns = Turns(model.model, model.processor)
    talk = user("hello what is new?")
    for more in (user("tell me more"), user(picture(), "what is it?"), user("hello, and now?")):
        found = []
        for embedder in (turns, Turns(model.model, model.processor)):
            row = Row(model.processor.encode(parse_messages(talk), generate=True), Options(), 8)
            one = RunningBatch(model.model, embedder, frozenset(model.processor.stop_ids), 1)
            one.add(row)
            while len(one):
                one.step()
            found.append(row.ids)
        assert found[0] == found[1]
        reply = model.processor.parse(found[0], parse_messages(talk))
        talk = [*talk, *said("".join(getattr(p, "text", "") for p in reply) or "yes"), *more]
    assert turns._last[0].ids == found[0]


def micro(model, talks, packed):
    encoded = [model.processor.encode(parse_messages(talk)) for talk in talks]
    given = [model.processor.pack(encoded)] if packed else [model.processor.collate([each]) for each in encoded]
    return [
        Batch(inputs=each, labels=int((each["labels"] != -100).sum()), samples=[], tokens=0, places=0) for each in given
    ]


def learned(model, batches, half=False):
    model.model.zero_grad(set_to_none=True)
    for name, weight in model.model.named_parameters():
        weight.requires_grad_("lora_" in name or "trainable_tokens_delta" in name)
    kept = Kept(model.model) if half else None
    if kept:
        kept.set(True)
    loss = backward(model.model, batches, precision="bfloat16" if half else "float32")
    if kept:
        kept.set(False)
    grads = {name: weight.grad for name, weight in model.model.named_parameters() if weight.grad is not None}
    return float(loss["loss"]), grads


def answered_talks():
    return [[*talk, *said("hello what")] for talk in talks()]


def test_packed_samples_learn_as_each_alone_and_text_alone_teaches_nothing():
    model, base = adapted()
    whole, packed = learned(model, micro(model, answered_talks(), True))
    parts, single = learned(model, micro(model, answered_talks(), False))
    assert whole == pytest.approx(parts, abs=1e-5) and packed.keys() == single.keys()
    for name, value in packed.items():
        torch.testing.assert_close(value, single[name], atol=1e-5, rtol=1e-4)
    texts = [[*talk, *said("hello what")] for talk in TEXTS]
    for shape in (True, False):
        loss, none = learned(model, micro(model, texts, shape))
        assert not none
        for weight in base.model.parameters():
            weight.requires_grad_(True)
        assert loss == pytest.approx(
            float(backward(base.model, micro(base, texts, shape), precision="float32")["loss"])
        )
    media = [talk for talk in answered_talks() if talk[:1] not in TEXTS]
    with_text, without = (micro(model, each, True) for each in (answered_talks(), media))
    share = without[0].labels / with_text[0].labels
    _, less = learned(model, without)
    for name, value in less.items():  # the loss is a mean over labels, and the gradient is of media alone
        torch.testing.assert_close(packed[name], value * share, atol=1e-5, rtol=1e-4)


def test_half_precision_learns_the_same():
    model, _ = adapted()
    exact, wanted = learned(model, micro(model, answered_talks(), True))
    loss, found = learned(model, micro(model, answered_talks(), True), half=True)
    assert loss == pytest.approx(exact, rel=0.03) and found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.nn.functional.cosine_similarity(value.flatten(), found[name].flatten(), 0) > 0.9
    assert not learned(model, micro(model, [[*TEXTS[0], *said("hello")]], True), half=True)[1]


def test_saved_and_loaded_it_is_the_same_and_merged_it_is_for_all(tmp_path):
    model, base = adapted()
    merge, save = ENDS
    merge(model.model)
    save(model.model, model.processor, tmp_path / "model")
    again = weft.load(tmp_path / "model")
    assert again.model.config.lora_for_media and again.model.gate is not None
    plain = weft.load(tmp_path / "model" / "base")
    for talk in talks():
        assert logits(again, talk).equal(logits(model, talk)) and logits(plain, talk).equal(logits(base, talk))
    assert run(["merge", str(tmp_path / "model"), "-o", str(tmp_path / "merged")]) == 0
    assert "lora_for_media" not in json.loads((tmp_path / "merged" / "config.json").read_text())
    merged = weft.load(tmp_path / "merged")
    switch(model.model, False)
    for talk in talks():
        torch.testing.assert_close(logits(merged, talk), logits(model, talk), atol=1e-4, rtol=1e-4)
    assert not logits(merged, TEXTS[0]).equal(logits(base, TEXTS[0]))


@pytest.mark.slow
def test_stages_and_runs_go_on_with_it_and_leave_it_beside_its_base(tmp_path):
    base = tiny()
    base.model.save_pretrained(tmp_path / "plain")
    base.processor.save_pretrained(tmp_path / "plain")
    picture().save(tmp_path / "0.png")
    shown = [{"role": "user", "content": [{"type": "image", "image": "0.png"}, {"type": "text", "text": "what?"}]}]
    typed = [{"role": "user", "content": "hello"}]
    lines = [json.dumps({"messages": [*asked, *said("it is that")]}) for asked in (shown, typed)]
    (tmp_path / "both.jsonl").write_text("\n".join(lines * 4))
    (tmp_path / "text.jsonl").write_text(lines[1])
    how = {"language": {"train": "lora", "lora": LORA.model_dump()}, "vision_connector": {"train": "full"}}
    stage = {"steps": 2, "optim": {"lr": 1e-2, "warmup_steps": 0}, "mixture": [{"path": str(tmp_path / "both.jsonl")}]}
    stages = [{"name": "one", **stage, "parts": {"vision_connector": {"train": "full"}}}]
    stages += [{"name": name, **stage, "parts": how} for name in ("two", "three")]
    recipe = {"name": "gated", "stages": stages, "precision": "float32"}
    recipe |= {"model": {"base": str(tmp_path / "plain"), "lora_for_media": True}}
    out = weft.train(Recipe.model_validate(recipe), tmp_path / "run")
    left = weft.load(out)
    assert left.model.gate is not None and (out / "base" / "model.safetensors").is_file()
    for talk in TEXTS:
        assert logits(left, talk).equal(logits(base, talk))
    shown = user(picture(), "what is that?")
    assert not logits(left, shown).allclose(logits(base, shown), atol=1e-3)
    deltas = load_file(out / "adapter_model.safetensors")
    before = load_file(tmp_path / "run" / "stages" / "1" / "adapter_model.safetensors")
    assert deltas.keys() == before.keys() and not all(deltas[name].equal(before[name]) for name in deltas)
    # From here on: with the same LoRA, as an adapter of its own, and folded in.
    again = {**recipe, "stages": [stages[1]], "model": {"base": str(out)}}
    more = weft.train(Recipe.model_validate(again), tmp_path / "again", adapter_only=True)
    assert not (more / "base").exists() and weft.load(more).model.gate is not None
    assert logits(weft.load(more), TEXTS[0]).equal(logits(base, TEXTS[0]))
    again["model"] = {"base": str(out), "lora_for_media": False}
    folded = weft.load(weft.train(Recipe.model_validate(again), tmp_path / "folded"))
    assert folded.model.gate is None and not folded.model.config.lora_for_media
    assert not logits(folded, TEXTS[0]).equal(logits(base, TEXTS[0]))
    again = {**recipe, "stages": [{**stages[1], "parts": {"language": {"train": "full"}}}]}
    with pytest.raises(WeftError, match="trains it in full; train it through LoRA, or set model.lora_for_media"):
        weft.train(Recipe.model_validate(again), tmp_path / "full")
    assert finetune_recipe(str(out), [Source(path=str(tmp_path / "text.jsonl"))]).model.lora_for_media is False
    with_media = finetune_recipe(str(out), [Source(path=str(tmp_path / "both.jsonl"))], full=False)
    assert with_media.model.lora_for_media is None


def test_the_switch_is_checked_and_old_configurations_have_none():
    assert WeftConfig().lora_for_media is False and "lora_for_media" not in WeftConfig().to_diff_dict()
    with pytest.raises(WeftError, match="of an expert"):
        model, _ = adapted()
        model.model.gate.begin(torch.tensor([[True, False]]))
        layer = model.model.language_model.model.layers[0].self_attn.q_proj
        layer(torch.zeros(3, 32))
