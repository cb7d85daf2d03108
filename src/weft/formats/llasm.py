"""A published LLaSM folder and the Whisper it was trained with as one weft folder.

Facts and their sources: LinkSoul-AI/LLaSM @ 3443b79, `llasm.py`, `infer.py`, and the configurations on Hugging Face.
The checkpoint holds a Llama and one linear layer, and no Whisper: the released class hides it in a list. The sound
tokens are states of Whisper's *decoder*, fed with 64 start tokens; nothing of Whisper is trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Unpack

from tokenizers import Tokenizer

from weft.dialects.llasm import LLaSM
from weft.formats.checkpoints import CheckpointError, Output, Tensors, check_out, read_folder, read_json
from weft.formats.folder import Imported, Writing, write_folder
from weft.formats.llama import NAMES, llama_config, llama_input, llama_tokenizer
from weft.formats.mapping import Input, Rule, read, wanted_by
from weft.formats.tokenizers import add_specials
from weft.models.config import AudioSection, Connector, DialectSection, WeftConfig
from weft.models.encoders.whisper import WhisperDecoder

SPANS: Any = LLaSM.slots["audio"]  # in the order infer.py adds them
Family = Literal["chinese_llama2", "baichuan"]
PROJECTOR = (Rule("model.mm_projector.*", "audio_connector.proj.*"),)
# A whole Whisper under its own names, with or without the prefix of its head's class; the head is not used.
WHISPER = (
    Rule("model.*", "audio.tower.*"),
    Rule("*", "audio.tower.*"),
    Rule("proj_out.weight", None),
)


def import_llasm(
    checkpoint: Path,
    whisper: Path,
    out: Path,
    dtype: str = "auto",
    *,
    family: Family | None = None,
    **writing: Unpack[Writing],
) -> Imported:
    """Reads the published folders and writes ``out``; returns what was read. Raises `WeftError` where they do not fit.

    ``family`` decides the prompt; without it, a vocabulary with a `<pad>` before the three clip tokens is Baichuan's.
    """
    check_out(out, writing.get("force", False))
    raw = read_json(checkpoint / "config.json")
    weights, tower = read_folder(checkpoint), read_folder(whisper)
    text: Any = llama_config(checkpoint, ("llaaa", "llama"), weights)
    section = whisper_section(whisper, int(raw.get("audio_token_len", 64)))
    width = section.config["d_model"]
    if raw.get("mm_hidden_size", width) != width:
        raise CheckpointError(
            f"{whisper}: is {width} wide, and the checkpoint was trained with {raw['mm_hidden_size']}"
        )
    for key in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(text, key, raw.get(key))
    config = WeftConfig(text_config=text, audio=section)
    outputs = plan(config, weights, tower)
    tokenizer, padded = _tokenizer(checkpoint, text.vocab_size)
    baichuan = (family or ("baichuan" if padded else "chinese_llama2")) == "baichuan"
    dialect = DialectSection(name=LLaSM.name, switches={"family": "baichuan"} if baichuan else {})
    span = tokenizer.token_to_id(SPANS[0])
    config = WeftConfig(text_config=text, audio=section, dialect=dialect, audio_token_id=span)
    names = NAMES | ({"pad": "<pad>"} if tokenizer.token_to_id("<pad>") is not None else {})
    inputs, generation = (weights, tower), {"max_new_tokens": 1024}
    return write_folder(out, config, outputs, inputs, tokenizer, names, generation, dtype=dtype, **writing)


def plan(config: WeftConfig, weights: Tensors, tower: Tensors) -> list[Output]:
    """Every tensor of the model."""
    return read(wanted_by(config), (llama_input(weights, config.text_config, PROJECTOR), Input(tower, WHISPER)))


def _tokenizer(checkpoint: Path, rows: int) -> tuple[Tokenizer, bool]:
    """The folder's tokenizer with the clip tokens, and whether they follow a `<pad>`, as Baichuan's do.

    Its added_tokens.json says so, or there is one row too many.
    """
    tokenizer = llama_tokenizer(checkpoint)
    padded = tokenizer.token_to_id("<pad>") is not None or rows - tokenizer.get_vocab_size() == len(SPANS) + 1
    add_specials(tokenizer, ("<pad>", *SPANS) if padded else SPANS)
    if tokenizer.get_vocab_size() > rows:
        raise CheckpointError(
            f"{checkpoint}: the tokenizer with {', '.join(SPANS)} has {tokenizer.get_vocab_size()} tokens, and the "
            f"embeddings only {rows} rows"
        )
    return tokenizer, padded


def whisper_section(folder: Path, tokens: int) -> AudioSection:
    """The section of a whole Whisper whose decoder gives ``tokens`` states."""
    raw = read_json(folder / "config.json")
    if raw.get("model_type") != "whisper":
        raise CheckpointError(f"{folder / 'config.json'}: model_type is {raw.get('model_type')!r}, expected 'whisper'")
    wanted = "d_model encoder_layers encoder_attention_heads encoder_ffn_dim decoder_layers decoder_attention_heads"
    wanted += " decoder_ffn_dim num_mel_bins max_source_positions max_target_positions vocab_size scale_embedding"
    wanted += " decoder_start_token_id activation_function pad_token_id bos_token_id eos_token_id"
    return AudioSection(
        kind="whisper_decoder",
        config={key: raw[key] for key in wanted.split() if key in raw},
        **WhisperDecoder.published(raw, {}),
        pad_to_window=True,
        decoder_tokens=tokens,
        connector=Connector(kind="linear", merge=1, bias=True),
    )
