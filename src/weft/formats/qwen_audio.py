"""A published Qwen-Audio or Qwen-Audio-Chat folder as a weft folder.

Facts and their sources: QwenLM/Qwen-Audio @ b50fb95, `modeling_qwen.py`, `audio.py`, `tokenization_qwen.py`. The
language model is Qwen-7B, which has Qwen2's layout but for fused queries, keys and values, other names, dynamic NTK
rotary scaling and log-n attention. The encoder is Whisper-large-v2's under OpenAI's names.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from weft.formats.checkpoints import CheckpointError, Claims, Output, Tensors, check_out, copy, read_folder, read_json
from weft.formats.folder import Imported, write_folder
from weft.formats.llama import stored_dtype
from weft.formats.tokenizers import qwen_specials, tiktoken_tokenizer
from weft.models.config import AudioSection, Connector, DialectSection, WeftConfig
from weft.models.qwen_text import WeftQwenConfig

PAD, START, END = "[[[AUDIO:modality]]]", "<audio>", "</audio>"
STOPS = ("<|endoftext|>", "<|im_end|>", "<|im_start|>")
# Buffers that some saved versions hold and the code computes.
BUFFERS = (r"transformer\.rotary_emb\.inv_freq", r"transformer\.h\.\d+\.attn\.(?:masked_bias|bias|logn_tensor)")


def import_qwen_audio(
    checkpoint: Path,
    out: Path,
    dtype: str = "auto",
    *,
    force: bool = False,
    pad_id: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Reads the published folder and writes ``out``; returns what was read. Raises `WeftError` where it does not fit.

    ``pad_id`` is the id repeated over a clip, for a folder without a tokenizer (it is not in `config.json`).
    """
    check_out(out, force)
    raw = read_json(checkpoint / "config.json")
    _check_config(raw, checkpoint / "config.json")
    weights = read_folder(checkpoint)
    claims = Claims(weights)
    outputs = _language(claims, raw)
    section, audio_outputs = _audio(claims, raw)
    claims.surplus(*BUFFERS)
    claims.settle()

    notes: list[str] = []
    file = checkpoint / "qwen.tiktoken"
    start = int(raw["audio"]["audio_start_id"])
    end = start + 1  # tokenization_qwen.py: the end token's id is assumed to be one more
    tokenizer = tiktoken_tokenizer(file, qwen_specials()) if file.exists() else None
    if tokenizer is None:
        pad = pad_id if pad_id is not None else (start - 3312 if start == 155163 else start + 2)
        stops: list[int] = []
        notes.append(
            f"{checkpoint} has no qwen.tiktoken, so the model takes token ids only (no chat, no processor); "
            f"clips are marked by {start}, {pad} repeated, {end}"
        )
    else:
        if tokenizer.get_vocab_size() > raw["vocab_size"]:
            raise CheckpointError(
                f"{file}: has {tokenizer.get_vocab_size()} tokens, and the embeddings only {raw['vocab_size']} rows"
            )
        known: dict[str, int] = tokenizer.get_vocab()
        ids = [known[token] for token in (START, END, PAD)]
        if ids[0] != start:  # Qwen-Audio-Chat's first upload said 155164, which is the end token
            notes.append(f"config.json says audio_start_id {start}, but {START} is {ids[0]}; the tokenizer's is taken")
        start, end, pad = ids
        stops = [known[token] for token in STOPS]
    if max(start, end, pad) >= raw["vocab_size"]:
        raise CheckpointError(
            f"{checkpoint}: clip tokens {start}, {end}, {pad} are beyond vocab_size {raw['vocab_size']}"
        )

    config = WeftConfig(
        text_config=_text_config(raw),
        audio=section,
        dialect=DialectSection(name="qwen_audio"),
        audio_token_id=pad,
        audio_start_id=start,
        audio_end_id=end,
    )
    # The base model stops at <|endoftext|> and the chat model at <|im_end|> or <|im_start|>; neither writes the
    # other's, so one list serves both. Decoding is greedy as in the published evaluation (eval_audio/*.py).
    generation: dict[str, Any] = {"max_new_tokens": 512, "do_sample": False}
    if stops:
        generation |= {"eos_token_id": stops, "pad_token_id": stops[0]}
    return write_folder(
        out,
        config,
        [*outputs, *audio_outputs],
        inputs=(weights,),
        dtype=stored_dtype(dtype, weights),
        tokenizer=tokenizer,
        names={"eos": STOPS[0], "pad": STOPS[0]},
        generation=generation,
        notes=notes,
        force=force,
        progress=progress,
    )


def _check_config(raw: dict[str, Any], file: Path) -> None:
    audio = raw.get("audio")
    if raw.get("model_type") != "qwen" or not isinstance(audio, dict):
        raise CheckpointError(
            f"{file}: not a Qwen-Audio configuration (model_type 'qwen' with an audio section); "
            f"its model_type is {raw.get('model_type')!r}"
        )
    needed = {"hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size"}
    needed_audio = {"n_state", "n_head", "n_layer", "n_mels", "n_ctx", "output_dim", "audio_start_id"}
    lost = sorted((needed - raw.keys()) | {f"audio.{key}" for key in needed_audio - audio.keys()})
    if lost:
        raise CheckpointError(f"{file}: {', '.join(lost)} missing")
    fixed = {"rotary_pct": 1.0, "no_bias": True, "tie_word_embeddings": False}
    odd = {key: raw[key] for key, value in fixed.items() if raw.get(key, value) != value}
    odd |= {f"audio.{key}": audio[key] for key in ("avg_pool", "add_audio_bos_eos_token") if not audio.get(key, True)}
    if odd:
        raise CheckpointError(f"{file}: {odd} is not how Qwen-Audio was published, and is not supported")


def _sizes(raw: dict[str, Any]) -> tuple[int, int, int]:
    """Width, width of all heads together, and width of the MLP's inner layer (`intermediate_size` counts it twice)."""
    heads = raw["num_attention_heads"]
    return (
        raw["hidden_size"],
        heads * raw.get("kv_channels", raw["hidden_size"] // heads),
        raw["intermediate_size"] // 2,
    )


def _language(claims: Claims, raw: dict[str, Any]) -> list[Output]:
    width, heads, inner = _sizes(raw)
    outputs = [
        _take(claims, "transformer.wte.weight", (raw["vocab_size"], width), "language_model.model.embed_tokens.weight"),
        _take(claims, "transformer.ln_f.weight", (width,), "language_model.model.norm.weight"),
        _take(claims, "lm_head.weight", (raw["vocab_size"], width), "language_model.lm_head.weight"),
    ]
    for layer in range(raw["num_hidden_layers"]):
        at, to = f"transformer.h.{layer}.", f"language_model.model.layers.{layer}."
        for part, shape in (("weight", (heads, width)), ("bias", (heads,))):
            fused = claims.need(f"{at}attn.c_attn.{part}", (3 * heads, *shape[1:]))
            for third, letter in enumerate("qkv"):
                make = _rows(claims.tensors, fused, third * heads, (third + 1) * heads)
                outputs.append(Output(f"{to}self_attn.{letter}_proj.{part}", shape, make))
        names = {
            "ln_1": ("input_layernorm", (width,)),
            "ln_2": ("post_attention_layernorm", (width,)),
            "attn.c_proj": ("self_attn.o_proj", (width, heads)),
            # modeling_qwen.py: c_proj(w1(x) * silu(w2(x))), so w2 is the gate
            "mlp.w1": ("mlp.up_proj", (inner, width)),
            "mlp.w2": ("mlp.gate_proj", (inner, width)),
            "mlp.c_proj": ("mlp.down_proj", (width, inner)),
        }
        outputs += [_take(claims, f"{at}{a}.weight", shape, f"{to}{b}.weight") for a, (b, shape) in names.items()]
    return outputs


def _rows(tensors: Tensors, name: str, first: int, last: int) -> Callable[[], Any]:
    return lambda: tensors[name][first:last]


def _take(claims: Claims, name: str, shape: tuple[int, ...], to: str) -> Output:
    if claims.need(name, shape) in claims.tensors:
        return copy(claims.tensors, name, to)
    return Output(to, shape, lambda: claims.tensors[name])  # reported by `settle` before it is ever made


def _text_config(raw: dict[str, Any]) -> WeftQwenConfig:
    width, heads, inner = _sizes(raw)
    return WeftQwenConfig(
        vocab_size=raw["vocab_size"],
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=raw["num_hidden_layers"],
        num_attention_heads=raw["num_attention_heads"],
        head_dim=heads // raw["num_attention_heads"],
        rms_norm_eps=raw.get("layer_norm_epsilon", 1e-6),  # 1e-6 or 1e-5: the published configurations differ
        rope_parameters={"rope_type": "default", "rope_theta": float(raw.get("rotary_emb_base", 10000))},
        max_position_embeddings=raw.get("max_position_embeddings", 8192),
        seq_length=raw.get("seq_length", 2048),
        use_dynamic_ntk=raw.get("use_dynamic_ntk", True),
        use_logn_attn=raw.get("use_logn_attn", True),
        tie_word_embeddings=False,
    )


def _audio(claims: Claims, raw: dict[str, Any]) -> tuple[AudioSection, list[Output]]:
    """OpenAI's Whisper names to those of `transformers`; keys have no bias in either."""
    a, width = raw["audio"], raw["hidden_size"]
    state, inner = a["n_state"], 4 * a["n_state"]
    if a["output_dim"] != width:
        raise CheckpointError(
            f"audio.output_dim is {a['output_dim']} and hidden_size {width}: clips would not fit the text"
        )
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "positional_embedding": ("embed_positions.weight", (a["n_ctx"], state)),
        "conv1.weight": ("conv1.weight", (state, a["n_mels"], 3)),
        "conv1.bias": ("conv1.bias", (state,)),
        "conv2.weight": ("conv2.weight", (state, state, 3)),
        "conv2.bias": ("conv2.bias", (state,)),
        "ln_post.weight": ("layer_norm.weight", (state,)),
        "ln_post.bias": ("layer_norm.bias", (state,)),
    }
    for layer in range(a["n_layer"]):
        at, to = f"blocks.{layer}.", f"layers.{layer}."
        linear = {
            "attn.query": ("self_attn.q_proj", state, state),
            "attn.key": ("self_attn.k_proj", state, state),
            "attn.value": ("self_attn.v_proj", state, state),
            "attn.out": ("self_attn.out_proj", state, state),
            "mlp.0": ("fc1", inner, state),
            "mlp.2": ("fc2", state, inner),
        }
        for old, (new, rows, columns) in linear.items():
            shapes[f"{at}{old}.weight"] = (f"{to}{new}.weight", (rows, columns))
            if old != "attn.key":
                shapes[f"{at}{old}.bias"] = (f"{to}{new}.bias", (rows,))
        for old, new in (("attn_ln", "self_attn_layer_norm"), ("mlp_ln", "final_layer_norm")):
            for part in ("weight", "bias"):
                shapes[f"{at}{old}.{part}"] = (f"{to}{new}.{part}", (state,))
    prefix = "transformer.audio."
    outputs = [_take(claims, prefix + old, shape, f"audio.tower.{new}") for old, (new, shape) in shapes.items()]
    outputs += [
        _take(claims, f"{prefix}proj.weight", (width, state), "audio_connector.proj.weight"),
        _take(claims, f"{prefix}proj.bias", (width,), "audio_connector.proj.bias"),
        _take(claims, f"{prefix}audio_bos_eos_token.weight", (2, width), "audio.boundaries.weight"),
    ]
    tower = {
        "d_model": state,
        "encoder_layers": a["n_layer"],
        "encoder_attention_heads": a["n_head"],
        "encoder_ffn_dim": inner,
        "num_mel_bins": a["n_mels"],
        "max_source_positions": a["n_ctx"],
        "activation_function": "gelu",
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
    }
    section = AudioSection(
        kind="qwen_audio",
        config=tower,
        window_seconds=a["n_ctx"] / 50,
        boundaries=True,
        connector=Connector(kind="linear", merge=1, bias=True),
    )
    return section, outputs
