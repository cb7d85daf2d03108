"""The sizes of published encoders and language models by hub name, so that a recipe can be measured without a network.

Each entry is what the model's own config.json says, as far as shapes need it, and for a language model how many tokens
its tokenizer has. Training reads none of this: there the source's own files count. `weft show` of a recipe that names
a model which is not listed reads that model's configuration from the hub.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from weft.models.encoders import SOUNDS


class PublishedText(NamedTuple):
    config: dict[str, Any]
    tokens: int  # of the tokenizer, added ones included
    specials: tuple[str, ...] = ()  # of these, what a dialect here writes


def _llama2(**changes: Any) -> dict[str, Any]:
    """Llama-2-7B: meta-llama/Llama-2-7b-hf config.json; arXiv 2307.09288."""
    return {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        **changes,
    }


def _qwen3(width: int, inner: int, layers: int, heads: int, *, tied: bool) -> dict[str, Any]:
    """Qwen3, arXiv 2505.09388 table 1 and the config.json of each size; all have 8 key heads, 128 wide."""
    return {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40960,
        "tie_word_embeddings": tied,
    }


# Qwen-7B (arXiv 2309.16609; config.json: 32 layers, 4096 wide, intermediate_size 22016 counts both halves) with the
# rows that Qwen-Audio gives it (QwenLM/Qwen-Audio config.json: vocab_size 155947, of which 155,165 are tokens).
QWEN_AUDIO_TEXT = {
    "model_type": "weft_qwen",
    "vocab_size": 155947,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
LLAMA_SPECIALS = ("<s>", "</s>")
QWEN_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LANGUAGES: dict[str, PublishedText] = {
    "meta-llama/Llama-2-7b-chat-hf": PublishedText(_llama2(), 32000, LLAMA_SPECIALS),
    "lmsys/vicuna-7b-v1.5": PublishedText(_llama2(), 32000, LLAMA_SPECIALS),
    "LinkSoul/Chinese-Llama-2-7b": PublishedText(_llama2(), 32000, LLAMA_SPECIALS),
    "models/qwen-7b": PublishedText(QWEN_AUDIO_TEXT, 151851, QWEN_SPECIALS),
    "Qwen/Qwen2.5-0.5B-Instruct": PublishedText(  # arXiv 2412.15115, table 1; config.json
        {
            "model_type": "qwen2",
            "vocab_size": 151936,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": True,
        },
        151665,
        QWEN_SPECIALS,
    ),
    "Qwen/Qwen3-0.6B": PublishedText(_qwen3(1024, 3072, 28, 16, tied=True), 151669, QWEN_SPECIALS),
    "Qwen/Qwen3-1.7B": PublishedText(_qwen3(2048, 6144, 28, 16, tied=True), 151669, QWEN_SPECIALS),
    "Qwen/Qwen3-4B": PublishedText(_qwen3(2560, 9728, 36, 32, tied=True), 151669, QWEN_SPECIALS),
    "Qwen/Qwen3-8B": PublishedText(_qwen3(4096, 12288, 36, 32, tied=False), 151669, QWEN_SPECIALS),
}

VISION: dict[str, tuple[str, dict[str, Any]]] = {
    # EVA-CLIP-g as BLIP-2 and MiniGPT-v2 use it: 39 of its 40 blocks (eva_vit.py of the released code builds 39).
    "Salesforce/blip2-opt-2.7b": (
        "eva",
        {
            "hidden_size": 1408,
            "intermediate_size": 6144,
            "num_hidden_layers": 39,
            "num_attention_heads": 16,
            "patch_size": 14,
            "image_size": 224,
        },
    ),
    "openai/clip-vit-large-patch14-336": (  # config.json of the release; 24 layers, of which LLaVA uses 23
        "clip",
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "patch_size": 14,
            "image_size": 336,
        },
    ),
    # InternViT-300M, in the config.json of the converted model; as a source its tower alone is read.
    "OpenGVLab/InternVL3-1B-hf": (
        "internvit",
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "patch_size": 14,
            "image_size": 448,
            "attention_bias": True,
        },
    ),
    # SigLIP 2, arXiv 2502.14786: the encoders have the shapes of SigLIP's.
    "google/siglip2-base-patch16-256": (
        "siglip",
        {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "patch_size": 16,
            "image_size": 256,
        },
    ),
    "google/siglip2-so400m-patch16-384": (
        "siglip",
        {
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "patch_size": 16,
            "image_size": 384,
        },
    ),
}


def _whisper(width: int, layers: int, heads: int, decoder: int, bands: int, vocabulary: int) -> dict[str, Any]:
    """Whisper, arXiv 2212.04356 table 1 and the config.json of each size: 30 s windows, MLPs four times as wide."""
    return {
        "d_model": width,
        "encoder_layers": layers,
        "encoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width,
        "decoder_layers": decoder,
        "decoder_attention_heads": heads,
        "decoder_ffn_dim": 4 * width,
        "num_mel_bins": bands,
        "max_source_positions": 1500,
        "max_target_positions": 448,
        "vocab_size": vocabulary,
        "decoder_start_token_id": 50258,
        "pad_token_id": 50257,
        "bos_token_id": 50257,
        "eos_token_id": 50257,
    }


AUDIO: dict[str, dict[str, Any]] = {
    "openai/whisper-small": _whisper(768, 12, 12, 12, 80, 51865),
    "openai/whisper-large-v2": _whisper(1280, 32, 20, 32, 80, 51865),
    "openai/whisper-large-v3": _whisper(1280, 32, 20, 32, 128, 51866),
    "openai/whisper-large-v3-turbo": _whisper(1280, 32, 20, 4, 128, 51866),
}


def outline_vision(asked: dict[str, Any]) -> dict[str, Any]:
    """What `compose` is asked for, with the shapes of a listed source in its place."""
    if asked.get("source") not in VISION:
        return asked
    kind, config = VISION[asked["source"]]
    return {**_rest(asked), "kind": kind, "config": config}


def outline_audio(asked: dict[str, Any]) -> dict[str, Any]:
    if asked.get("source") not in AUDIO:
        return asked
    kind, config = asked.get("kind") or "whisper", AUDIO[asked["source"]]
    options = {**SOUNDS[kind].published(config, {}), **asked.get("options", {})}
    return {**_rest(asked), "kind": kind, "config": config, "options": options}


def outline_language(asked: dict[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
    """``wanted``: the special tokens that the dialect writes. The table has at least a row for each, 64 at a time."""
    found = LANGUAGES.get(asked.get("source", ""))
    if found is None:
        return asked
    tokens = found.tokens + len(set(wanted) - set(found.specials))
    rows = found.config["vocab_size"]
    return {"config": {**found.config, "vocab_size": rows if rows >= tokens else -(-tokens // 64) * 64}}


def _rest(asked: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in asked.items() if key != "source"}
