"""What a model and its training will take, computed without making any weight: parameters, tokens, memory.

Models are built on PyTorch's meta device, where tensors have shapes and no data, so that a 7B model costs a second.
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

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from weft.dialects import Modality, get_dialect
from weft.generation.configuration import load_config
from weft.generation.loading import load_processor
from weft.models import published
from weft.models.config import WeftConfig
from weft.models.encoders import ImageKind, SoundKind, image_kind, sound_kind
from weft.models.encoders.tiles import largest
from weft.models.loss import chunk_rows
from weft.models.modeling import WeftForConditionalGeneration
from weft.models.plan import plan
from weft.models.processing import WeftProcessor
from weft.training.counting import count_trained
from weft.training.parts import dialect_tokens
from weft.training.recipe import PART_NAMES, LanguageSource, ModelSpec, Recipe, Stage, TowerSource


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
    image: dict[str, Any] = field(default_factory=dict)  # size, tokens at most (start and end included)
    sound: dict[str, Any] = field(default_factory=dict)  # tokens of 1 s and of a window, window_seconds
    cache_per_token: int = 0  # bytes of the key-value cache in bf16
    lora_for_media: bool = False

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "parameters": self.parameters}


def planned(spec: ModelSpec, *, outline: bool = False) -> tuple[WeftConfig, WeftProcessor]:
    """The configuration and processor of a recipe's model; no weights are read.

    With ``outline``, sources listed in `models.published` are not looked up: their shapes are known. The processor then
    counts tokens, but has a tokenizer of weft's in the place of the source's, so it is not for rendering samples.
    """
    if spec.base is not None:
        config = load_config(spec.base)
        return _switched(config, spec), load_processor(spec.base)
    parts = {name: asked(getattr(spec, name)) for name in ("vision", "audio", "language")}
    if outline:
        form = get_dialect(spec.dialect.name, spec.dialect.switches)
        senses: dict[str, Modality] = {"vision": "image", "audio": "audio"}
        wanted = form.all_tokens(*(modality for part, modality in senses.items() if parts[part]))
        parts = {name: published.outline(name, part, wanted) for name, part in parts.items()}
    vision, audio, language = (parts[name] or None for name in ("vision", "audio", "language"))
    config, processor = plan(vision=vision, audio=audio, language=language, dialect=spec.dialect)
    return _switched(config, spec), processor


def _switched(config: WeftConfig, spec: ModelSpec) -> WeftConfig:
    if spec.lora_for_media is not None:
        config.lora_for_media = spec.lora_for_media
    return config


def asked(source: TowerSource | LanguageSource | None) -> dict[str, Any]:
    """What a recipe says of a part, without what it leaves open."""
    return {k: v for k, v in source.model_dump().items() if v is not None} if source is not None else {}


def weightless(config: WeftConfig) -> WeftForConditionalGeneration:
    """The model on the meta device."""
    with torch.device("meta"):
        return WeftForConditionalGeneration(config)


def model_size(config: WeftConfig, processor: WeftProcessor | None, model: Any = None) -> ModelSize:
    """``processor`` None (a model without a tokenizer): media are counted without start and end tokens.

    ``model``: `weightless` of the configuration, where it is at hand.
    """
    model, text = model or weightless(config), config.text_config
    parts = [
        PartSize(name, sum(p.numel() for module in model.part(name) for p in module.parameters()), _what(name, config))
        for name in PART_NAMES
        if model.part(name)
    ]
    vision, audio = config.vision_section, config.audio_section
    image = {}
    if vision is not None:
        seen = image_kind(vision)
        image = {"size": list(vision.size), "tokens": seen.tokens(*largest(vision)) + _around(processor, "image")}
    sound: dict[str, Any] = {}
    if audio is not None:
        edges, heard = _around(processor, "audio"), sound_kind(audio)

        def tokens(seconds: float) -> int:
            return sum(w.tokens + edges for w in heard.windows(round(seconds * audio.sample_rate)))

        sound = {
            "window_seconds": audio.window_seconds,
            "tokens_window": tokens(audio.window_seconds),
            "tokens_second": tokens(min(1.0, audio.window_seconds)),
        }
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    cache = 2 * text.num_hidden_layers * heads * head * 2
    apart = config.lora_for_media
    return ModelSize((config.dialect or {})["name"], parts, text.vocab_size, image, sound, cache, apart)


def stage_size(
    config: WeftConfig, stage: Stage, recipe: Recipe, processor: WeftProcessor | None = None, model: Any = None
) -> StageSize:
    """What a stage trains, and the memory of its processes.

    ``processor``: LoRA on the language model also trains the rows of the dialect's tokens, which it knows. ``model``:
    `weightless` of the configuration, where it is at hand; nothing is done to it.
    """
    model = model or weightless(config)
    counted = count_trained(model, stage, tokens=dialect_tokens(processor) if processor is not None else ())
    trained, how = {c.name: c.trained for c in counted}, {c.name: c.how for c in counted}
    everything = sum(p.numel() for p in model.parameters()) + sum(c.added for c in counted)
    learning = sum(trained.values())
    added = sum(c.added for c in counted if c.name == "language")
    copies, gathered, apart = _copies(model, stage, recipe, added)
    activations, inner = _activations(config, stage, recipe, trained)
    return StageSize(
        stage.name,
        stage.steps,
        trained,
        how,
        Memory(4 * everything, 4 * learning, 8 * learning, copies, activations, gathered, (*apart, inner)),
    )


def _copies(
    model: WeftForConditionalGeneration, stage: Stage, recipe: Recipe, added: int
) -> tuple[int, int, tuple[int, int]]:
    """Bytes of the language model's weights in bfloat16: on a device that holds all of it, and on one that shares; and
    what several divide that compute layers together, of what they hold and of what they gather."""
    language = model.language_model
    tables = {
        id(m.weight): m.weight.numel() for m in (language.get_input_embeddings(), language.get_output_embeddings())
    }
    words, whole = sum(tables.values()), sum(p.numel() for p in language.parameters()) + added
    layer = (whole - words) // model.config.text_config.num_hidden_layers
    size = 2 if recipe.precision == "bfloat16" else 4
    training = stage.parts.get("language")
    again = stage.checkpoint_activations and (training is None or training.train != "full")
    # In float32 there is nothing to copy.
    copies = 0 if size == 4 else size * (layer + words if again else whole)
    learned = training is not None and training.train == "full"
    times, each = size * (3 if learned else 2), 8 if learned else 4
    head = words - language.get_input_embeddings().weight.numel()  # none where it is tied
    held = (16 if learned else 4) * (whole - words - added + head)
    return copies, times * layer + each * words, (held, times * layer + each * head)


def _activations(config: WeftConfig, stage: Stage, recipe: Recipe, trained: dict[str, int]) -> tuple[int, int]:
    """Bytes that the forward pass keeps for the backward pass of one micro-step; of them, what is made by heads and
    inside MLPs."""
    half = recipe.precision == "bfloat16"
    tokens = stage.row_tokens * stage.rows
    text = config.text_config
    width, inner = text.hidden_size, getattr(text, "intermediate_size", 4 * text.hidden_size)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    keys = heads * (getattr(text, "head_dim", None) or width // text.num_attention_heads)
    full = layer_bytes(width, keys, inner, learned="language" in trained, half=half)
    inside = (2 if half else 4) * (2 * width + 2 * keys + (4 if "language" in trained else 3) * inner)
    layers = text.num_hidden_layers
    # With checkpointing, each layer's input is kept and one layer at a time is worked out again.
    kept = layers * 4 * width + full if stage.checkpoint_activations else layers * full
    found = tokens * kept
    found += (
        min(tokens, chunk_rows(text.vocab_size)) * text.vocab_size * (10 if half else 8)
    )  # logits as computed, in float32, and gradients
    for part, kind in _kinds(config).items():
        if part in trained:
            found += _encoder_activations(kind, tokens, half, stage.checkpoint_activations)
    return found, tokens * inside * (1 if stage.checkpoint_activations else layers)


def _kinds(config: WeftConfig) -> dict[str, ImageKind | SoundKind]:
    """The kinds of the model's encoders by the part they are."""
    vision, audio = config.vision_section, config.audio_section
    seen = {"vision": image_kind(vision)} if vision is not None else {}
    return {**seen, **({"audio": sound_kind(audio)} if audio is not None else {})}


def layer_bytes(width: int, keys: int, inner: int, *, learned: bool, half: bool) -> int:
    """Bytes a token that one layer of a Llama-like model keeps; ``keys``: width of the keys, all heads together.

    Norms keep their input and (where they learn) their result in float32; attention keeps queries, keys, values and its
    result, the gated MLP both halves and their product. What the linear layers read is kept where they learn, and
    autocast makes a bf16 copy of it, one for queries, keys and values and one for both halves.
    """
    c = 2 if half else 4
    kept = 8 * width + c * (2 * width + 2 * keys) + c * 3 * inner
    return kept + (8 * width + c * (2 * width + inner) if learned else 0)


def _shape(kind: ImageKind | SoundKind) -> tuple[int, int, int] | None:
    """Width, layers and inner width of an encoder that is a transformer; None for others."""
    c = kind.config
    inner = getattr(c, "intermediate_size", None) or getattr(c, "encoder_ffn_dim", None)
    return None if inner is None or getattr(kind, "staged", False) else (c.hidden_size, c.num_hidden_layers, inner)


def _encoder_activations(kind: ImageKind | SoundKind, tokens: int, half: bool, again: bool) -> int:
    """As if every row were full of this medium. Encoders of other shapes than a transformer count nothing."""
    if (shape := _shape(kind)) is None:
        return 0
    width, layers, inner = shape
    c = 2 if half else 4
    layer = 12 * width + c * (5 * width + 2 * inner)
    connector = kind.section.connector
    merge = kind.pooled * (connector.group if connector.kind != "queries" else 1)
    return tokens * merge * (4 * width * layers + layer if again else layers * layer)


def _around(processor: WeftProcessor | None, modality: Modality) -> int:
    """Tokens written before and after a medium."""
    return len(processor.dialect.edges(modality)) if processor is not None else 0


def _what(name: str, config: WeftConfig) -> str:
    """A part in a few words."""
    if name == "language":
        text = config.text_config
        return f"{text.model_type}, {text.hidden_size} wide, {text.num_hidden_layers} layers"
    kind = _kinds(config)[name.removesuffix("_connector")]
    if name.endswith("connector"):
        c = kind.section.connector
        return f"{c.queries} queries" if c.kind == "queries" else f"{c.kind}, {c.group} into one"
    shape = _shape(kind)
    return kind.section.kind + ("" if shape is None else f", {shape[0]} wide, {shape[1]} layers")
