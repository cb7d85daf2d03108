"""Packed rows give the loss and gradients of their samples alone, for every tested family."""

from types import SimpleNamespace

import pytest
import tiny
import torch

from varlen import documented_varlen
from weft.conversation import WeftError
from weft.models import attention
from weft.models.attention import TESTED_FAMILIES, packing_problem

LENGTHS = (9, 1, 14, 3)


def sample(n, seed):
    ids = tiny.words(n, seed)
    return ids, [-100] * (n // 3) + ids[n // 3 :]


def packed(samples):
    ids = [i for s, _ in samples for i in s]
    return {
        "input_ids": torch.tensor([ids]),
        "labels": torch.tensor([[i for _, s in samples for i in s]]),
        "position_ids": torch.tensor([[i for s, _ in samples for i in range(len(s))]]),
        "segment_lengths": torch.tensor([len(s) for s, _ in samples]),
    }


def test_the_tested_families_are_those_tested():
    assert set(TESTED_FAMILIES) == set(tiny.FAMILIES)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("family", TESTED_FAMILIES)
def test_packed_equals_unpacked(family, train):
    model = tiny.model(family).train(train)
    samples = [sample(n, seed) for seed, n in enumerate(LENGTHS)]
    out = model(**packed(samples))
    out.loss_sum.backward()
    together = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    total, count = 0.0, 0
    for ids, labels in samples:
        one = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]))
        one.loss_sum.backward()
        total, count = total + one.loss_sum.detach(), count + one.loss_count
    assert out.loss_count == count
    torch.testing.assert_close(out.loss_sum.detach(), total, rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(together[name], parameter.grad, rtol=1e-4, atol=2e-5, msg=name)


def test_positions_of_a_packed_row_are_made_where_they_are_not_given():
    model = tiny.model()
    inputs = packed([sample(n, seed) for seed, n in enumerate(LENGTHS)])
    wanted = model(**inputs).loss
    inputs.pop("position_ids")
    torch.testing.assert_close(model(**inputs).loss, wanted)


def test_packed_logits_equal_those_alone():
    model = tiny.model("mistral")
    samples = [sample(n, seed) for seed, n in enumerate(LENGTHS)]
    inputs = packed(samples)
    inputs.pop("labels")
    logits = model(**inputs).logits[0].split(list(LENGTHS))
    for (ids, _), part in zip(samples, logits, strict=True):
        torch.testing.assert_close(part, model(input_ids=torch.tensor([ids])).logits[0], rtol=1e-4, atol=1e-5)


def test_packed_rows_with_media_equal_their_samples():
    section, sound = tiny.vision(connector={"merge": 4}), tiny.audio("whisper", {"merge": 2})
    model = tiny.model(vision=section, audio=sound)
    features = [tiny.clip(sound, n, n) for n in (4000, 7000)]
    rows = [
        tiny.words(3) + tiny.image_ids(section) + tiny.words(4),
        tiny.words(6),
        tiny.image_ids(section) + features[0][2] + tiny.image_ids(section) + tiny.words(2),
        features[1][2] + tiny.words(5),
    ]
    pixels = torch.randn(3, 3, 24, 24)
    media = [
        {"pixel_values": pixels[:1]},
        {},
        {"pixel_values": pixels[1:], "input_features": features[0][0][None]},
        {"input_features": features[1][0][None]},
    ]
    mel, lengths = tiny.pad([f[0] for f in features])
    both = model(**packed([(r, r) for r in rows]), pixel_values=pixels, input_features=mel, feature_lengths=lengths)
    alone = [
        model(input_ids=torch.tensor([r]), labels=torch.tensor([r]), **m) for r, m in zip(rows, media, strict=True)
    ]
    torch.testing.assert_close(both.loss_sum, sum(a.loss_sum for a in alone), rtol=1e-5, atol=1e-5)


def test_the_last_clip_of_each_packed_sample_is_heard():
    """`last_clip_only`: what LLaSM's released code does with a conversation's clips but the last."""
    sound = tiny.audio("whisper", {"merge": 2}, last_clip_only=True)
    model = tiny.model(audio=sound)
    clips = [tiny.clip(sound, n, n) for n in (4000, 7000, 5000)]
    rows = [clips[0][2] + tiny.words(4) + clips[1][2] + tiny.words(3), clips[2][2] + tiny.words(5)]
    mel, lengths = tiny.pad([c[0] for c in clips])
    both = model(**packed([(r, r) for r in rows]), input_features=mel, feature_lengths=lengths)
    alone = [
        model(
            input_ids=torch.tensor([row]),
            labels=torch.tensor([row]),
            input_features=mel[own],
            feature_lengths=lengths[own],
        )
        for row, own in zip(rows, (slice(0, 2), slice(2, 3)), strict=True)
    ]
    torch.testing.assert_close(both.loss_sum, sum(a.loss_sum for a in alone), rtol=1e-5, atol=1e-5)


def test_checkpointing_activations_changes_nothing():
    model = tiny.model("qwen3", tiny.vision(connector={"merge": 4})).train()
    rows = [tiny.image_ids(tiny.vision(connector={"merge": 4})) + tiny.words(7), tiny.words(9)]
    inputs = packed([(r, r) for r in rows]) | {"pixel_values": torch.randn(1, 3, 24, 24)}
    model(**inputs).loss.backward()
    wanted = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model(**inputs).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, wanted[name])


def test_models_that_carry_state_along_a_row_are_refused():
    from transformers import AutoModelForCausalLM, FalconH1Config, Lfm2Config, MambaConfig

    small = {"hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 64}
    for config in (
        MambaConfig(**small),
        Lfm2Config(**small, num_attention_heads=2, num_key_value_heads=1, layer_types=["conv"]),
        FalconH1Config(**small, num_attention_heads=2, num_key_value_heads=2, mamba_d_ssm=32, mamba_n_heads=4),
    ):
        with torch.device("meta"):
            problem = packing_problem(AutoModelForCausalLM.from_config(config))
        assert problem is not None and "packing off" in problem and "llama, mistral" in problem, config.model_type


def test_a_segment_sum_that_is_not_the_row_is_refused():
    with pytest.raises(WeftError, match="add up to 9 for a packed row of 1 x 10"):
        tiny.model()(
            input_ids=torch.tensor([tiny.words(10)]),
            position_ids=torch.arange(10)[None],
            segment_lengths=torch.tensor([4, 5]),
        )


def attended(row, window=None, causal=True):
    """What weft's attention makes of query, key and value of a packed row."""
    asking, mask = SimpleNamespace(is_causal=causal), attention.segment_mask(torch.tensor(LENGTHS))
    return attention.weft_attention(asking, *row, mask, scaling=0.3, sliding_window=window)[0]


@pytest.mark.parametrize(("window", "causal"), [(None, True), (4, True), (None, False)])
def test_what_a_gpu_is_asked_for_is_what_a_cpu_computes(window, causal, monkeypatch):
    """`varlen_attn` as its documentation defines it stands in for the kernel, which only a GPU has."""
    import inspect

    from torch.nn.attention import varlen

    taken = inspect.signature(varlen.varlen_attn).parameters
    assert inspect.signature(documented_varlen).parameters.keys() <= taken.keys()
    monkeypatch.setattr(varlen, "varlen_attn", documented_varlen)
    torch.manual_seed(0)
    row = [torch.randn(1, heads, sum(LENGTHS), 8) for heads in (4, 2, 2)]
    asked = attended(row, window=window, causal=causal)
    monkeypatch.setattr(attention, "takes_varlen", lambda value: True)
    torch.testing.assert_close(attended(row, window=window, causal=causal), asked)


def test_torch_takes_what_a_gpu_is_asked_for(monkeypatch):
    """`varlen_attn` itself and its derivative, on tensors without numbers."""
    monkeypatch.setattr(attention, "takes_varlen", lambda value: True)
    row = [
        torch.empty(1, heads, sum(LENGTHS), 8, dtype=torch.bfloat16, device="meta", requires_grad=True)
        for heads in (4, 2, 2)
    ]
    out = attended(row, window=4)
    assert out.shape == (1, sum(LENGTHS), 4, 8) and out.dtype == torch.bfloat16
    out.sum().backward()
    assert [x.grad.shape for x in row] == [x.shape for x in row]


@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral"])
def test_short_rows_trained_in_bfloat16_come_out_as_in_float32(family):
    """On a CPU these take other ways than SDPA's bfloat16 kernel, under autocast too."""
    model = tiny.model(family, tiny.vision("clip"), tiny.audio("whisper")).train()
    samples = [sample(n, seed) for seed, n in enumerate(LENGTHS)]
    pixels = torch.randn(2, 3, 24, 24)
    mel, lengths = tiny.pad([tiny.clip(tiny.audio("whisper"), n)[0] for n in (4000, 9000)])

    def outputs():
        rows = tiny.batch([s for s, _ in samples])
        labels = rows["input_ids"].masked_fill(rows["attention_mask"] == 0, -100)
        losses = model(**packed(samples)).loss, model(**rows, labels=labels).loss
        return *losses, model.embed_images(pixels).float().std(), model.embed_audio(mel, lengths).float().std()

    wanted = torch.stack(outputs())
    with torch.autocast("cpu", torch.bfloat16):
        got = torch.stack(outputs())
    torch.testing.assert_close(got, wanted, rtol=0.03, atol=0.0)
    got.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_other_attention_is_refused_for_packing():
    model = tiny.model()
    model.language_model.set_attn_implementation("eager")
    with pytest.raises(WeftError, match="attn_implementation='eager'"):
        model(**packed([sample(4, 0)]))


@pytest.mark.parametrize(("generation", "dtype", "size", "runs"), [
    ((9, 0), torch.bfloat16, 64, True),
    ((7, 5), torch.float16, 64, False),  # a T4 has no FlashAttention
    ((8, 0), torch.float32, 64, False),
    ((8, 0), torch.bfloat16, 60, False),
])  # fmt: skip
def test_the_packed_kernel_runs_where_the_gpu_has_it(monkeypatch, generation, dtype, size, runs):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: generation)
    value = SimpleNamespace(is_cuda=True, device="cuda:0", dtype=dtype, shape=(1, 2, 5, size))
    assert attention.takes_varlen(value) is runs


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_a_layer_hands_on_who_watches_its_attention(family):
    model = tiny.model(family)
    seen = []
    layers = [m.self_attn for m in model.language_model.modules() if hasattr(m, "self_attn")]
    for layer in layers:
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: (args, {**kwargs, "watch": lambda *told: seen.append(told)}), with_kwargs=True
        )
    model(input_ids=torch.tensor([tiny.words(7)]))
    assert len(seen) == len(layers) == 2
    for query, key, scaling in seen:
        assert query.shape[2] == key.shape[2] == 7 and scaling == pytest.approx(query.shape[-1] ** -0.5)


def test_padded_rows_in_training_ask_the_device_nothing():
    """On the meta device there are no numbers, so that whoever asks for one fails."""
    model = tiny.model("llama").to("meta")
    ids = torch.tensor([tiny.words(7), tiny.words(7, 1)])
    mask = torch.ones_like(ids).to("meta")
    assert model(input_ids=ids, attention_mask=mask, labels=ids).loss.requires_grad
