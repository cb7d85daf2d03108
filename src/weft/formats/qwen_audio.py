"""A published Qwen-Audio or Qwen-Audio-Chat folder as a weft folder.

Facts and their sources: QwenLM/Qwen-Audio @ b50fb95, `modeling_qwen.py`, `audio.py`, `tokenization_qwen.py`. The
language model is Qwen-7B, which has Qwen2's layout but for fused queries, keys and values, other names, dynamic NTK
rotary scaling and log-n attention. The encoder is Whisper-large-v2's under OpenAI's names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from weft.dialects.qwen_audio import QwenAudio
from weft.formats.checkpoints import CheckpointError, check_out, read_folder, read_json
from weft.formats.folder import Imported, Writing, write_folder
from weft.formats.mapping import Input, read, rules_beside, wanted_by
from weft.formats.tokenizers import qwen_specials, tiktoken_tokenizer
from weft.models.config import AudioSection, Connector, DialectSection, WeftConfig
from weft.models.encoders.whisper import QwenAudio as Encoder
from weft.models.qwen_text import WeftQwenConfig

PAD, START, END = map(str, QwenAudio.slots["audio"])
STOPS = ("<|endoftext|>", "<|im_end|>", "<|im_start|>")
NAMES = {"eos": STOPS[0], "pad": STOPS[0]}
TABLES = rules_beside(__file__)
LANGUAGE = TABLES["language"]
RULES = (*LANGUAGE, *TABLES["audio"])


def import_qwen_audio(
    checkpoint: Path, out: Path, dtype: str = "auto", *, pad_id: int | None = None, **writing: Unpack[Writing]
) -> Imported:
    """Reads the published folder and writes ``out``; returns what was read. Raises `WeftError` where it does not fit.

    ``pad_id`` is the id repeated over a clip, for a folder without a tokenizer (it is not in `config.json`).
    """
    check_out(out, writing.get("force", False))
    raw = read_json(checkpoint / "config.json")
    _check_config(raw, checkpoint / "config.json")
    weights = read_folder(checkpoint)
    config = qwen_audio_config(raw)
    outputs = read(wanted_by(config), [Input(weights, RULES)])

    notes: list[str] = []
    file, rows = checkpoint / "qwen.tiktoken", raw["vocab_size"]
    start, stops = int(raw["audio"]["audio_start_id"]), []
    tokenizer = tiktoken_tokenizer(file, qwen_specials()) if file.exists() else None
    if tokenizer is None:  # tokenization_qwen.py: the end token's id is assumed to be one more
        pad = pad_id if pad_id is not None else (start - 3312 if start == 155163 else start + 2)
        ids = [start, start + 1, pad]
        notes.append(
            f"{checkpoint} has no qwen.tiktoken, so the model takes token ids only (no chat, no processor); "
            f"clips are marked by {start}, {pad} repeated, {start + 1}"
        )
    else:
        known: dict[str, int] = tokenizer.get_vocab()
        if len(known) > rows:
            raise CheckpointError(f"{file}: has {len(known)} tokens, and the embeddings only {rows} rows")
        ids, stops = [known[token] for token in (START, END, PAD)], [known[token] for token in STOPS]
        if ids[0] != start:  # Qwen-Audio-Chat's first upload said 155164, which is the end token
            notes.append(f"config.json says audio_start_id {start}, but {START} is {ids[0]}; the tokenizer's is taken")
    if max(ids) >= rows:
        raise CheckpointError(f"{checkpoint}: clip tokens {ids[0]}, {ids[1]}, {ids[2]} are beyond vocab_size {rows}")
    config.audio_start_id, config.audio_end_id, config.audio_token_id = ids
    # The base model stops at <|endoftext|> and the chat model at <|im_end|> or <|im_start|>; neither writes the
    # other's, so one list serves both.
    ends: dict[str, Any] = {"max_new_tokens": 512} | ({"eos_token_id": stops} if stops else {})
    return write_folder(out, config, outputs, [weights], tokenizer, NAMES, ends, notes, dtype=dtype, **writing)


def _check_config(raw: dict[str, Any], file: Path) -> None:
    audio = raw.get("audio")
    if raw.get("model_type") != "qwen" or not isinstance(audio, dict):
        kind = f"its model_type is {raw.get('model_type')!r}"
        raise CheckpointError(f"{file}: not a Qwen-Audio configuration (model_type 'qwen', an audio section); {kind}")
    needed = ["hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size"]
    needed_audio = ["n_state", "n_head", "n_layer", "n_mels", "n_ctx", "output_dim", "audio_start_id"]
    lost = [key for key in needed if key not in raw] + [f"audio.{key}" for key in needed_audio if key not in audio]
    if lost:
        raise CheckpointError(f"{file}: {', '.join(sorted(lost))} missing")
    fixed = {"rotary_pct": 1.0, "no_bias": True, "tie_word_embeddings": False}
    odd = {key: raw[key] for key, value in fixed.items() if raw.get(key, value) != value}
    fixed = {"avg_pool": True, "add_audio_bos_eos_token": True, "output_dim": raw["hidden_size"]}
    odd |= {f"audio.{key}": audio[key] for key, value in fixed.items() if audio.get(key, value) != value}
    if odd:
        raise CheckpointError(f"{file}: {odd} is not how Qwen-Audio was published, and is not supported")


def text_config(raw: dict[str, Any]) -> WeftQwenConfig:
    """Qwen-7B's configuration; its `intermediate_size` counts both halves of the MLP's inner layer."""
    return WeftQwenConfig(
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"] // 2,
        num_hidden_layers=raw["num_hidden_layers"],
        num_attention_heads=raw["num_attention_heads"],
        head_dim=raw.get("kv_channels"),
        rms_norm_eps=raw.get("layer_norm_epsilon", 1e-6),  # 1e-6 or 1e-5: the published configurations differ
        rope_parameters={"rope_type": "default", "rope_theta": float(raw.get("rotary_emb_base", 10000))},
        max_position_embeddings=raw.get("max_position_embeddings", 8192),
        seq_length=raw.get("seq_length", 2048),
        tie_word_embeddings=False,
        **{key: raw.get(key, True) for key in ("use_dynamic_ntk", "use_logn_attn")},
    )


def qwen_audio_config(raw: dict[str, Any]) -> WeftConfig:
    """The model of a published configuration; the ids that mark clips are still to be said."""
    a = raw["audio"]
    tower = {"d_model": a["n_state"], "encoder_ffn_dim": 4 * a["n_state"], "activation_function": "gelu"}
    tower |= {"encoder_layers": a["n_layer"], "encoder_attention_heads": a["n_head"], "num_mel_bins": a["n_mels"]}
    tower["max_source_positions"] = a["n_ctx"]
    section = AudioSection(
        kind="qwen_audio",
        config=tower | dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0),
        **Encoder.published(tower, {}),
        boundaries=True,
        connector=Connector(kind="linear", merge=1, bias=True),
    )
    ids: dict[str, Any] = {"audio_start_id": 0, "audio_end_id": 1, "audio_token_id": 2}
    return WeftConfig(text_config=text_config(raw), audio=section, dialect=DialectSection(name=QwenAudio.name), **ids)
