"""Adapters in PEFT's format: read beside their base, merged into it, written for other programs.

An adapter folder holds `adapter_config.json` and `adapter_model.safetensors`; its base is named there, or lies inside
as a folder, so that the whole can be moved. Three kinds of tensors are known: LoRA on linear layers, rows of embedding
tables that were trained (``trainable_tokens_delta``), and parts trained in full (``modules_to_save``).
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weft.files import write_json
from weft.formats.checkpoints import (
    Output,
    Tensors,
    check_out,
    copy,
    new_folder,
    read_file,
    read_folder,
    read_json,
    stored_dtype,
    write_weights,
)
from weft.formats.folder import Account, Imported
from weft.formats.lora import Update, with_lora
from weft.models.adapter_folder import write_adapter
from weft.models.adapters import CONFIG, PREFIX, WEIGHTS, AdapterError, adapter_base
from weft.models.doors import place

ROWS = ".token_adapter.trainable_tokens_delta"
LANGUAGE = "language_model."


@dataclass
class Adapter:
    """An adapter opened: its configuration, its tensors by their names in the base, and what they do."""

    label: str
    base: str
    config: dict[str, Any]
    tensors: Tensors
    lora: dict[str, Update] = field(default_factory=dict)  # by the weight that is changed
    rows: dict[str, str] = field(default_factory=dict)  # table -> name of its trained rows
    whole: dict[str, str] = field(default_factory=dict)  # tensor -> name of what replaces it

    def update(self, weight: str, a: str) -> Update:
        path, patterns = weight.removesuffix(".weight"), self.config.get("alpha_pattern") or {}
        own = [value for key, value in patterns.items() if re.fullmatch(rf"(?:.*\.)?(?:{key})", path)]
        alpha, rank = float(own[0] if own else self.config["lora_alpha"]), self.tensors.shapes[a][0]
        scale = alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)
        return Update(self.tensors, a, a.replace(".lora_A.", ".lora_B."), scale)

    def replaced(self, output: Output, among: Collection[int | None] | None = None) -> Output:
        """With whole tensors and rows of tables that the adapter has its own of, or those of them ``among`` some."""
        held, name = self.tensors, output.name

        def make() -> Tensor:
            value = held[self.whole[name]] if name in self.whole else output.make()
            if name not in self.rows:
                return value
            ids = self.ids(name)
            kept = [n for n, row in enumerate(ids) if among is None or row in among]
            rows = torch.tensor([ids[n] for n in kept], dtype=torch.long)
            return value.float().index_copy(0, rows, held[self.rows[name]][kept].float())

        if name not in self.whole:
            return replace(output, make=make) if name in self.rows else output
        return replace(output, make=make, dtype=held.kept_dtype(self.whole[name]))

    def ids(self, name: str) -> list[int]:
        """Which rows of the table ``name`` are its own."""
        table, indices = name.removesuffix(".weight"), self.config["trainable_token_indices"]
        return indices if isinstance(indices, list) else next(i for n, i in indices.items() if table.endswith(n))


def open_adapter(name: str) -> Adapter:
    """The adapter folder ``name``. Raises `AdapterError` where it is none, or of a kind that is not known here."""
    name = place(name)
    if not Path(name).is_dir():
        raise AdapterError(f"there is no folder {name}; give the folder of an adapter")
    if not (Path(name) / CONFIG).is_file():
        raise AdapterError(f"{name} has no adapter in it ({CONFIG}); weft finetune --adapter-only writes one")
    base, _ = adapter_base(name)
    config = read_json(Path(name) / CONFIG)
    odd = [key for key in ("use_dora", "fan_in_fan_out", "megatron_config", "layer_replication") if config.get(key)]
    odd += ["bias"] * (config.get("bias", "none") != "none")
    if odd:
        raise AdapterError(
            f"{name}: an adapter of a kind that weft does not fold in ({odd[0]}); use peft's merge_and_unload"
        )
    adapter = Adapter(name, base, config, read_file(Path(name) / WEIGHTS))
    for held in adapter.tensors.shapes:
        path = held.removeprefix(PREFIX)
        if path.endswith(".lora_A.weight"):
            weight = path.removesuffix("lora_A.weight") + "weight"
            adapter.lora[weight] = adapter.update(weight, held)
        elif path.endswith(ROWS):
            adapter.rows[path.removesuffix(ROWS) + ".weight"] = held
        elif not path.endswith(".lora_B.weight"):
            adapter.whole[path] = held
    lost = [update.b for update in adapter.lora.values() if update.b not in adapter.tensors]
    if lost or (not adapter.lora and not adapter.rows and not adapter.whole):
        raise AdapterError(f"{Path(name) / WEIGHTS}: {lost[0] if lost else 'every tensor'} is missing; copy it again")
    return adapter


def merge(
    name: str,
    out: Path,
    dtype: str = "auto",
    *,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Folds the adapter folder ``name`` into its base and writes ``out``, one tensor at a time, updates in float32."""
    check_out(out, force)
    adapter = open_adapter(name)
    base = Path(adapter.base)
    if not base.is_dir():
        raise AdapterError(f"{name}: its base {adapter.base} is on the hub; download it and put it inside as base/")
    weights = read_folder(base, pickles=False)
    if read_json(base / "config.json").get("tie_word_embeddings"):
        adapter.whole.pop("language_model.lm_head.weight", None)  # the embedding's, under its other name
    strange = sorted({*adapter.lora, *adapter.rows, *adapter.whole} - set(weights.shapes))
    if strange:
        raise AdapterError(f"{name}: changes {strange[0]}, which {base} does not hold; it belongs to another model")
    copies = [adapter.replaced(copy(weights, n, n)) for n in weights.shapes]
    outputs, kind = with_lora(copies, adapter.lora, str(base)), stored_dtype(dtype, weights)
    with new_folder(out, force) as folder:
        written = write_weights(outputs, folder, kind, progress)
        # The adapter's processor is the one that was trained with; from here on it applies to all that is said.
        copy_texts((base, Path(adapter.label)), folder, kind, ("lora_for_media",))
    sources = Account(name, len(adapter.tensors.shapes)), Account(str(base), len(weights.shapes))
    return Imported(out, sources, outputs, written, kind)


def copy_texts(sources: Sequence[Path], folder: Path, dtype: torch.dtype, without: Sequence[str] = ()) -> None:
    """The configuration (but for what is ``without``), processor and tokenizer of model folders, those of later ones
    over those of earlier; the weights beside them are of this type."""
    for source in sources:
        for file in source.iterdir():
            weights = file.name == CONFIG or file.name.endswith(".index.json")
            if file.is_file() and file.suffix in (".json", ".jinja", ".model", ".txt") and not weights:
                shutil.copyfile(file, folder / file.name)
    config = read_json(folder / "config.json") | {"dtype": str(dtype).removeprefix("torch.")}
    config = {key: value for key, value in config.items() if key not in without}
    write_json(folder / "config.json", config, 2)


def export_peft(name: str, out: Path, *, on: str = "model", base: str | None = None, force: bool = False) -> Path:
    """Writes the adapter of the folder ``name`` alone.

    ``on="model"``: for weft's model (``peft.PeftModel.from_pretrained(model, out)``); ``on="language"``: for the
    language model by itself, which must be all that the adapter changes. ``base`` is what it says it belongs to.
    """
    check_out(out, force)
    adapter = open_adapter(name)
    names = {held: held for held in adapter.tensors.shapes}
    config = dict(adapter.config)
    if on == "language":
        others = sorted(n for n in names if not n.startswith(PREFIX + LANGUAGE))
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            raise AdapterError(
                f"{name}: also changes {others[0].removeprefix(PREFIX)}{more}, which no language model has; "
                f"write it for the whole model (--on model)"
            )
        names = {held: PREFIX + held.removeprefix(PREFIX + LANGUAGE) for held in names}
        for key in ("target_modules", "rank_pattern", "alpha_pattern", "trainable_token_indices", "modules_to_save"):
            if key in config:
                config[key] = _stripped(config[key])
    local = Path(adapter.base).is_dir()
    config["base_model_name_or_path"] = base or (str(Path(adapter.base).absolute()) if local else adapter.base)
    with new_folder(out, force) as folder:
        write_adapter(folder, {new: adapter.tensors[old] for old, new in names.items()}, config)
    return out


def _stripped(names: Any) -> Any:
    """Names of modules, as a list or as keys, without the language model's own."""
    if isinstance(names, dict):
        return {key.removeprefix(LANGUAGE): value for key, value in names.items()}
    return [n.removeprefix(LANGUAGE) for n in names] if isinstance(names, list) else names
