"""The weft folder that every import ends in: configuration, weights, tokenizer, processor, generation settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, GenerationConfig

from weft.formats.checkpoints import Output, Tensors, new_folder, stored_dtype, write_weights
from weft.formats.tokenizers import save_tokenizer
from weft.models import doors
from weft.models.config import WeftConfig


class Writing(TypedDict, total=False):
    """What every import is told about how it writes."""

    force: bool  # replace the model folder that is there
    progress: Callable[[int, int], None] | None  # told the bytes written and in all


@dataclass(frozen=True)
class Account:
    """What became of one input: how many tensors were used, and which the released system leaves unused too."""

    label: str
    used: int
    surplus: tuple[str, ...] = ()

    @classmethod
    def of(cls, tensors: Tensors) -> Account:
        return cls(tensors.label, len(tensors.used), tuple(sorted(tensors.surplus)))


@dataclass(frozen=True)
class Imported:
    """What was written of which inputs, ``bytes`` in all."""

    out: Path
    sources: Sequence[Account]
    outputs: Sequence[Output]
    bytes: int
    dtype: torch.dtype
    notes: Sequence[str] = ()

    @property
    def parameters(self) -> int:
        return sum(math.prod(output.shape) for output in self.outputs)


def write_folder(
    out: Path,
    config: WeftConfig,
    outputs: Sequence[Output],
    inputs: Sequence[Tensors],
    tokenizer: Tokenizer | None,
    names: dict[str, str],
    generation: dict[str, Any],
    notes: Sequence[str] = (),
    adapter: Callable[[Path], None] | None = None,
    *,
    dtype: str = "auto",
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Writes ``out`` whole or not at all; the language model is the first of the ``inputs``.

    ``names`` are the tokenizer's bos, eos, unk and pad tokens, which generation also begins and ends with unless
    ``generation`` says otherwise. ``adapter`` writes an adapter's files into the folder it is given: ``out`` is then
    that adapter, with the model as its ``base/`` inside.
    """
    kind = stored_dtype(dtype, inputs[0])
    ids = {f"{key}_token_id": getattr(config.text_config, f"{key}_token_id", None) for key in ("bos", "eos", "pad")}
    if tokenizer is not None:
        ids |= {f"{key}_token_id": tokenizer.token_to_id(token) for key, token in names.items() if key != "unk"}
    with new_folder(out, force) as whole:
        folder = whole if adapter is None else whole / "base"
        folder.mkdir(exist_ok=True)
        written = write_weights(outputs, folder, kind, progress)  # without config.json it is no model folder yet
        config.architectures = ["WeftForConditionalGeneration"]
        config.dtype = kind
        config.save_pretrained(folder)
        # Greedy, as in all of the published evaluations; the systems' demos sample.
        GenerationConfig(**{"do_sample": False, **ids, **generation}).save_pretrained(folder)
        if tokenizer is not None:
            length = getattr(config.text_config, "max_position_embeddings", None)
            save_tokenizer(tokenizer, folder, max_length=length, **names)
            from weft.models.processing import WeftProcessor

            processor = WeftProcessor(doors.load(AutoTokenizer, folder), config)
            for place in {folder, whole}:
                processor.save_pretrained(place)
        if adapter is not None:
            adapter(whole)
            config.save_pretrained(whole)  # by which transformers leaves the folder to weft
    return Imported(out, [Account.of(tensors) for tensors in inputs], outputs, written, kind, notes)
