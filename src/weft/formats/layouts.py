"""A weft folder in the layout of another program's class: what the layouts share.

The class's own names and shapes, on the meta device, decide what is written; a tensor of the model without a place
there, or a place without a tensor, stops the export. Tensors are copied one at a time, and the folder is whole or not
there at all.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weft.conversation import WeftError
from weft.files import write_json
from weft.formats.checkpoints import (
    CheckpointError,
    Output,
    Shape,
    Tensors,
    check_out,
    check_weft,
    new_folder,
    read_folder,
    stored_dtype,
    write_weights,
)
from weft.formats.folder import Account, Imported
from weft.formats.mapping import How, Place, Rule, by_ours, places, sides
from weft.models import doors
from weft.models.config import WeftConfig

TABLES = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")
# What a language model's class computes and another program's head does not.
ON_LOGITS = ("final_logit_softcapping", "logits_scaling", "logit_scale")


class ExportError(WeftError):
    """A model that another layout has no place for. The message says what does not fit."""


@dataclass(frozen=True)
class Exporting:
    """A weft folder opened for export."""

    folder: Path
    config: WeftConfig
    weights: Tensors
    processor: Any  # None where the folder has none


@dataclass(frozen=True)
class Layout:
    """One model as another program's class has it."""

    target: Any  # the class
    config: Any  # the class's configuration
    rules: Sequence[Rule]  # weft's names to those on disk, which come first, and to those of the class
    made: Mapping[str, Output] = field(default_factory=dict)  # not copied, by their name on disk
    folded: Set[str] = frozenset()  # tensors of weft's that went into those
    texts: Mapping[str, Any] = field(default_factory=dict)  # the processor's: JSON, or text
    notes: Sequence[str] = ()


def open_model(model: str) -> Exporting:
    """The folder (or hub name) ``model``; an adapter is an error, as other layouts hold merged weights."""
    folder = Path(doors.place(model))
    found = doors.resolve(model)
    if found == "built-in":
        raise ExportError(f"{model}: its encoders are weft's own, and no other layout has a place for them")
    if found == "hub":
        folder = _downloaded(model)
    if (folder / "adapter_config.json").is_file():
        raise ExportError(f"{model} is an adapter, and this layout holds whole models: weft merge {model} -o DIR first")
    check_weft(folder, model)
    from weft.models.processing import WeftProcessor

    processor = doors.load(WeftProcessor, folder) if (folder / "processor_config.json").is_file() else None
    return Exporting(folder, doors.load(WeftConfig, folder), read_folder(folder, pickles=False), processor)


def _downloaded(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ExportError(f"{name}: neither a folder nor a hub name that can be read") from error


def export(
    name: str,
    out: Path,
    fit: Callable[[Exporting], Layout],
    dtype: str = "auto",
    *,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Writes the weft folder ``name`` as ``out``, in the layout that ``fit`` gives it, whole or not at all.

    Raises `ExportError` where the layout cannot hold the model.
    """
    check_out(out, force)
    model = open_model(name)
    layout = fit(model)
    outputs, notes, kind = plan(model, layout), list(layout.notes), stored_dtype(dtype, model.weights)
    with new_folder(out, force) as folder:
        written = write_weights(outputs, folder, kind, progress)
        layout.config.architectures, layout.config.dtype = [layout.target.__name__], kind
        layout.config.save_pretrained(folder)
        if (model.folder / "generation_config.json").is_file():
            shutil.copyfile(model.folder / "generation_config.json", folder / "generation_config.json")
        if model.processor is not None:
            _tokenizer(model, folder)
            for file, content in layout.texts.items():
                text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
                (folder / file).write_text(text, encoding="utf-8")
        else:
            notes.append(f"{model.folder} has no tokenizer, so neither has {out}: it takes token ids only")
    return Imported(out, [Account(str(model.folder), len(outputs))], outputs, written, kind, notes)


def first_misfit(model: Exporting, layout: str, checks: Mapping[str, bool]) -> None:
    """Raises `ExportError` with the first sentence whose condition does not hold."""
    text = model.config.text_config
    also = {f"its language model scales its logits ({n})": not getattr(text, n, None) for n in ON_LOGITS}
    for sentence, fits in {**checks, **also}.items():
        if not fits:
            raise ExportError(f"{model.folder} does not fit {layout}'s layout: {sentence}")


def rows_needed(model: Exporting) -> int:
    """Rows of the embedding table that hold every token: a placeholder of weft's may lie beyond the table.

    Grown tables are filled up to a multiple of 64, as the published conversions are.
    """
    config, rows = model.config, model.config.text_config.vocab_size
    ids = [i for i in (config.image_token_id, config.audio_token_id) if i is not None]
    if model.processor is not None:
        ids.append(len(model.processor.tokenizer) - 1)
    return rows if max(ids) < rows else -(-(max(ids) + 1) // 64) * 64


def plan(model: Exporting, layout: Layout) -> list[Output]:
    """Every tensor of the layout's class; raises `ExportError` where names or shapes differ."""
    with torch.device("meta"):
        shapes = {n: tuple(v.shape) for n, v in layout.target(layout.config).state_dict().items()}
    if layout.config.text_config.tie_word_embeddings:
        shapes.pop("lm_head.weight")
    weights = grown(model.weights, layout.config.text_config.vocab_size)
    weights.used |= layout.folded | {n for n in weights.shapes if n.endswith("inv_freq")}
    weights.used |= {TABLES[1]} if model.config.text_config.tie_word_embeddings else set()
    outputs, problems = write(shapes, layout.rules, weights, layout.made)
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise ExportError(f"{model.folder} does not fit {layout.target.__name__}: {problems[0]}{more}")
    return outputs


def by_theirs(rules: Iterable[Rule], name: str) -> Place | None:
    """The rule that others' ``name`` falls under: of several, the one that leaves least to its rest."""
    found = [p for p in places(rules, name, lambda rule: sides(rule.theirs)) if p.ours]
    return max(found, key=lambda p: len(re.sub("[#*]", "", sides(p.rule.theirs)[p.at])), default=None)


def write(
    wanted: Mapping[str, Shape], rules: Sequence[Rule], weights: Tensors, made: Mapping[str, Output] | None = None
) -> tuple[list[Output], list[str]]:
    """Weft's ``weights`` as others have them, and what does not fit, in words.

    ``wanted``: the names and shapes of their class. They are written under the first name that a rule gives them.
    ``made``: outputs that stand for a tensor under such a name.
    """
    outputs, problems = [], []
    for name, shape in wanted.items():
        place = by_theirs(rules, name)
        if place is None:
            problems.append(f"{name} has no counterpart")
            continue
        disk, how = by_ours(rules, place.ours[0])[0].theirs[place.at], place.rule.how
        held = [weights.shapes.get(n) for n in place.ours]
        weights.used |= set(place.ours)
        if made and disk in made:
            outputs.append(made[disk])
        elif None in held or how.shapes(held)[place.at] not in (shape, None):  # type: ignore[arg-type]
            lost = held[0] if len(held) == 1 else held
            problems.append(f"{place.ours[0]} {lost or 'missing'} for {shape}")
        else:
            make = partial(_written, how, weights, place)
            outputs.append(Output(disk, shape, make))
    problems += [f"no place for {name}" for name in weights.shapes if name not in weights.used]
    return outputs, problems


def _written(how: How, weights: Tensors, place: Place) -> Tensor:
    return how.write([weights[name] for name in place.ours])[place.at]


def grown(weights: Tensors, rows: int) -> Tensors:
    """With tables of up to ``rows`` rows: the mean of their own, so that a new token is never the likeliest."""

    def read(name: str) -> Tensor:
        value = weights[name]
        if name not in TABLES:
            return value
        mean_1W = value.float().mean(0, keepdim=True).to(value.dtype)
        return torch.cat([value, mean_1W.expand(rows - len(value), -1)])

    larger = {name: (rows, *weights.shapes[name][1:]) for name in TABLES if name in weights.shapes}
    return replace(weights, shapes=weights.shapes | larger, read=read, used=set())


def template(name: str, **parts: str) -> str:
    """The chat template of a dialect for programs without weft, each ``@PART@`` of it filled in."""
    text = (files("weft.formats") / "templates" / f"{name}.jinja").read_text("utf-8")
    for part, value in parts.items():
        text = text.replace(f"@{part}@", value)
    return text


def with_template(texts: dict[str, Any], written: str | None, model: Exporting, notes: list[str]) -> dict[str, Any]:
    """The processor's files and the chat template, or a note where the dialect has none."""
    if written is not None:
        return texts | {"chat_template.jinja": written}
    notes.append(f"no chat template is written: the dialect {model.processor.dialect.name} has none")
    return texts


def _tokenizer(model: Exporting, folder: Path) -> None:
    """The tokenizer's files; weft's own processor, which other programs do not know, is not named in them."""
    names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    for name in (*names, "tokenizer.model", "vocab.json", "merges.txt"):
        if (model.folder / name).is_file():
            shutil.copyfile(model.folder / name, folder / name)
    file = folder / "tokenizer_config.json"
    if not (folder / "tokenizer.json").is_file() or not file.is_file():
        raise CheckpointError(f"{model.folder}: has no tokenizer.json, which other programs read")
    settings = json.loads(file.read_text("utf-8"))
    drop = ("processor_class", "chat_template", "backend")
    settings = {key: value for key, value in settings.items() if key not in drop and value is not None}
    # Every version of transformers knows this name; the newer ones write another for the same class.
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_json(file, settings, 2)
