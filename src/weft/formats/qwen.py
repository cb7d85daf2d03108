"""Qwen-7B, the language model that Qwen-Audio was trained from, as a folder that `weft.models.compose` takes.

QwenLM/Qwen's folder needs code of its own to run; here its tensors get the names of `weft.models.qwen_text`, its
tokenizer Qwen-Audio's tokens, and its tables their 155,947 rows (QwenLM/Qwen-Audio, config.json). How the released
training started the new rows is not known: here at the mean of the old ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from weft.formats.checkpoints import (
    CheckpointError,
    Claims,
    Output,
    check_out,
    new_folder,
    read_folder,
    read_json,
    write_weights,
)
from weft.formats.folder import Imported, Source
from weft.formats.llama import stored_dtype
from weft.formats.qwen_audio import BUFFERS, STOPS, _language, _text_config
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
        found = "Qwen-Audio's" if "audio" in raw else f"of model_type {raw.get('model_type')!r}"
        raise CheckpointError(f"{checkpoint}: not a Qwen language model, but {found}; give the Qwen-7B folder")
    file = checkpoint / "qwen.tiktoken"
    if not file.exists():
        raise CheckpointError(f"{checkpoint}: there is no qwen.tiktoken, without which its tokens are not known")
    weights = read_folder(checkpoint)
    claims = Claims(weights)
    outputs = [replace(o, name=o.name.removeprefix(PREFIX)) for o in _language(claims, raw)]
    claims.surplus(*BUFFERS)
    claims.settle()
    tokenizer = tiktoken_tokenizer(file, qwen_specials())
    known = tokenizer.get_vocab_size() - len(qwen_specials()) + len(qwen_specials(()))
    rows = max(ROWS if known == TOKENS else 0, raw["vocab_size"], tokenizer.get_vocab_size())
    outputs = [_extended(o, known, rows) if o.name in TABLES else o for o in outputs]

    config = _text_config({**raw, "vocab_size": rows})
    kind = stored_dtype(dtype, weights)
    with new_folder(out, force) as folder:
        written = write_weights(outputs, folder, kind, progress)
        config.architectures = ["WeftQwenForCausalLM"]
        config.dtype = kind
        config.save_pretrained(folder)
        save_tokenizer(tokenizer, folder, eos=STOPS[0], pad=STOPS[0], max_length=config.max_position_embeddings)
    source = Source(weights.label, len(weights.used), tuple(sorted(weights.surplus)))
    parameters = sum(int(torch.Size(o.shape).numel()) for o in outputs)
    return Imported(out, (source,), len(outputs), parameters, written, kind)


def _extended(table: Output, known: int, rows: int) -> Output:
    """The table with ``rows`` rows; those that stand for no token of Qwen's are the mean of those that do."""
    make, width = table.make, table.shape[1]

    def made() -> torch.Tensor:
        old = make()
        mean = old[:known].float().mean(0).to(old.dtype)
        return torch.cat([old[:known], mean.expand(rows - known, -1)])

    return Output(table.name, (rows, width), made)
