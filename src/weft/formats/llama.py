"""Llama folders as the published systems build on them: configuration, names of weights, tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import LlamaConfig

from weft.formats.checkpoints import CheckpointError, Tensors, read_json
from weft.formats.mapping import Input, Rule
from weft.formats.tokenizers import add_specials, sentencepiece_tokenizer

PREFIX = "language_model."
NAMES = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "</s>"}  # of a tokenizer without a token for padding
# What older transformers saved with the weights and every later one computes.
ROTARY = ("model.layers.#.self_attn.rotary_emb.inv_freq", "layers.#.self_attn.rotary_emb.inv_freq")
RULES = (Rule("*", PREFIX + "*"), *(Rule(name, None) for name in ROTARY))


def llama_input(weights: Tensors, text: LlamaConfig, rules: Iterable[Rule] = ()) -> Input:
    """A Llama folder's weights, which may hold others under ``rules``."""
    return Input(weights, (*rules, *RULES), ["lm_head.weight"] if text.tie_word_embeddings else [])


def llama_config(folder: Path, types: tuple[str, ...] = ("llama",), weights: Tensors | None = None) -> LlamaConfig:
    """The folder's `config.json` as a `LlamaConfig`. Raises `CheckpointError` for another kind of model.

    ``weights`` tell the number of key heads where the file, saved before transformers 4.31, does not.
    """
    raw = read_json(folder / "config.json")
    if raw.get("model_type") not in types:
        wanted = " or ".join(types)
        raise CheckpointError(f"{folder / 'config.json'}: model_type is {raw.get('model_type')!r}, expected {wanted}")
    # Notes of the program that saved it, not settings; the type of the weights is read from the weights.
    notes = {"_name_or_path", "architectures", "transformers_version", "torch_dtype", "dtype", "model_type", "auto_map"}
    kept = {key: value for key, value in raw.items() if key not in notes}
    config = LlamaConfig.from_dict(kept)
    rows = weights.shapes.get("model.layers.0.self_attn.k_proj.weight") if weights is not None else None
    if rows is not None and "num_key_value_heads" not in raw:
        config.num_key_value_heads = max(rows[0] * config.num_attention_heads // config.hidden_size, 1)
    return config


def llama_tokenizer(folder: Path, added: tuple[str, ...] = ()) -> Tokenizer:
    """The folder's tokenizer by the legacy rule, with ``added`` special tokens after it (and after its own added ones).

    `tokenizer.model` is preferred; a `tokenizer.json` is taken where it follows the legacy rule.
    """
    own = folder / "added_tokens.json"
    extra = sorted(read_json(own).items(), key=lambda item: item[1]) if own.exists() else []
    if (folder / "tokenizer.model").exists():
        tokenizer = sentencepiece_tokenizer(folder / "tokenizer.model")
    elif (folder / "tokenizer.json").exists():
        tokenizer = _fast_tokenizer(folder / "tokenizer.json")
    else:
        raise CheckpointError(f"{folder}: has neither tokenizer.model nor tokenizer.json")
    for token, number in extra:
        add_specials(tokenizer, [token])
        if tokenizer.token_to_id(token) != number:
            raise CheckpointError(f"{own}: {token} is {number}, but would be {tokenizer.token_to_id(token)}")
    add_specials(tokenizer, added)
    return tokenizer


def _fast_tokenizer(file: Path) -> Tokenizer:
    normalizer: Any = read_json(file).get("normalizer") or {}
    if '"Prepend"' not in json.dumps(normalizer):
        raise CheckpointError(
            f"{file}: follows the newer Llama rule (no dummy space after special tokens), which the published weights "
            f"were not trained with; add the tokenizer.model of the same release to the folder"
        )
    return Tokenizer.from_file(str(file))
