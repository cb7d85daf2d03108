"""What trains in a stage: each part of the model is frozen, trained through LoRA, or trained in full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from weft.conversation import WeftError
from weft.dialects import Modality
from weft.models.modeling import WeftForConditionalGeneration
from weft.models.processing import WeftProcessor
from weft.training.asked import ASKED
from weft.training.recipe import PART_NAMES, Lora, PartTraining, Stage


@dataclass(frozen=True)
class TrainedPart:
    name: str
    training: PartTraining
    parameters: dict[str, nn.Parameter]  # by their name in the whole model; empty where the part is frozen


def apply_parts(
    model: WeftForConditionalGeneration, stage: Stage, seed: int = 0, tokens: Sequence[int] = ()
) -> list[TrainedPart]:
    """Freeze, adapt or free each part as the stage says; frozen parts go to eval mode, others to train mode.

    A frozen encoder costs no activations: nothing before it needs a gradient, so autograd records nothing there. LoRA's
    first values come from ``seed``. ``tokens``: the dialect's own, whose embeddings train beside LoRA.
    """
    if not any(p.train != "frozen" for p in stage.parts.values()):
        raise WeftError(f'stage "{stage.name}": every part is frozen; set parts.<name>.train to lora or full')
    model.requires_grad_(False)
    torch.manual_seed(seed)
    for name, training in stage.parts.items():
        modules = model.part(name)
        if not modules and training.train != "frozen":
            present = [n for n in PART_NAMES if model.part(n)]
            raise WeftError(
                f'stage "{stage.name}" trains {name}, which this model does not have; it has {", ".join(present)}'
            )
        for module in modules:
            if training.train == "full":
                module.requires_grad_(True)
            elif training.train == "lora":
                rows = tokens if training.dialect_tokens and name == "language" else ()
                add = ASKED["gated"].go_on if name == "language" and model.gate else add_lora
                add(module, training.lora, rows)
    never = constants(model)
    for key, p in model.named_parameters():
        if key in never:
            p.requires_grad_(False)
    set_modes(model, stage)
    if model.config.lora_for_media:
        ASKED["gated"].begin(model, stage)
    if model.places and not model.gate:  # which are looked up as often as the media's kinds have scales
        ASKED["rows"](model)
    names, parts = {id(p): n for n, p in model.named_parameters() if p.requires_grad}, []
    for name in PART_NAMES:
        training = stage.parts.get(name, PartTraining())
        own = {id(p): p for module in model.part(name) for p in module.parameters() if id(p) in names}
        parts.append(TrainedPart(name, training, {names.pop(i): p for i, p in own.items()}))
    return parts


def constants(model: WeftForConditionalGeneration) -> frozenset[str]:
    """Names of parameters that never train (Whisper's sinusoids), which is lost where weights are loaded."""
    kinds = ("vision", model.image_kind), ("audio", model.sound_kind)
    with torch.device("meta"):
        made = nn.ModuleDict({part: kind.build() for part, kind in kinds if kind})
    return frozenset(name for name, p in made.named_parameters() if not p.requires_grad)


def dialect_tokens(processor: WeftProcessor) -> list[int]:
    """Ids of the tokens that the model's dialect writes; not the placeholders of media, which are replaced."""
    senses: dict[Modality, Any] = {"image": processor.vision, "audio": processor.audio}
    names = processor.dialect.special_tokens()
    names += [token for m, section in senses.items() if section is not None for token in processor.dialect.edges(m)]
    return sorted({processor.renderer.token_id(name) for name in names})


def set_modes(model: WeftForConditionalGeneration, stage: Stage) -> None:
    """Train mode for what trains, eval mode (no dropout, no running statistics) for what is frozen."""
    model.train()
    for name in PART_NAMES:
        if stage.parts.get(name, PartTraining()).train == "frozen":
            for module in model.part(name):
                module.eval()
    if stage.checkpoint_activations:
        # A frozen language model hands gradients on, so its activations are most of the memory; transformers' layers
        # recompute them in train mode only. What is inside them stays in eval mode.
        for layer in model.language_model.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.training = True


def spare_activations(model: WeftForConditionalGeneration, on: bool) -> None:
    """Turns activation checkpointing on or off, by the name that this version of transformers has for it."""
    name = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if on:
        getattr(model, f"{name}_checkpointing_enable")({"use_reentrant": False})
        # With which transformers has the first layer of each tower ask for a gradient: not needed by this way of
        # checkpointing, and a frozen encoder would keep all of its activations and compute gradients that nobody wants.
        model.disable_input_require_grads()
    elif getattr(model, f"is_{name}_checkpointing"):
        getattr(model, f"{name}_checkpointing_disable")()


def lora_targets(module: nn.Module, lora: Lora) -> list[str]:
    """The ends of the names of the layers that it adapts; none: the part has no such layer, and trains in full."""
    return lora.targets_among([name for name, _ in module.named_modules()], [name for name, _ in linears(module)])


def add_lora(module: nn.Module, lora: Lora, tokens: Sequence[int] = ()) -> None:
    if not (targets := lora_targets(module, lora)):
        module.requires_grad_(True)  # a part without a linear layer (a convolution) is small: it trains in full
        return
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft takes fractions too
        lora_dropout=lora.dropout,
        target_modules=targets,
        trainable_token_indices=dict.fromkeys(tables(module), list(tokens)) if tokens else None,
    )
    inject_adapter_in_model(config, module)
    for name, p in module.named_parameters():
        p.requires_grad_("lora_" in name or "trainable_tokens_delta" in name)


def tables(language: Any) -> list[str]:
    """Names of the input embedding and, where it is another, the output head (a tied one follows by itself)."""
    inside, head = language.get_input_embeddings(), language.get_output_embeddings()
    found = [inside] if head is None or head.weight is inside.weight else [inside, head]
    return [name for name, m in language.named_modules() if any(m is f for f in found)]


def linears(module: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Linear layers below ``module``, the output head aside: LoRA on it costs more than it gives and unties it."""
    head = getattr(module, "get_output_embeddings", lambda: None)()
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear) and child is not head:
            yield name, child
