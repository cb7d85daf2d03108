"""Qwen-7B, the language model that Qwen-Audio was trained from, as a folder that `weft.models.compose` takes.

QwenLM/Qwen's folder needs code of its own to run; here its tensors get the names of `weft.models.qwen_text`, its
tokenizer Qwen-Audio's tokens, and its tables their 155,947 rows (QwenLM/Qwen-Audio, config.json). How the released
training started the new rows is not known: here at the mean of the old ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from weft.formats.checkpoints import (
    CheckpointError,
    Output,
    check_out,
    new_folder,
    read_folder,
    read_json,
    stored_dtype,
    write_weights,
)
from weft.formats.folder import Account, Imported
from weft.formats.mapping import Input, read, wanted_by
from weft.formats.qwen_audio import LANGUAGE, STOPS, text_config
from weft.formats.tokenizers import qwen_specials, save_tokenizer, tiktoken_tokenizer

TOKENS, ROWS = 151851, 155947  # tokens of Qwen's own, and rows of Qwen-Audio's tables
TABLES = ("model.embed_tokens.weight", "lm_head.weight")
PREFIX = "language_model."


def import_qwen(
    checkpoint: Path,
    out: Path,
    dtype: str = "auto",
    *,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Reads a Qwen folder (model_type "qwen" without sound) and writes ``out``, a language model of type weft_qwen.

    Raises `WeftError` where the folder is something else or does not fit.
    """
    check_out(out, force)
    raw = read_json(checkpoint / "config.json")
    if raw.get("model_type") != "qwen" or "audio" in raw:
        what = "Qwen-Audio's" if "audio" in raw else f"of model_type {raw.get('model_type')!r}"
        raise CheckpointError(f"{checkpoint}: not a Qwen language model, but {what}; give the Qwen-7B folder")
    file = checkpoint / "qwen.tiktoken"
    if not file.exists():
        raise CheckpointError(f"{checkpoint}: there is no qwen.tiktoken, without which its tokens are not known")
    weights = read_folder(checkpoint)
    found = read(wanted_by(text_config(raw), PREFIX), [Input(weights, LANGUAGE)])
    tokenizer = tiktoken_tokenizer(file, qwen_specials())
    known = tokenizer.get_vocab_size() - len(qwen_specials()) + len(qwen_specials(()))
    rows = max(ROWS if known == TOKENS else 0, raw["vocab_size"], tokenizer.get_vocab_size())
    outputs = [_extended(o, o.name.removeprefix(PREFIX), known, rows) for o in found]
    config, kind = text_config({**raw, "vocab_size": rows}), stored_dtype(dtype, weights)
    with new_folder(out, force) as folder:
        written = write_weights(outputs, folder, kind, progress)
        config.architectures = ["WeftQwenForCausalLM"]
        config.dtype = kind
        config.save_pretrained(folder)
        save_tokenizer(tokenizer, folder, eos=STOPS[0], pad=STOPS[0], max_length=config.max_position_embeddings)
    return Imported(out, [Account.of(weights)], outputs, written, kind)


def _extended(tensor: Output, name: str, known: int, rows: int) -> Output:
    """Under its own name; a table with ``rows`` rows, those that no token of Qwen's has being the others' mean."""
    if name not in TABLES:
        return Output(name, tensor.shape, tensor.make)

    def made() -> torch.Tensor:
        old = tensor.make()
        mean = old[:known].float().mean(0).to(old.dtype)
        return torch.cat([old[:known], mean.expand(rows - known, -1)])

    return Output(name, (rows, tensor.shape[1]), made)
