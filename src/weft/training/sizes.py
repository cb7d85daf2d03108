"""What a model and its training will take, computed without making any weight: parameters, tokens, memory.

Models are built on PyTorch's meta device, where tensors have shapes and no data, so that a 7B model costs a second.
What is read of one is its `training.outline.Outline`, which says how memory is counted.
"""

from __future__ import annotations

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
from weft.training import outline as counting
from weft.training.asked import ASKED
from weft.training.counting import layers_of
from weft.training.outline import ModelSize, Outline, Part, StageSize, Text, Tower
from weft.training.parts import dialect_tokens, tables
from weft.training.recipe import PART_NAMES, LanguageSource, ModelSpec, Recipe, Stage, TowerSource


def planned(spec: ModelSpec, *, outline: bool = False) -> tuple[WeftConfig, WeftProcessor]:
    """The configuration and processor of a recipe's model; no weights are read.

    With ``outline``, sources listed in `models.published` are not looked up: their shapes are known. The processor then
    counts tokens, but has a tokenizer of weft's in the place of the source's, so it is not for rendering samples.
    """
    if spec.base is not None:
        config, processor = load_config(spec.base), load_processor(spec.base)
        if spec.dialect.switches:
            processor = ASKED["switched"](config, processor, spec)
        return _switched(config, spec), processor
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


def model_size(config: WeftConfig, processor: WeftProcessor | None) -> ModelSize:
    """``processor`` None (a model without a tokenizer): media are counted without start and end tokens."""
    return counting.model_size(outlined(config, processor))


def stage_size(config: WeftConfig, stage: Stage, recipe: Recipe, processor: WeftProcessor | None = None) -> StageSize:
    """What a stage trains, and the memory of its processes.

    ``processor``: LoRA on the language model also trains the rows of the dialect's tokens, which it knows.
    """
    return counting.stage_size(outlined(config, processor), stage, recipe)


def outlined(config: WeftConfig, processor: WeftProcessor | None) -> Outline:
    """What sizes are counted from, of the model of this configuration."""
    model, vision, audio = weightless(config), config.vision_section, config.audio_section
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
    towers = {part: tower for part, kind in _kinds(config).items() if (tower := _tower(kind)) is not None}
    return Outline(
        dialect=(config.dialect or {})["name"],
        tokens=len(dialect_tokens(processor)) if processor is not None else 0,
        parts=tuple(_part(module, name, config) for name in PART_NAMES for module in model.part(name)),
        text=_text(model.language_model, config.text_config),
        chunk_rows=chunk_rows(config.text_config.vocab_size),
        towers=towers,
        image=image,
        sound=sound,
        lora_for_media=config.lora_for_media,
    )


def _part(module: torch.nn.Module, name: str, config: WeftConfig) -> Part:
    parameters = list(module.parameters())
    learnable = sum(p.numel() for p in parameters if p.requires_grad)
    return Part(name, sum(p.numel() for p in parameters), learnable, _what(name, config), layers_of(module))


def _text(language: Any, text: Any) -> Text:
    modules = dict(language.named_modules())
    found = [modules[name].weight for name in tables(language)]
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return Text(
        width=text.hidden_size,
        layers=text.num_hidden_layers,
        inner=getattr(text, "intermediate_size", 4 * text.hidden_size),
        keys=heads * (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads),
        vocabulary=text.vocab_size,
        table=language.get_input_embeddings().weight.numel(),
        words=sum(weight.numel() for weight in found),
        rows=sum(weight.shape[1] for weight in found),
    )


def _kinds(config: WeftConfig) -> dict[str, ImageKind | SoundKind]:
    """The kinds of the model's encoders by the part they are."""
    vision, audio = config.vision_section, config.audio_section
    seen = {"vision": image_kind(vision)} if vision is not None else {}
    return {**seen, **({"audio": sound_kind(audio)} if audio is not None else {})}


def _tower(kind: ImageKind | SoundKind) -> Tower | None:
    """The shape of an encoder that is a transformer; None for others, whose activations count nothing."""
    c = kind.config
    inner = getattr(c, "intermediate_size", None) or getattr(c, "encoder_ffn_dim", None)
    if inner is None or getattr(kind, "staged", False):
        return None
    connector = kind.section.connector
    merge = kind.pooled * (connector.group if connector.kind != "queries" else 1)
    return Tower(c.hidden_size, c.num_hidden_layers, inner, merge)


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
    shape = _tower(kind)
    return kind.section.kind + ("" if shape is None else f", {shape.width} wide, {shape.layers} layers")
