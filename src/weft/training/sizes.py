"""What a model and its training will take, computed without making any weight: parameters, tokens, memory.

Models are built on PyTorch's meta device, where tensors have shapes and no data, so that a 7B model costs a second.
Memory of weights, gradients and optimizer is exact; that of activations is an estimate from the saved tensors of a
Llama-like layer under bf16 autocast with fused attention, for rows that are filled to the brim.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from weft.models.compose import plan
from weft.models.config import WeftConfig
from weft.models.layout import audio_windows, image_tokens
from weft.models.modeling import WeftForConditionalGeneration
from weft.models.processing import WeftProcessor
from weft.training.parts import apply_parts
from weft.training.recipe import PART_NAMES, ModelSpec, Recipe, Stage


@dataclass(frozen=True)
class PartSize:
    name: str
    parameters: int
    what: str


@dataclass(frozen=True)
class Memory:
    """Bytes on one device that holds all of it."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


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
    image: dict[str, Any] = field(default_factory=dict)  # size, tokens (start and end tokens included)
    sound: dict[str, Any] = field(default_factory=dict)  # tokens of 1 s and of a window, window_seconds
    cache_per_token: int = 0  # bytes of the key-value cache in bf16

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "parameters": self.parameters}


def planned(spec: ModelSpec) -> tuple[WeftConfig, WeftProcessor]:
    """The configuration and processor of a recipe's model; no weights are read."""
    if spec.base is not None:
        return WeftConfig.from_pretrained(spec.base), WeftProcessor.from_pretrained(spec.base)
    return plan(vision=spec.vision, audio=spec.audio, language=spec.language, dialect=spec.dialect)


def weightless(config: WeftConfig) -> WeftForConditionalGeneration:
    """The model on the meta device."""
    with torch.device("meta"):
        return WeftForConditionalGeneration(config)


def model_size(config: WeftConfig, processor: WeftProcessor | None) -> ModelSize:
    """``processor`` None (a model without a tokenizer): media are counted without start and end tokens."""
    model, text = weightless(config), config.text_config
    parts = [
        PartSize(name, sum(p.numel() for module in model.part(name) for p in module.parameters()), _what(name, config))
        for name in PART_NAMES
        if model.part(name)
    ]
    vision, audio = config.vision_section, config.audio_section
    image = {}
    if vision is not None:
        image = {"size": list(vision.size), "tokens": image_tokens(vision) + _around(processor, "image")}
    sound: dict[str, Any] = {}
    if audio is not None:
        edges = _around(processor, "audio")

        def tokens(seconds: float) -> int:
            return sum(w.tokens + edges for w in audio_windows(audio, round(seconds * audio.sample_rate)))

        sound = {
            "window_seconds": audio.window_seconds,
            "tokens_window": tokens(audio.window_seconds),
            "tokens_second": tokens(min(1.0, audio.window_seconds)),
        }
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    cache = 2 * text.num_hidden_layers * heads * head * 2
    return ModelSize(config.dialect_section.name, parts, text.vocab_size, image, sound, cache)


def stage_size(config: WeftConfig, stage: Stage, recipe: Recipe) -> StageSize:
    """What a stage trains, and the memory of one process that holds the whole model."""
    model: Any = weightless(config)
    parts = apply_parts(model, stage)
    trained = {p.name: sum(x.numel() for x in p.parameters.values()) for p in parts if p.parameters}
    how = {
        p.name: f"LoRA r={p.training.lora.r}" if p.training.train == "lora" else "full" for p in parts if p.parameters
    }
    everything, learning = sum(p.numel() for p in model.parameters()), sum(trained.values())
    language = sum(p.numel() for module in model.part("language") for p in module.parameters())
    return StageSize(
        stage.name,
        stage.steps,
        trained,
        how,
        Memory(4 * everything, 4 * learning, 8 * learning, _activations(config, stage, recipe, trained, language)),
    )


def _activations(config: WeftConfig, stage: Stage, recipe: Recipe, trained: dict[str, int], language: int) -> int:
    """Bytes that the forward pass keeps for the backward pass of one micro-step."""
    half = recipe.precision == "bfloat16"
    tokens = stage.row_tokens * stage.rows
    text = config.text_config
    width, inner = text.hidden_size, getattr(text, "intermediate_size", 4 * text.hidden_size)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    keys = heads * (getattr(text, "head_dim", None) or width // text.num_attention_heads)
    full = layer_bytes(width, keys, inner, learned="language" in trained, half=half)
    layers = text.num_hidden_layers
    # With checkpointing, each layer's input is kept and one layer at a time is worked out again.
    kept = layers * 4 * width + full if stage.checkpoint_activations else layers * full
    found = tokens * kept
    if half:  # autocast keeps a bf16 copy of every weight that a gradient flows through
        found += 2 * language
    for part, section in (("vision", config.vision_section), ("audio", config.audio_section)):
        if part in trained and section is not None:
            found += _encoder_activations(part, section, tokens, half)
    return found


def layer_bytes(width: int, keys: int, inner: int, *, learned: bool, half: bool) -> int:
    """Bytes a token that one layer of a Llama-like model keeps; ``keys``: width of the keys, all heads together.

    Norms keep their input and (where they learn) their result in float32; attention keeps queries, keys, values and its
    result, the gated MLP both halves and their product. What the linear layers read is kept where they learn, and
    autocast makes a bf16 copy of it for each of the five that read a norm's result.
    """
    c = 2 if half else 4
    kept = 8 * width + c * (2 * width + 2 * keys) + c * 3 * inner
    return kept + (8 * width + c * ((5 if half else 2) * width + inner) if learned else 0)


def _encoder_activations(part: str, section: Any, tokens: int, half: bool) -> int:
    """As if every row were full of this medium. Encoders of other shapes than a transformer count nothing."""
    fields = section.config
    width = fields.get("d_model") or fields.get("hidden_size")
    layers = fields.get("encoder_layers") or fields.get("num_hidden_layers")
    if not width or not layers:
        return 0
    inner = fields.get("encoder_ffn_dim") or fields.get("intermediate_size") or 4 * width
    c = 2 if half else 4
    layer = 12 * width + c * (5 * width + 2 * inner)
    merge = section.connector.merge if section.connector.kind != "queries" else 1
    return tokens * merge * layers * layer


def _around(processor: WeftProcessor | None, modality: Any) -> int:
    """Tokens written before and after a medium."""
    if processor is None or modality not in processor.dialect.modalities:
        return 0
    return sum(token is not None for token in processor.dialect.slot_tokens(modality)[1:])


def _what(name: str, config: WeftConfig) -> str:
    """A part in a few words."""
    section = config.vision_section if name.startswith("vision") else config.audio_section
    if name == "language":
        text = config.text_config
        return f"{text.model_type}, {text.hidden_size} wide, {text.num_hidden_layers} layers"
    assert section is not None
    if name.endswith("connector"):
        c = section.connector
        return f"{c.queries} queries" if c.kind == "queries" else f"{c.kind}, {c.merge} into one"
    fields = section.config
    width = fields.get("d_model") or fields.get("hidden_size")
    layers = fields.get("encoder_layers") or fields.get("num_hidden_layers")
    sizes = [f"{width} wide"] * bool(width) + [f"{layers} layers"] * bool(layers)
    return ", ".join([section.kind, *sizes])
