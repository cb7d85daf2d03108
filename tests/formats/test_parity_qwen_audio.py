"""Qwen-Audio's released code against an import of its kit.

`small` has no tokenizer, so its prompts are ids. `full_vocabulary` has the published tokenizer: prompts are rendered.
The released code lets the padding of a batch leak into short clips and counts log-n positions from the start of a
padded row: `compat` is the same checkpoint with both switches on, and everything else must hold without them.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMultimodalLM, AutoProcessor

import weft  # noqa: F401  registers with transformers
from weft.formats.qwen_audio import import_qwen_audio
from weft.media import load_audio, log_mel
from weft.models.encoders import sound_kind
from weft.models.modeling import WeftForConditionalGeneration


class Small:
    def __init__(self, kit: Path, out: Path) -> None:
        self.tensors = load_file(kit / "small" / "expected.safetensors")
        self.facts = json.loads((kit / "small" / "expected.json").read_text())["cases"]
        self.done = import_qwen_audio(kit / "small", out, "float32")
        self.model = AutoModelForMultimodalLM.from_pretrained(out).eval()
        config = self.model.config
        config = type(config).from_dict(
            {**config.to_dict(), "audio": {**config.audio, "batch_leak": True}},
        )
        config.text_config.padded_positions = True
        self.compat = WeftForConditionalGeneration(config).eval()
        self.compat.load_state_dict(self.model.state_dict())
        self.long = self.tensors["frontend/wav"].numpy()
        self.short = load_audio(str(kit / "clip_short.wav"))

    def media(self, *clips: np.ndarray, compat: bool = False) -> dict[str, torch.Tensor]:
        section = (self.compat if compat else self.model).config.audio_section
        features = []
        for clip in clips:
            (window,) = sound_kind(section).windows(len(clip))
            features.append(torch.from_numpy(log_mel(clip, pad_to=window.padded)[: window.frames]))
        return {
            "input_features": torch.nn.utils.rnn.pad_sequence(features, batch_first=True),
            "feature_lengths": torch.tensor([len(f) for f in features]),
        }

    def logits(self, case: str, *clips: np.ndarray, compat: bool = False) -> torch.Tensor:
        inputs = {"input_ids": self.tensors[f"{case}/input_ids"]}
        if f"{case}/attention_mask" in self.tensors:
            inputs["attention_mask"] = self.tensors[f"{case}/attention_mask"]
        media = self.media(*clips, compat=compat) if clips else {}
        with torch.no_grad():
            return (self.compat if compat else self.model)(**inputs, **media).logits


@pytest.fixture(scope="module")
def small(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(shared / "parity" / "qwen_audio", tmp_path_factory.mktemp("qwen_audio") / "model")


def close(got: torch.Tensor, want: torch.Tensor, limit: float = 2e-3) -> None:
    assert got.shape == want.shape
    difference = (got.detach().float() - want).abs()
    assert difference.max() <= limit
    assert difference.mean() <= 1e-3 * want.std()


def test_without_a_tokenizer_it_takes_ids_and_says_so(small: Small) -> None:
    assert "token ids only" in small.done.notes[0]
    assert small.done.sources[0].used == 59 and small.done.sources[0].surplus == ()
    config = small.model.config
    assert (config.audio_start_id, config.audio_end_id, config.audio_token_id) == (300, 301, 302)


def test_log_mel(small: Small) -> None:
    for clip, name in ((small.long, "mel"), (small.short, "mel_short")):
        mel = torch.from_numpy(log_mel(clip, pad_to=480000)).T
        close(mel[:, :800], small.tensors[f"frontend/{name}"], 1e-4)


def test_encoder_alone_and_in_a_batch(small: Small) -> None:
    def encode(*clips: np.ndarray, compat: bool = False) -> torch.Tensor:
        model = small.compat if compat else small.model
        with torch.no_grad():
            return model.embed_audio(*small.media(*clips, compat=compat).values())

    def inner(name: str) -> torch.Tensor:  # the kit's spans begin and end with the learned boundary embeddings
        return small.tensors[f"encoder/{name}"][1:-1]

    close(encode(small.long), inner("single_long"), 1e-4)
    close(encode(small.short), inner("single_short"), 1e-4)
    both = encode(small.long, small.short)
    close(both, torch.cat([inner("single_long"), inner("single_short")]), 1e-4)
    leaking = encode(small.long, small.short, compat=True)
    close(leaking, torch.cat([inner("batch_long"), inner("batch_short")]), 1e-4)


@pytest.mark.parametrize("case", ["one_audio", "short_audio", "two_audios", "text_short", "text_long_ntk_logn"])
def test_logits(small: Small, case: str) -> None:
    clips = {"one_audio": [small.long], "short_audio": [small.short], "two_audios": [small.long, small.short]}
    compat = case == "two_audios"  # two clips are a batch to the encoder
    close(small.logits(case, *clips.get(case, []), compat=compat), small.tensors[f"{case}/logits"])


def test_left_padded_batch_as_released(small: Small) -> None:
    got = small.logits("batch_leftpad", small.long, small.short, compat=True)
    mask = small.tensors["batch_leftpad/attention_mask"].bool()
    close(got[mask], small.tensors["batch_leftpad/logits"][mask])


def test_left_padded_batch_equals_each_row_alone_by_default(small: Small) -> None:
    got = small.logits("batch_leftpad", small.long, small.short)
    close(got[:1], small.logits("one_audio", small.long), 1e-4)
    alone = small.logits("short_audio", small.short)
    close(got[1:, -alone.shape[1] :], alone, 1e-4)
    close(got[1:, -alone.shape[1] :], small.tensors["short_audio/logits"])


def test_cached_steps_equal_one_pass(small: Small) -> None:
    ids, media = small.tensors["generate/input_ids"], small.media(small.short)
    more = [11, 12, 13]
    with torch.no_grad():
        whole = small.model(input_ids=torch.cat([ids, torch.tensor([more])], 1), **media).logits
        state = small.model(input_ids=ids, **media, use_cache=True)
        steps = []
        for token in more:
            cache = state.past_key_values
            state = small.model(input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True)
            steps.append(state.logits)
    close(torch.cat(steps, 1), whole[:, -3:], 1e-5)
    close(torch.cat(steps, 1), small.tensors["kv_cache/steps"], 1e-4)
    close(whole[:, -3:], small.tensors["kv_cache/nocache"], 1e-4)


def test_greedy_ids(small: Small) -> None:
    ids, want = small.tensors["generate/input_ids"], small.facts["generate"]["new_ids"]
    out = small.model.generate(input_ids=ids, **small.media(small.short), max_new_tokens=12, do_sample=False)
    assert out[0].tolist() == [*ids[0].tolist(), *want]  # one of them is the clip's placeholder, and stays a token


def test_greedy_ids_of_a_batch_as_released(small: Small) -> None:
    inputs = {k: small.tensors[f"batch_leftpad/{k}"] for k in ("input_ids", "attention_mask")}
    media = small.media(small.long, small.short, compat=True)
    out = small.compat.generate(**inputs, **media, max_new_tokens=12, do_sample=False)
    assert out[:, -12:].tolist() == small.facts["generate_batch"]["new_ids"]


def test_loss_and_gradients(small: Small) -> None:
    facts = small.facts["train"]
    model = small.model.train()
    try:
        media = small.media(small.short)
        loss = model(input_ids=small.tensors["train/input_ids"], labels=small.tensors["train/labels"], **media).loss
        loss.backward()
        grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    finally:
        model.zero_grad(set_to_none=True)
        model.eval()
    assert loss.item() == pytest.approx(facts["loss"], abs=1e-4)
    table = grads["language_model.model.embed_tokens.weight"]
    close(table, small.tensors["train/grad_wte"], 1e-4)
    assert table[[300, 301, 302]].abs().max() == 0
    close(grads["audio_connector.proj.weight"], small.tensors["train/grad_audio_proj"], 1e-4)
    close(grads["audio.boundaries.weight"], small.tensors["train/grad_bos_eos"], 1e-4)
    norms = facts["grad_norms"]
    pairs = {"mlp.w1.weight": "mlp.up_proj.weight", "mlp.w2.weight": "mlp.gate_proj.weight"}
    for layer in (0, 1):
        ours = f"language_model.model.layers.{layer}."
        for theirs, name in pairs.items():
            assert grads[ours + name].norm() == pytest.approx(norms[f"transformer.h.{layer}.{theirs}"], rel=1e-3)
        fused = torch.cat([grads[f"{ours}self_attn.{p}_proj.weight"] for p in "qkv"])
        assert fused.norm() == pytest.approx(norms[f"transformer.h.{layer}.attn.c_attn.weight"], rel=1e-3)
    conv = grads["audio.tower.conv1.weight"].norm()
    assert conv == pytest.approx(norms["transformer.audio.conv1.weight"], rel=1e-3)


# --- The published tokenizer ----------------------------------------------------------------------------------------


class Full:
    def __init__(self, kit: Path, work: Path) -> None:
        spec = importlib.util.spec_from_file_location("parity_weights", kit.parent / "weights.py")
        assert spec is not None and spec.loader is not None
        weights = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(weights)
        source = kit / "full_vocabulary"
        self.tensors = load_file(source / "expected.safetensors")
        self.facts = json.loads((source / "expected.json").read_text())
        self.specials = json.loads((kit / "special_tokens.json").read_text())
        weights.write(work / "published", source, self.facts["weight_salt"])
        import_qwen_audio(work / "published", work / "model", "float32")
        self.model = AutoModelForMultimodalLM.from_pretrained(work / "model").eval()
        self.processor = AutoProcessor.from_pretrained(work / "model")
        self.long, self.short = ({"type": "audio", "audio": str(kit / f"clip_{n}")} for n in ("long.flac", "short.wav"))

    def render(self, messages: list[dict]) -> dict:
        return self.processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )


@pytest.fixture(scope="module")
def full(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Full:
    return Full(shared / "parity" / "qwen_audio", tmp_path_factory.mktemp("qwen_audio_full"))


@pytest.mark.nightly
def test_every_special_token_has_its_id(full: Full) -> None:
    tokenizer = full.processor.tokenizer
    names = list(full.specials)
    assert tokenizer.convert_tokens_to_ids(names) == list(full.specials.values())
    assert tokenizer("".join(names))["input_ids"] == list(full.specials.values())
    assert len(tokenizer("<|startoftranscription|>")["input_ids"]) == 8  # the README's tag is not a token


@pytest.mark.nightly
def test_transcription_prompt(full: Full) -> None:
    task = {"type": "task", "task": "transcribe", "language": "en", "timestamps": False}
    inputs = full.render([{"role": "user", "content": [full.long, task]}])
    assert inputs["input_ids"].tolist() == full.tensors["asr/input_ids"].tolist()
    with torch.no_grad():
        close(full.model(**inputs).logits[:, -1:], full.tensors["asr/logits_last"])


@pytest.mark.nightly
def test_chat_prompt_over_two_turns(full: Full) -> None:
    text = full.facts["chat1"]["raw_text"].split("</audio>\n")[-1].split("<|im_end|>")[0]
    first = {"role": "user", "content": [full.long, full.short, {"type": "text", "text": text}]}
    assert full.render([first])["input_ids"][0].tolist() == full.tensors["chat1/context_ids"].tolist()
    more = [first, {"role": "assistant", "content": "fine answer"}, {"role": "user", "content": "and now?"}]
    assert full.render(more)["input_ids"][0].tolist() == full.tensors["chat2/context_ids"].tolist()


@pytest.mark.nightly
def test_generation_stops_at_the_published_tokens(full: Full) -> None:
    names = ("<|endoftext|>", "<|im_end|>", "<|im_start|>")
    stops = {full.specials[name] for name in names}
    assert set(full.model.generation_config.eos_token_id) == stops
    assert stops >= {n for words in full.facts["chat2"]["stop_ids"] for n in words}
