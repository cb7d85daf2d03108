"""The weft folder that every import ends in: configuration, weights, tokenizer, processor, generation settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, GenerationConfig

from weft.formats.checkpoints import CheckpointError, Output, Tensors, new_folder, write_weights
from weft.formats.tokenizers import save_tokenizer
from weft.models import doors
from weft.models.config import WeftConfig


@dataclass(frozen=True)
class Source:
    """What became of one input: how many tensors were used, and which the released system leaves unused too."""

    label: str
    used: int
    surplus: tuple[str, ...]


@dataclass(frozen=True)
class Imported:
    out: Path
    sources: tuple[Source, ...]
    tensors: int
    parameters: int
    bytes: int
    dtype: torch.dtype
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def of(
        cls,
        out: Path,
        sources: Iterable[Source],
        outputs: Sequence[Output],
        written: int,
        dtype: torch.dtype,
        notes: Iterable[str] = (),
    ) -> Imported:
        """The account of ``outputs``, ``written`` bytes in all."""
        parameters = sum(math.prod(o.shape) for o in outputs)
        return cls(out, tuple(sources), len(outputs), parameters, written, dtype, tuple(notes))


def write_folder(
    out: Path,
    config: WeftConfig,
    outputs: Sequence[Output],
    *,
    inputs: Sequence[Tensors],
    dtype: torch.dtype,
    tokenizer: Tokenizer | None,
    names: dict[str, str],
    generation: dict[str, Any],
    notes: Sequence[str] = (),
    adapter: Callable[[Path], None] | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Writes ``out`` whole or not at all. ``names`` are the tokenizer's bos, eos, unk and pad tokens.

    ``adapter`` writes an adapter's files into the folder it is given: ``out`` is then that adapter, with the model as
    its ``base/`` inside.
    """
    check_layout(config, outputs)
    with new_folder(out, force) as whole:
        folder = whole if adapter is None else whole / "base"
        folder.mkdir(exist_ok=True)
        written = write_weights(outputs, folder, dtype, progress)  # without config.json it is no model folder yet
        config.architectures = ["WeftForConditionalGeneration"]
        config.dtype = dtype
        config.save_pretrained(folder)
        GenerationConfig(**generation).save_pretrained(folder)
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
    sources = (Source(t.label, len(t.used), tuple(sorted(t.surplus))) for t in inputs)
    return Imported.of(out, sources, outputs, written, dtype, notes)


def check_layout(config: WeftConfig, outputs: Sequence[Output]) -> None:
    """Compares what is about to be written with the model that the configuration makes (on the meta device).

    Raises `CheckpointError` where a name or shape differs, so that a folder that would load with fresh random weights
    in some corner is never written.
    """
    from weft.models.modeling import WeftForConditionalGeneration

    with torch.device("meta"):
        model = WeftForConditionalGeneration(config)
    want = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if config.text_config.tie_word_embeddings:
        want.pop("language_model.lm_head.weight", None)
    got = {o.name: o.shape for o in outputs}
    differ = sorted(n for n in want.keys() | got.keys() if want.get(n) != got.get(n))
    if differ or len(got) != len(outputs):
        first = differ[0] if differ else "a name given twice"
        raise CheckpointError(
            f"the import and the model disagree on {len(differ)} tensors, first {first}: written as {got.get(first)}, "
            f"the model has {want.get(first)}; this is a mistake in weft, please report it"
        )
