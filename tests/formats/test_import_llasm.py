"""Kits of both families made here: an import computes what the published layout says, and refuses what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from published_kits import llama_forward, llama_weights, sentencepiece_model
from sentencepiece import SentencePieceProcessor
from transformers import AutoModelForMultimodalLM, AutoProcessor, WhisperConfig, WhisperForConditionalGeneration

import weft  # noqa: F401  registers with transformers
from marks import slow
from weft.formats.checkpoints import CheckpointError
from weft.formats.llasm import import_llasm
from weft.media import log_mel


class LLaSM:
    """A kit on disk. ``padded`` as Baichuan's (a `<pad>` before the clip tokens), ``listed`` with added_tokens.json."""

    def __init__(self, folder: Path, padded: bool = False, listed: bool = False, tokens: int = 16) -> None:
        self.checkpoint, self.whisper, self.tokens = folder / "checkpoint", folder / "whisper", tokens
        self.checkpoint.mkdir(parents=True)
        sentencepiece_model(self.checkpoint / "tokenizer.model")
        self.tokenizer = SentencePieceProcessor(model_file=str(self.checkpoint / "tokenizer.model"))
        base = self.tokenizer.vocab_size()
        added = (["<pad>"] if padded else []) + ["<au_patch>", "<au_start>", "<au_end>"]
        self.ids = {token: base + i for i, token in enumerate(added)}
        self.w = llama_weights(0, 48, 96, 2, 4, 4, base + len(added))
        self.w.add("model.mm_projector.weight", 48, 32)
        self.w.add("model.mm_projector.bias", 48)
        torch.save(dict(self.w), self.checkpoint / "pytorch_model.bin")
        config = {
            "model_type": "llaaa",
            "audio_token_len": tokens,
            "mm_hidden_size": 32,
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "rms_norm_eps": 1e-6,
            "vocab_size": base + len(added),
        }
        (self.checkpoint / "config.json").write_text(json.dumps(config))
        if listed:
            (self.checkpoint / "added_tokens.json").write_text(json.dumps(self.ids))
        torch.manual_seed(0)
        tower = WhisperConfig(
            d_model=32,
            encoder_layers=1,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=48,
            vocab_size=120,
            decoder_start_token_id=7,
            pad_token_id=3,
            bos_token_id=3,
            eos_token_id=3,
            init_std=0.2,
        )
        self.tower = WhisperForConditionalGeneration(tower).eval()
        self.tower.save_pretrained(self.whisper)

    def logits(self, ids: list[int], mel_TM: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            start = torch.full((1, self.tokens), 7)
            states = self.tower.model(mel_TM.T[None], decoder_input_ids=start).last_hidden_state[0]
        x = self.w["model.embed_tokens.weight"][torch.tensor(ids)]
        x[torch.tensor(ids) == self.ids["<au_patch>"]] = (
            states @ self.w["model.mm_projector.weight"].T + self.w["model.mm_projector.bias"]
        )
        return llama_forward(self.w, x, 4, 4, 1e-6, None, 1.0)


@pytest.mark.parametrize("family", ["chinese_llama2", "baichuan"])
@pytest.mark.parametrize("listed", [slow(False, id=""), pytest.param(True, id="added_tokens.json")])
def test_logits_equal_the_published_computation(tmp_path: Path, family: str, listed: bool) -> None:
    kit = LLaSM(tmp_path / "kit", padded=family == "baichuan", listed=listed)
    done = import_llasm(kit.checkpoint, kit.whisper, tmp_path / "out", "float32")
    assert done.sources[0].surplus == tuple(f"model.layers.{n}.self_attn.rotary_emb.inv_freq" for n in (0, 1))
    model = AutoModelForMultimodalLM.from_pretrained(tmp_path / "out").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.dialect.switches.family == family
    wave = np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.1
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "audio", "audio": (wave, 16000)}]}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    ids = inputs["input_ids"][0].tolist()
    span = [kit.ids["<au_start>"], *[kit.ids["<au_patch>"]] * 16, kit.ids["<au_end>"]]
    at = ids.index(span[0])
    assert ids[at : at + 18] == span
    after = "ASSISTANT:" if family == "baichuan" else " [/INST] "
    assert ids[at + 18 :] == kit.tokenizer.encode(after)
    with torch.no_grad():
        got = model(**inputs).logits[0]
    want = kit.logits(ids, torch.from_numpy(log_mel(wave, pad_to=480000)))
    assert (got - want).abs().max() < 2e-4 * want.abs().max()


def test_what_does_not_fit_stops_the_import(tmp_path: Path) -> None:
    kit = LLaSM(tmp_path / "kit")
    with pytest.raises(CheckpointError, match="model_type is 'llaaa', expected 'whisper'"):
        import_llasm(kit.checkpoint, kit.checkpoint, tmp_path / "out")
    config = kit.checkpoint / "config.json"
    config.write_text(config.read_text().replace('"mm_hidden_size": 32', '"mm_hidden_size": 64'))
    with pytest.raises(CheckpointError, match="is 32 wide, and the checkpoint was trained with 64"):
        import_llasm(kit.checkpoint, kit.whisper, tmp_path / "out")
    config.write_text(config.read_text().replace('"mm_hidden_size": 64', '"mm_hidden_size": 32'))
    held = {n: t for n, t in kit.w.items() if n != "model.mm_projector.bias"}
    torch.save(held, kit.checkpoint / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="1 missing: model.mm_projector.bias"):
        import_llasm(kit.checkpoint, kit.whisper, tmp_path / "out")
    assert not (tmp_path / "out").exists()
