"""A published LLaSM folder and the Whisper it was trained with as one weft folder.

Facts and their sources: LinkSoul-AI/LLaSM @ 3443b79, `llasm.py`, `infer.py`, and the configurations on Hugging Face.
The checkpoint holds a Llama and one linear layer, and no Whisper: the released class hides it in a list. The sound
tokens are states of Whisper's *decoder*, fed with 64 start tokens; nothing of Whisper is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from weft.formats.checkpoints import CheckpointError, Claims, Output, check_out, copy, read_folder, read_json
from weft.formats.folder import Imported, write_folder
from weft.formats.llama import llama_config, llama_outputs, llama_tokenizer, stored_dtype
from weft.formats.tokenizers import add_specials
from weft.models.config import AudioSection, Connector, DialectSection, WeftConfig

SPANS = ("<au_patch>", "<au_start>", "<au_end>")  # in the order infer.py adds them
Family = Literal["chinese_llama2", "baichuan"]


def import_llasm(
    checkpoint: Path,
    whisper: Path,
    out: Path,
    dtype: str = "auto",
    *,
    force: bool = False,
    family: Family | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Reads the published folders and writes ``out``; returns what was read. Raises `WeftError` where they do not fit.

    ``family`` decides the prompt; without it, a vocabulary with a `<pad>` before the three clip tokens is Baichuan's.
    """
    check_out(out, force)
    raw = read_json(checkpoint / "config.json")
    weights, tower = read_folder(checkpoint), read_folder(whisper)
    text = llama_config(checkpoint, ("llaaa", "llama"), weights)
    section, outputs = _whisper(Claims(tower), whisper, int(raw.get("audio_token_len", 64)))
    claims = Claims(weights)
    width = section.config["d_model"]
    if raw.get("mm_hidden_size", width) != width:
        raise CheckpointError(
            f"{whisper}: is {width} wide, and the checkpoint was trained with {raw['mm_hidden_size']}"
        )
    projector = {"weight": (text.hidden_size, width), "bias": (text.hidden_size,)}
    for part, shape in projector.items():
        name = claims.need(f"model.mm_projector.{part}", shape)
        if name in weights:
            outputs.append(copy(weights, name, f"audio_connector.proj.{part}"))
    outputs += llama_outputs(claims, text)
    claims.settle()

    tokenizer = llama_tokenizer(checkpoint)
    # Baichuan's tokenizer got a <pad> before LLaSM's three; added_tokens.json says so, or there is one row too many.
    room = text.vocab_size - tokenizer.get_vocab_size()
    padded = tokenizer.token_to_id("<pad>") is not None or room == len(SPANS) + 1
    if family is None:
        family = "baichuan" if padded else "chinese_llama2"
    add_specials(tokenizer, ("<pad>", *SPANS) if padded else SPANS)
    ids: dict[str, int] = tokenizer.get_vocab()
    if tokenizer.get_vocab_size() > text.vocab_size:
        raise CheckpointError(
            f"{checkpoint}: the tokenizer with {', '.join(SPANS)} has {tokenizer.get_vocab_size()} tokens, and the "
            f"embeddings only {text.vocab_size} rows"
        )
    for key in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(text, key, raw.get(key))
    pad = "<pad>" if "<pad>" in ids else "</s>"
    config = WeftConfig(
        text_config=text,
        audio=section,
        dialect=DialectSection(name="llasm", switches={} if family == "chinese_llama2" else {"family": family}),
        audio_token_id=ids[SPANS[0]],
    )
    generation: dict[str, Any] = {"max_new_tokens": 1024, "do_sample": False}
    generation |= {"bos_token_id": ids["<s>"], "eos_token_id": ids["</s>"], "pad_token_id": ids[pad]}
    return write_folder(
        out,
        config,
        outputs,
        inputs=(weights, tower),
        dtype=stored_dtype(dtype, weights),
        tokenizer=tokenizer,
        names={"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": pad},
        generation=generation,
        force=force,
        progress=progress,
    )


def _whisper(claims: Claims, folder: Path, tokens: int) -> tuple[AudioSection, list[Output]]:
    """A whole Whisper under its own names; the head over its vocabulary is not used."""
    raw = read_json(folder / "config.json")
    if raw.get("model_type") != "whisper":
        raise CheckpointError(f"{folder / 'config.json'}: model_type is {raw.get('model_type')!r}, expected 'whisper'")
    t = claims.tensors
    inside = "model." if any(name.startswith("model.") for name in t.shapes) else ""
    d, positions = raw["d_model"], {"encoder": raw["max_source_positions"], "decoder": raw["max_target_positions"]}
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.conv1.weight": (d, raw["num_mel_bins"], 3),
        "encoder.conv1.bias": (d,),
        "encoder.conv2.weight": (d, d, 3),
        "encoder.conv2.bias": (d,),
        "decoder.embed_tokens.weight": (raw["vocab_size"], d),
    }
    for side in ("encoder", "decoder"):
        shapes[f"{side}.embed_positions.weight"] = (positions[side], d)
        inner = raw[f"{side}_ffn_dim"]
        attentions = ["self_attn"] if side == "encoder" else ["self_attn", "encoder_attn"]
        norms = [f"{a}_layer_norm" for a in attentions] + ["final_layer_norm"]
        for at in (f"{side}.layers.{n}." for n in range(raw[f"{side}_layers"])):
            for attention in attentions:
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    shapes[f"{at}{attention}.{part}.weight"] = (d, d)
                    if part != "k_proj":
                        shapes[f"{at}{attention}.{part}.bias"] = (d,)
            shapes |= {f"{at}{norm}.{part}": (d,) for norm in norms for part in ("weight", "bias")}
            shapes |= {f"{at}fc1.weight": (inner, d), f"{at}fc1.bias": (inner,)}
            shapes |= {f"{at}fc2.weight": (d, inner), f"{at}fc2.bias": (d,)}
        shapes |= {f"{side}.layer_norm.{part}": (d,) for part in ("weight", "bias")}
    outputs = []
    for name, shape in shapes.items():
        if claims.need(inside + name, shape) in t:
            outputs.append(copy(t, inside + name, f"audio.tower.{name}"))
    claims.surplus(r"proj_out\.weight")
    claims.settle()

    wanted: tuple[str, ...] = (
        "d_model",
        "encoder_layers",
        "encoder_attention_heads",
        "encoder_ffn_dim",
        "decoder_layers",
    )
    wanted += ("decoder_attention_heads", "decoder_ffn_dim", "num_mel_bins", "max_source_positions")
    wanted += ("max_target_positions", "vocab_size", "decoder_start_token_id", "activation_function", "scale_embedding")
    wanted += ("pad_token_id", "bos_token_id", "eos_token_id")
    section = AudioSection(
        kind="whisper_decoder",
        config={key: raw[key] for key in wanted if key in raw},
        window_seconds=raw["max_source_positions"] / 50,
        pad_to_window=True,
        decoder_tokens=tokens,
        connector=Connector(kind="linear", merge=1, bias=True),
    )
    return section, outputs
