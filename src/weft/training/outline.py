"""What the sizes of a model and of its training are counted from: names and numbers, and neither torch nor a model.

An `Outline` is made of a model without weights (`training.sizes`). Those of the built-in recipes at their published
sizes are kept in ``outlines.json``, for to import what makes a model takes three times as long as all else of
``weft show``; `benchmarks/outlines.py` writes them, and a test makes each anew. A recipe whose model is changed in
any value is not among them.

What the memory of a training process is made of, in bytes (P parameters in all, T trained ones, n devices):

- weights 4 P (float32), gradients 4 T, optimizer 8 T (AdamW's two moments): exact; sharded over n devices, each / n.
- copies: autocast's bfloat16 version of each weight that a gradient flows through, 2 bytes each of the language
  model's, kept for the backward pass. With activation checkpointing a frozen layer's are made anew: only one layer's.
  Sharded, a device instead gathers two layers (the one at work, the next on its way), 2 bytes each, and the
  embeddings, 4 each; and has one layer's gradients and theirs, where they train, until they are added up.
- activations: tokens of a micro-step times `layer_bytes` times layers (with checkpointing: each layer's input and one
  whole layer), the trained encoders' likewise, and the logits of at most `chunk_rows` with their gradients. An
  estimate, from the saved tensors of a Llama-like layer with fused attention, for full rows; each device has rows of
  its own.
- devices that compute layers together (`parallel.tensor`) have one row between them, and divide the weights of layers
  and of a head that is not tied, and of activations what heads and MLPs make; inputs of layers each of them has, and
  LoRA is counted as if each had it whole.

Not counted: the allocator's own waste (some percent), and what a frozen encoder uses while it runs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from weft.models.own import parts_folder
from weft.training.recipe import PART_NAMES, Lora, ModelSpec, PartTraining, Recipe, Stage

KEPT = Path(__file__).with_name("outlines.json")


class Layer(NamedTuple):
    """A module of a part. ``weights``: numbers of its own ``weight`` (0: it has none), ``out`` rows of them."""

    name: str
    linear: bool  # LoRA on all linear layers adapts it
    out: int
    weights: int


@dataclass(frozen=True)
class Part:
    name: str
    parameters: int
    learnable: int  # all but constants
    what: str
    layers: frozenset[Layer] = frozenset()


class Tower(NamedTuple):
    """An encoder that is a transformer. ``merge``: its features that become one embedding."""

    width: int
    layers: int
    inner: int
    merge: int


@dataclass(frozen=True)
class Text:
    """The language model. ``table``: numbers of its embedding; ``words``: and those of a head that is not tied."""

    width: int
    layers: int
    inner: int
    keys: int  # width of the keys, all heads together
    vocabulary: int
    table: int
    words: int
    rows: int  # numbers of one token in all tables


@dataclass(frozen=True)
class Outline:
    dialect: str
    tokens: int  # the dialect's own
    parts: tuple[Part, ...]
    text: Text
    chunk_rows: int  # rows whose logits are held at once
    towers: dict[str, Tower]  # by the part they are
    image: dict[str, Any] = field(default_factory=dict)  # size, tokens at most (start and end included)
    sound: dict[str, Any] = field(default_factory=dict)  # tokens of 1 s and of a window, window_seconds
    lora_for_media: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As JSON: layers that differ in one number of their names alone are one entry, with how many there are."""
        return {**asdict(self), "parts": [{**asdict(p), "layers": _folded(p.layers)} for p in self.parts]}

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Outline:
        parts = tuple(Part(**{**p, "layers": frozenset(_unfolded(p["layers"]))}) for p in told["parts"])
        towers = {name: Tower(*tower) for name, tower in told["towers"].items()}
        return cls(**{**told, "parts": parts, "towers": towers, "text": Text(**told["text"])})


@dataclass(frozen=True)
class PartSize:
    name: str
    parameters: int
    what: str


@dataclass(frozen=True)
class Memory:
    """Bytes of one process that holds all of the model."""

    weights: int
    gradients: int
    optimizer: int
    copies: int  # of weights, in the type that is computed in
    activations: int
    gathered: int = 0  # instead of copies, where the model is sharded: what a device holds of the others' weights
    # Of weights, gradients and moments, of what is gathered and of activations: what `parallel.tensor` devices divide.
    divided: tuple[int, int, int] = (0, 0, 0)

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.copies + self.activations

    def each(self, devices: int, tensor: int = 1) -> int:
        """Bytes on each of several devices that the model, its gradients and its optimizer are sharded over; of them
        ``tensor`` each compute layers together."""
        if devices == 1:
            return self.total
        held, gathered, activations = (size - size // tensor for size in self.divided)
        shard = -(-(self.weights + self.gradients + self.optimizer - held) * tensor // devices)
        return shard + self.gathered - gathered + self.activations - activations


@dataclass(frozen=True)
class StageSize:
    name: str
    steps: int
    trained: dict[str, int]  # parameters by part
    how: dict[str, str]  # full, or LoRA with its rank
    memory: Memory


@dataclass(frozen=True)
class ModelSize:
    dialect: str
    parts: list[PartSize]
    vocabulary: int
    image: dict[str, Any] = field(default_factory=dict)
    sound: dict[str, Any] = field(default_factory=dict)
    cache_per_token: int = 0  # bytes of the key-value cache in bf16
    lora_for_media: bool = False

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "parameters": self.parameters}


@dataclass(frozen=True)
class Counted:
    """What a stage trains of a part."""

    name: str
    trained: int
    added: int  # of these, what is not in the model yet
    how: str  # full, or LoRA with its rank


# -- kept outlines -----------------------------------------------------------------------------------------------------


def key(model: ModelSpec) -> str:
    """What an outline is kept under: another value anywhere in the model is another key, wherever weft's parts lie."""
    told = json.dumps(model.model_dump(mode="json"), sort_keys=True).replace(json.dumps(str(parts_folder()))[1:-1], "")
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def kept(model: ModelSpec) -> Outline | None:
    """The outline of a built-in recipe's model; None where it is another."""
    told = json.loads(KEPT.read_text("utf-8")).get(key(model))
    return None if told is None else Outline.from_dict(told)


def _folded(layers: Iterable[Layer]) -> list[list[Any]]:
    groups: dict[tuple[Any, ...], list[int]] = {}
    for layer in sorted(layers):
        before, number, after = (re.split(r"(?<=\.)(\d+)(?=\.|$)", layer.name, maxsplit=1) + [None] * 2)[:3]
        groups.setdefault((before, after, *layer[1:]), []).append(-1 if number is None else int(number))
    found: list[list[Any]] = []
    for (before, after, *rest), numbers in groups.items():
        if sorted(numbers) == list(range(len(numbers))):
            found.append([f"{before}*{after}", *rest, len(numbers)])
        else:
            found += [[before if n < 0 else f"{before}{n}{after}", *rest] for n in sorted(numbers)]
    return found


def _unfolded(layers: Iterable[Sequence[Any]]) -> Iterable[Layer]:
    for name, linear, out, weights, *count in layers:
        names = [name.replace("*", str(i)) for i in range(count[0])] if count else [name]
        yield from (Layer(each, linear, out, weights) for each in names)


# -- sizes -------------------------------------------------------------------------------------------------------------


def model_size(outline: Outline) -> ModelSize:
    parts = [PartSize(part.name, part.parameters, part.what) for part in outline.parts]
    text, image, sound = outline.text, outline.image, outline.sound
    cache = 2 * text.layers * text.keys * 2
    return ModelSize(outline.dialect, parts, text.vocabulary, image, sound, cache, outline.lora_for_media)


def stage_size(outline: Outline, stage: Stage, recipe: Recipe) -> StageSize:
    """What a stage trains, and the memory of its processes."""
    counted = count(outline.parts, stage, outline.tokens * outline.text.rows)
    trained, how = {c.name: c.trained for c in counted}, {c.name: c.how for c in counted}
    everything = sum(part.parameters for part in outline.parts) + sum(c.added for c in counted)
    learning = sum(trained.values())
    added = sum(c.added for c in counted if c.name == "language")
    copies, gathered, apart = _copies(outline, stage, recipe, added)
    activations, inner = _activations(outline, stage, recipe, trained)
    return StageSize(
        stage.name,
        stage.steps,
        trained,
        how,
        Memory(4 * everything, 4 * learning, 8 * learning, copies, activations, gathered, (*apart, inner)),
    )


def count(parts: Iterable[Part], stage: Stage, rows: int) -> list[Counted]:
    """Of each part that trains how much. ``rows``: numbers of the dialect's tokens in all tables, which train beside
    LoRA. Raises WeftError as `parts.apply_parts` does."""
    counted, there = [], {part.name: part for part in parts}
    for name in PART_NAMES:
        training = stage.parts.get(name, PartTraining())
        if training.train == "frozen" or name not in there:
            continue
        trained, added, part = 0, 0, there[name]
        linear = [layer.name for layer in part.layers if layer.linear]
        if training.train == "lora" and (
            targets := training.lora.targets_among([layer.name for layer in part.layers], linear)
        ):
            added = _adapters(part, targets, training.lora)
            added += rows if training.dialect_tokens and name == "language" else 0
        else:
            trained = part.learnable
        if trained + added:
            how = f"LoRA r={training.lora.r}" if training.train == "lora" else "full"
            counted.append(Counted(name, trained + added, added, how))
    return counted


def _adapters(part: Part, targets: Sequence[str], lora: Lora) -> int:
    """Two matrices for each layer: down to the rank, and up from it; for a convolution the first has its shape."""
    return sum(
        lora.r * (layer.weights // layer.out + layer.out)
        for layer in part.layers
        if layer.weights and any(layer.name == t or layer.name.endswith(f".{t}") for t in targets)
    )


def _copies(outline: Outline, stage: Stage, recipe: Recipe, added: int) -> tuple[int, int, tuple[int, int]]:
    """Bytes of the language model's weights in bfloat16: on a device that holds all of it, and on one that shares; and
    what several divide that compute layers together, of what they hold and of what they gather."""
    text = outline.text
    words, whole = text.words, sum(p.parameters for p in outline.parts if p.name == "language") + added
    layer = (whole - words) // text.layers
    size = 2 if recipe.precision == "bfloat16" else 4
    training = stage.parts.get("language")
    again = stage.checkpoint_activations and (training is None or training.train != "full")
    # In float32 there is nothing to copy.
    copies = 0 if size == 4 else size * (layer + words if again else whole)
    learned = training is not None and training.train == "full"
    times, each = size * (3 if learned else 2), 8 if learned else 4
    head = words - text.table  # none where it is tied
    held = (16 if learned else 4) * (whole - words - added + head)
    return copies, times * layer + each * words, (held, times * layer + each * head)


def _activations(outline: Outline, stage: Stage, recipe: Recipe, trained: dict[str, int]) -> tuple[int, int]:
    """Bytes that the forward pass keeps for the backward pass of one micro-step; of them, what is made by heads and
    inside MLPs."""
    half = recipe.precision == "bfloat16"
    tokens, text = stage.row_tokens * stage.rows, outline.text
    width, inner, keys, layers = text.width, text.inner, text.keys, text.layers
    full = layer_bytes(width, keys, inner, learned="language" in trained, half=half)
    inside = (2 if half else 4) * (2 * width + 2 * keys + (4 if "language" in trained else 3) * inner)
    # With checkpointing, each layer's input is kept and one layer at a time is worked out again.
    kept = layers * 4 * width + full if stage.checkpoint_activations else layers * full
    # Logits as computed, in float32, and gradients.
    found = tokens * kept + min(tokens, outline.chunk_rows) * text.vocabulary * (10 if half else 8)
    for part, tower in outline.towers.items():
        if part in trained:
            found += _encoder_activations(tower, tokens, half, stage.checkpoint_activations)
    return found, tokens * inside * (1 if stage.checkpoint_activations else layers)


def layer_bytes(width: int, keys: int, inner: int, *, learned: bool, half: bool) -> int:
    """Bytes a token that one layer of a Llama-like model keeps; ``keys``: width of the keys, all heads together.

    Norms keep their input and (where they learn) their result in float32; attention keeps queries, keys, values and its
    result, the gated MLP both halves and their product. What the linear layers read is kept where they learn, and
    autocast makes a bf16 copy of it, one for queries, keys and values and one for both halves.
    """
    c = 2 if half else 4
    kept = 8 * width + c * (2 * width + 2 * keys) + c * 3 * inner
    return kept + (8 * width + c * (2 * width + inner) if learned else 0)


def _encoder_activations(tower: Tower, tokens: int, half: bool, again: bool) -> int:
    """As if every row were full of this medium."""
    width, layers, inner, merge = tower
    c = 2 if half else 4
    layer = 12 * width + c * (5 * width + 2 * inner)
    return tokens * merge * (4 * width * layers + layer if again else layers * layer)
