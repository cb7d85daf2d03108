"""weft's own model: what it learned, shipped as an adapter, and the pretrained parts that it was learned on.

The adapter is one of PEFT's (`adapters`): connectors whole, LoRA on matrices of parts, rows of tables. Beside it lie
the model's configuration and processor. `put_together` makes a weft folder of it and the parts, in which LoRA of the
language model stays apart where it is for media alone (`lora_for_media`);
`benchmarks/ship_bundled.py` takes the adapter out of a finished model again, whatever stages trained it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from weft.files import whole_folder
from weft.formats.adapters import LANGUAGE, Adapter, copy_texts, open_adapter, with_lora
from weft.formats.checkpoints import CheckpointError, Output, Tensors, read_folder, write_weights
from weft.formats.mapping import wanted_by
from weft.models import doors
from weft.models.adapter_folder import is_gated, write_adapter
from weft.models.adapters import PREFIX
from weft.models.config import WeftConfig

# Where a part's folder has what weft has under each of these; the first that is there.
PLACES = {
    LANGUAGE: ("",),
    "vision.tower.": ("", "backbone."),
    "vision.classes.": ("",),
    "audio.tower.": ("model.encoder.", "model."),
}


class PartTensors:
    """The parts' tensors by weft's names; ``folders``: "language", "vision" and "audio", those that the model has."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.tensors = {name: read_folder(folder) for name, folder in folders.items()}

    def find(self, name: str) -> tuple[Tensors, str] | None:
        """The part that holds weft's tensor ``name``, and its name there; None where it is weft's own."""
        for prefix, places in PLACES.items():
            part = self.tensors.get(prefix.partition("_model")[0].partition(".")[0])
            if part is not None and name.startswith(prefix):
                for place in places:
                    if (theirs := place + name.removeprefix(prefix)) in part:
                        return part, theirs
        return None

    def output(self, name: str, shape: tuple[int, ...], mean: bool = False) -> Output:
        """The tensor as the parts have it, in float32; further rows of a table, and all that is not theirs, zeros. Such
        rows are the ``mean`` of the others, where it says so: of tokens that are never the likeliest."""
        found = self.find(name)
        if found is None:
            return Output(name, shape, lambda: torch.zeros(shape))
        part, theirs = found
        held, kind = part.shapes[theirs], part.dtypes[theirs]
        if held[1:] != shape[1:] or held[:1] > shape[:1]:
            raise CheckpointError(f"{part.label}: {theirs} is {held}, and the model takes {shape}; it is another part")
        if not kind.is_floating_point:
            return Output(name, shape, lambda: part[theirs], kind)
        grown = [0, 0] * (len(shape) - 1) + [0, shape[0] - held[0]] if shape else []
        return Output(
            name, shape, lambda: _grown(part[theirs].float(), shape) if mean else F.pad(part[theirs].float(), grown)
        )


def _grown(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.cat([rows, rows.mean(0).expand(shape[0] - len(rows), -1)])


def put_together(source: Path, parts: Mapping[str, Path], out: Path) -> None:
    """Writes the whole model, in float32, of the shipped folder ``source`` and the folders of its parts."""
    adapter, base = open_adapter(str(source)), PartTensors(parts)
    wanted = wanted_by(doors.load(WeftConfig, source))
    strange = sorted({*adapter.lora, *adapter.rows, *adapter.whole} - set(wanted))
    bare = [name for name in wanted if name not in adapter.whole and base.find(name) is None]
    if strange or bare:
        what = f"changes {strange[0]}, which is not in it" if strange else f"lacks {bare[0]}, which no part has"
        raise CheckpointError(f"{source}: {what}; it belongs to another model, so install weft again")
    apart, lora = is_gated(str(source)), adapter.lora
    outputs = [base.output(name, shape, apart and name in adapter.rows) for name, shape in wanted.items()]
    if apart:  # the language model's stays beside it
        lora = {name: update for name, update in lora.items() if not name.startswith(LANGUAGE)}
        config = doors.load(WeftConfig, source)
        placeholders = {config.image_token_id, *config.audio_ids}
        outputs = [adapter.replaced(output, placeholders) for output in outputs]
    else:
        outputs = [adapter.replaced(output) for output in outputs]
    with whole_folder(out) as folder:
        whole = folder / "base" if apart else folder
        whole.mkdir(exist_ok=True)
        write_weights(with_lora(outputs, lora, "the model"), whole, torch.float32)
        for place in {whole, folder}:
            copy_texts((source,), place, torch.float32)
        if apart:
            _write_language(adapter, folder, placeholders)


def _write_language(adapter: Adapter, folder: Path, placeholders: Collection[int | None]) -> None:
    """The language model's own of an adapter, as one whose base lies inside. Placeholders' rows are the base's alone:
    as rows that train they would move, and a detector tells by them that there is nothing."""
    config = dict(adapter.config)
    tensors = {n: adapter.tensors[n] for n in adapter.tensors.shapes if n.startswith(PREFIX + LANGUAGE)}
    for key in ("rank_pattern", "alpha_pattern", "trainable_token_indices"):
        config[key] = {name: value for name, value in (config[key] or {}).items() if name.startswith(LANGUAGE)}
    for name, held in adapter.rows.items():
        ids = adapter.ids(name)
        kept = [n for n, row in enumerate(ids) if row not in placeholders]
        tensors[held] = tensors[held][kept]
        config["trainable_token_indices"][name.removesuffix(".weight")] = [ids[n] for n in kept]
    config["target_modules"] = [name for name in config["target_modules"] if name.startswith(LANGUAGE)]
    config |= {"modules_to_save": None, "base_model_name_or_path": "base"}
    write_adapter(folder, tensors, config)
