"""Qwen-7B's rules for long text, and the published Qwen-Audio as a whole against its released code's outputs."""

import json
import math

import pytest
import tiny
import torch
from safetensors.torch import load_file

from weft.models.config import WeftConfig, WeftQwenConfig
from weft.models.modeling import WeftForConditionalGeneration
from weft.models.qwen_text import WeftQwenForCausalLM, ntk_alpha


def test_alpha_is_the_published_rule():
    for n in (1, 2047, 2048, 2049, 4096, 4097, 8192, 8193):
        assert ntk_alpha(n, 2048) == max(2 ** math.ceil(math.log2(n / 2048) + 1) - 1, 1)


def language_model(**changes):
    torch.manual_seed(0)
    fields = {k: v for k, v in tiny.text("weft_qwen", **changes).items() if k != "model_type"}
    return WeftQwenForCausalLM(WeftQwenConfig(**fields)).eval()


def test_training_knows_neither_rule():
    model = language_model()
    plain = language_model(use_dynamic_ntk=False, use_logn_attn=False)
    ids = torch.tensor([tiny.words(20)])
    assert (model(ids).logits - plain(ids).logits).abs().max() > 1e-3
    torch.testing.assert_close(model.train()(ids).logits, plain(ids).logits)


def test_alpha_is_the_prompts_while_decoding():
    model = language_model(use_logn_attn=False)
    ids = torch.tensor([tiny.words(20)])
    out = model(ids[:, :8], use_cache=True)  # within seq_length: alpha stays 1 for what follows
    steps = [out.logits]
    for i in range(8, 20):
        out = model(ids[:, i : i + 1], past_key_values=out.past_key_values, use_cache=True)
        steps.append(out.logits)
    plain = language_model(use_logn_attn=False, use_dynamic_ntk=False)
    torch.testing.assert_close(torch.cat(steps, 1), plain(ids).logits, rtol=1e-4, atol=1e-5)


def test_a_left_padded_row_equals_the_row_alone_unless_asked_otherwise():
    rows = [tiny.words(20), tiny.words(5, 1), tiny.words(12, 2)]
    batch = tiny.batch(rows, left=True)
    differences = []
    for padded in (False, True):
        model = tiny.model("weft_qwen", padded_positions=padded)
        logits = model(**batch).logits
        alone = [model(input_ids=torch.tensor([r])).logits[0] for r in rows]
        differences.append(max((a[-len(b) :] - b).abs().max().item() for a, b in zip(logits, alone, strict=True)))
    assert differences[0] < 1e-5 < 1e-3 < differences[1]


# -- the released checkpoint -------------------------------------------------------------------------------------------


def released(folder, compatible):
    """The kit's small checkpoint as a weft model; ``compatible`` with the switches that reproduce the release."""
    raw, tensors = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    a, heads = raw["audio"], raw["num_attention_heads"]
    config = WeftConfig(
        text_config={
            "model_type": "weft_qwen",
            "vocab_size": raw["vocab_size"],
            "hidden_size": raw["hidden_size"],
            "intermediate_size": raw["intermediate_size"] // 2,
            "num_hidden_layers": raw["num_hidden_layers"],
            "num_attention_heads": heads,
            "head_dim": raw["kv_channels"],
            "rms_norm_eps": raw["layer_norm_epsilon"],
            "rope_theta": float(raw["rotary_emb_base"]),
            "seq_length": raw["seq_length"],
            "padded_positions": compatible,
        },
        audio={
            "kind": "qwen_audio",
            "boundaries": True,
            "batch_leak": compatible,
            "config": {
                "d_model": a["n_state"],
                "encoder_layers": a["n_layer"],
                "encoder_attention_heads": a["n_head"],
                "encoder_ffn_dim": 4 * a["n_state"],
                "num_mel_bins": a["n_mels"],
                "max_source_positions": a["n_ctx"],
            },
        },
        audio_start_id=a["audio_start_id"],
        audio_end_id=a["audio_start_id"] + 1,
        audio_token_id=302,
    )
    model = WeftForConditionalGeneration(config).eval()
    model.load_state_dict({new: t for old, tensor in tensors.items() for new, t in renamed(old, tensor)})
    return model


RENAME = [
    ("transformer.wte.", "language_model.model.embed_tokens."),
    ("transformer.ln_f.", "language_model.model.norm."),
    ("lm_head.", "language_model.lm_head."),
    ("transformer.h.", "language_model.model.layers."),
    (".ln_1.", ".input_layernorm."),
    (".ln_2.", ".post_attention_layernorm."),
    (".attn.c_proj.", ".self_attn.o_proj."),
    (".mlp.w1.", ".mlp.up_proj."),
    (".mlp.w2.", ".mlp.gate_proj."),
    (".mlp.c_proj.", ".mlp.down_proj."),
    ("transformer.audio.proj.", "audio_connector.proj."),
    ("transformer.audio.audio_bos_eos_token.", "audio.boundaries."),
    ("transformer.audio.positional_embedding", "audio.tower.embed_positions.weight"),
    ("transformer.audio.ln_post.", "audio.tower.layer_norm."),
    ("transformer.audio.blocks.", "audio.tower.layers."),
    ("transformer.audio.", "audio.tower."),
    (".attn.query.", ".self_attn.q_proj."),
    (".attn.key.", ".self_attn.k_proj."),
    (".attn.value.", ".self_attn.v_proj."),
    (".attn.out.", ".self_attn.out_proj."),
    (".attn_ln.", ".self_attn_layer_norm."),
    (".mlp.0.", ".fc1."),
    (".mlp.2.", ".fc2."),
    (".mlp_ln.", ".final_layer_norm."),
]


def renamed(name, tensor):
    for old, new in RENAME:
        name = name.replace(old, new)
    if ".attn.c_attn." in name:
        for letter, third in zip("qkv", tensor.chunk(3), strict=True):
            yield name.replace(".attn.c_attn.", f".self_attn.{letter}_proj."), third
    else:
        yield name, tensor


@pytest.fixture(scope="module")
def kit(shared):
    folder = shared / "parity" / "qwen_audio" / "small"
    expected = load_file(folder / "expected.safetensors")
    mel = [expected["frontend/mel"].T, expected["frontend/mel_short"].T]
    lengths = [2 * int(c) for c in expected["frontend/lens"][:2, 0]]  # lens: after the convolutions, and tokens
    return folder, expected, mel, lengths


def close(got, wanted):
    difference = (got - wanted).abs()
    assert difference.max() < 1e-4, difference.max().item()


@pytest.mark.parametrize("compatible", [False, True])
def test_text_within_and_beyond_the_trained_length(kit, compatible):
    folder, expected, _, _ = kit
    model = released(folder, compatible)
    for case in ("text_short", "text_long_ntk_logn"):
        with torch.no_grad():
            close(model(input_ids=expected[f"{case}/input_ids"]).logits, expected[f"{case}/logits"])


@torch.no_grad()
def test_clips_alone_and_in_a_batch(kit):
    folder, expected, mel, lengths = kit
    model, leaking = released(folder, False), released(folder, True)
    for one, n, case in zip(mel, lengths, ("long", "short"), strict=True):
        close(model.embed_audio(one[None, :n]), expected[f"encoder/single_{case}"][1:-1])
    features = torch.stack([m[: lengths[0] + 1] for m in mel])
    close(
        leaking.embed_audio(features, torch.tensor(lengths) + 1),
        torch.cat([expected[f"encoder/batch_{case}"][1:-1] for case in ("long", "short")]),
    )
    close(
        model.embed_audio(features, torch.tensor(lengths)),
        torch.cat([expected[f"encoder/single_{case}"][1:-1] for case in ("long", "short")]),
    )


@torch.no_grad()
def test_prompts_with_clips(kit):
    folder, expected, mel, lengths = kit
    model, leaking = released(folder, False), released(folder, True)
    for case, which in (("one_audio", 0), ("short_audio", 1)):
        got = model(input_ids=expected[f"{case}/input_ids"], input_features=mel[which][None, : lengths[which]]).logits
        close(got, expected[f"{case}/logits"])
    both = {
        "input_features": torch.stack([m[: lengths[0] + 1] for m in mel]),
        "feature_lengths": torch.tensor(lengths) + 1,
    }
    close(leaking(input_ids=expected["two_audios/input_ids"], **both).logits, expected["two_audios/logits"])
    mask = expected["batch_leftpad/attention_mask"]
    batch = {"input_ids": expected["batch_leftpad/input_ids"], "attention_mask": mask, **both}
    close(leaking(**batch).logits[mask.bool()], expected["batch_leftpad/logits"][mask.bool()])


def test_greedy_ids_and_cached_steps(kit):
    folder, expected, mel, lengths = kit
    model = released(folder, False)
    ids, features = expected["generate/input_ids"], mel[1][None, : lengths[1]]
    greedy = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    out = model.generate(input_ids=ids, input_features=features, **greedy)
    assert out.tolist() == expected["generate/output_ids"].tolist()
    both = {"input_features": torch.stack([m[: lengths[0]] for m in mel]), "feature_lengths": torch.tensor(lengths)}
    batch = {
        "input_ids": expected["batch_leftpad/input_ids"],
        "attention_mask": expected["batch_leftpad/attention_mask"],
    }
    assert model.generate(**batch, **both, **greedy).tolist() == expected["generate_batch/output_ids"].tolist()


def test_loss_and_gradients(kit):
    folder, expected, mel, lengths = kit
    model = released(folder, False).train()
    out = model(
        input_ids=expected["train/input_ids"],
        input_features=mel[1][None, : lengths[1]],
        labels=expected["train/labels"],
    )
    out.loss.backward()
    close(out.loss, expected["train/loss"][0])
    close(model.get_input_embeddings().weight.grad, expected["train/grad_wte"])
    close(model.audio_connector.proj.weight.grad, expected["train/grad_audio_proj"])
    close(model.audio.boundaries.weight.grad, expected["train/grad_bos_eos"])
