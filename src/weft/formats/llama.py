"""Llama folders as the published systems build on them: configuration, weights (with a LoRA folded in), tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaConfig

from weft.formats.checkpoints import DTYPES, CheckpointError, Claims, Output, Tensors, copy, read_json
from weft.formats.tokenizers import add_specials, sentencepiece_tokenizer

# What older transformers saved with the weights and every later one computes.
ROTARY_BUFFERS = r"(?:model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq"


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


@dataclass(frozen=True)
class Lora:
    """Low-rank updates by the name of the weight they change: (A [r, in], B [out, r]) to be added as scale * B A."""

    pairs: Mapping[str, tuple[Tensor, Tensor]]
    scale: float


def llama_outputs(
    claims: Claims, config: LlamaConfig, to: str = "language_model.", lora: Lora | None = None
) -> list[Output]:
    """Claims a Llama's tensors and says what they become. Updates are added in float32."""
    width, inner, vocabulary = config.hidden_size, config.intermediate_size, config.vocab_size
    head = getattr(config, "head_dim", None) or width // config.num_attention_heads
    groups = config.num_key_value_heads or config.num_attention_heads
    queries, keys = head * config.num_attention_heads, head * groups
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    for layer in range(config.num_hidden_layers):
        at = f"model.layers.{layer}."
        shapes |= {
            at + "self_attn.q_proj.weight": (queries, width),
            at + "self_attn.k_proj.weight": (keys, width),
            at + "self_attn.v_proj.weight": (keys, width),
            at + "self_attn.o_proj.weight": (width, queries),
            at + "mlp.gate_proj.weight": (inner, width),
            at + "mlp.up_proj.weight": (inner, width),
            at + "mlp.down_proj.weight": (width, inner),
            at + "input_layernorm.weight": (width,),
            at + "post_attention_layernorm.weight": (width,),
        }
        if config.attention_bias:
            shapes |= {f"{at}self_attn.{p}_proj.bias": (n,) for p, n in zip("qkv", (queries, keys, keys), strict=True)}
            shapes[at + "self_attn.o_proj.bias"] = (width,)
    shapes["model.norm.weight"] = (width,)
    if not config.tie_word_embeddings or "lm_head.weight" in claims.tensors:
        shapes["lm_head.weight"] = (vocabulary, width)
    for name, shape in shapes.items():
        claims.need(name, shape)
    claims.surplus(ROTARY_BUFFERS)
    pairs = lora.pairs if lora is not None else {}
    odd = sorted(set(pairs) - set(shapes))
    if odd:
        raise CheckpointError(f"the adapter changes {odd[0]}, which {claims.tensors.label} does not hold")
    written = {n: s for n, s in shapes.items() if n != "lm_head.weight" or not config.tie_word_embeddings}
    outputs = []
    for name in written:
        if lora is not None and name in pairs:
            outputs.append(_merged(claims.tensors, name, to + name, *pairs[name], lora.scale, shapes[name]))
        elif name in claims.tensors:
            outputs.append(copy(claims.tensors, name, to + name))
    return outputs


def _merged(tensors: Tensors, name: str, to: str, a: Tensor, b: Tensor, scale: float, shape: tuple[int, ...]) -> Output:
    if tuple(b.shape[:1]) + tuple(a.shape[1:]) != shape:
        raise CheckpointError(f"the adapter for {name} is {tuple(b.shape)} x {tuple(a.shape)}, for a weight {shape}")
    return Output(to, shape, lambda: tensors[name].float() + scale * (b.float() @ a.float()))


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


def stored_dtype(dtype: str, *inputs: Tensors) -> torch.dtype:
    """The type to write: ``auto`` is what most values of the first input (the language model) are stored in."""
    if dtype == "auto":
        stored = inputs[0].dtype()
        return stored if stored in DTYPES.values() else torch.float32
    if dtype not in DTYPES:
        raise CheckpointError(f"--dtype {dtype}: not one of auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]
