"""Folders of `transformers`' own classes, by which most systems are published: what the imports of such share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

from tokenizers import Tokenizer
from transformers import PretrainedConfig

from weft.formats.checkpoints import CheckpointError, check_out, read_folder, read_json
from weft.formats.folder import Imported, Writing, write_folder
from weft.formats.mapping import Input, Rule, read, rules_beside, wanted_by
from weft.models.config import WeftConfig


def part(theirs: str, ours: str) -> tuple[Rule, Rule]:
    """The names of a part as published folders have them, and as newer versions of the class do."""
    return Rule(f"{theirs}.*", f"{ours}.*"), Rule(f"model.{theirs}.*", f"{ours}.*")


LANGUAGE = rules_beside(__file__)["language"]
END, PADS = "<|im_end|>", ("<|endoftext|>", "</s>")


def import_converted(
    checkpoint: Path,
    out: Path,
    dtype: str,
    kind: Any,
    make: Callable[[Any, Path], WeftConfig],
    token: str,
    rules: Sequence[Rule],
    **writing: Unpack[Writing],
) -> Imported:
    """Reads a folder of ChatML turns and writes ``out``; returns what was read.

    ``kind``: the class of its configuration, of which ``make`` makes weft's. ``token`` is repeated over its media.
    Raises `WeftError` where anything does not fit.
    """
    check_out(out, writing.get("force", False))
    raw = read_json(checkpoint / "config.json")
    if (found := raw.get("model_type")) != kind.model_type:
        raise CheckpointError(
            f"{checkpoint / 'config.json'}: model_type is {found!r}, expected {kind.model_type!r}; give the folder "
            "that was published for transformers (its name may end in -hf)"
        )
    config = make(kind.from_dict(raw), checkpoint)
    tokenizer = _tokenizer(checkpoint, token, config.image_token_id if config.audio is None else config.audio_token_id)
    weights = read_folder(checkpoint)
    tied = ("lm_head.weight", "language_model.lm_head.weight") if config.text_config.tie_word_embeddings else ()
    outputs = read(wanted_by(config), [Input(weights, rules, tied)])
    names = {"eos": END, "pad": next(token for token in (*PADS, END) if tokenizer.token_to_id(token) is not None)}
    return write_folder(
        out, config, outputs, [weights], tokenizer, names, {"max_new_tokens": 1024}, dtype=dtype, **writing
    )


def _tokenizer(folder: Path, token: str, number: int | None) -> Tokenizer:
    """The `tokenizer.json` of a folder of `transformers`, in which ``token`` has that number."""
    if not (folder / "tokenizer.json").exists():
        raise CheckpointError(f"{folder}: there is no tokenizer.json; copy it there")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if (found := tokenizer.token_to_id(token)) != number:
        raise CheckpointError(f"{folder}: the tokenizer has {token} at {found} and the model at {number}; they differ")
    return tokenizer


def tower_settings(config: Any) -> dict[str, Any]:
    """What a tower's configuration says of the tower, without what `transformers` keeps in every configuration."""
    usual = PretrainedConfig().to_dict()
    return {key: value for key, value in config.to_dict().items() if key not in usual and not key.startswith("_")}
