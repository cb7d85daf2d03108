"""`WeftForConditionalGeneration`: encoders and connectors woven into a `transformers` language model.

State-dict prefixes: ``language_model.`` (a transformers causal LM, its own names), ``vision.``, ``vision_connector.``,
``audio.``, ``audio_connector.``. Nothing here knows of devices or ranks.

Batches without an image or a clip work: the encoder is not run and its parameters get no gradient (None). A trainer
that shards parameters over ranks, or waits for every gradient (FSDP, DDP), needs every rank to run the same modules in
each step: set ``model.always_encode`` to ``("vision", "audio")`` there, and a batch without one runs a dummy item whose
embeddings enter with weight zero, so that gradients exist and are zero. Weft's own training does so where it shards.

Shape suffixes: B rows, L tokens, N images or windows, C channels, H height, W width (of a picture) or the language
model's width (of embeddings), T frames, M bands, X embeddings in a row of their own.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from weft.conversation import WeftError
from weft.models import attention, doors, qwen_text  # noqa: F401  qwen_text registers its model
from weft.models.adapters import FOLDER, adapter_base
from weft.models.cache import CACHE, named, take
from weft.models.config import WeftConfig
from weft.models.half import cast_once
from weft.models.loss import cross_entropy, loss_at, next_tokens, sent
from weft.models.processing import CLIENTS
from weft.models.senses import Senses


@dataclass
class WeftOutput(CausalLMOutputWithPast):
    """``loss`` = ``loss_sum`` / ``loss_count`` (labelled tokens). With labels, ``logits`` are not computed."""

    loss_sum: torch.Tensor | None = None
    loss_count: torch.Tensor | None = None


class WeftForConditionalGeneration(Senses, PreTrainedModel, GenerationMixin):
    config_class = WeftConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = ["past_key_values", "cache"]
    # None of its own; a mapping, for only then does peft look for those of the language model, and trains a tied head
    # along with the rows of its table.
    _tied_weights_keys: dict[str, str] = {}
    _keys_to_ignore_on_load_missing = [r"photographs\.beside$"]  # of folders from before it
    gate: Any = None  # where LoRA of the language model applies, if not everywhere (`models.gate`)

    def __init__(self, config: WeftConfig, language_model: PreTrainedModel | None = None) -> None:
        """``language_model``: one that is loaded already, with ``config.text_config``; None makes it anew."""
        asked = config._attn_implementation
        config._attn_implementation_internal = asked or attention.NAME
        super().__init__(config)
        self.input_modalities = [*["image"] * bool(config.vision), *["audio"] * bool(config.audio), "text"]
        for module in language_model.modules() if language_model is not None else ():
            module.__dict__["_is_hf_initialized"] = True  # else post_init draws resized embeddings anew
        self.language_model: Any = language_model or doors.language_model(
            config.text_config, **own_attention(config.text_config)
        )
        self.build_senses(config)
        self.post_init()
        cast_once(self)
        if asked not in (None, attention.NAME):  # then the towers get it too
            self.set_attn_implementation({"": asked, "text_config": config.text_config._attn_implementation})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; of an adapter's folder, its base with the adapter on it.

        No code of the folder runs, and its weights are safetensors (`doors`). Raises `AdapterError` where the base or
        peft is missing, or where a part of the adapter finds no place.
        """
        name = os.fspath(pretrained_model_name_or_path or "")
        base, adapted = adapter_base(name)
        kwargs |= {"trust_remote_code": False, "use_safetensors": True}
        if name:
            doors.check_safetensors(Path(base))
        source = base if adapted else pretrained_model_name_or_path
        on: Any = FOLDER["putting_on"](name, kwargs) if adapted else nullcontext(lambda loaded: loaded)
        with on as put, doors.guarded(base):
            return put(super().from_pretrained(source, *args, **kwargs))

    # -- parts ---------------------------------------------------------------------------------------------------------

    def part(self, name: str) -> list[nn.Module]:
        """The modules of a part by its name in `training.recipe.PART_NAMES`; none where the model has no such part."""
        module = getattr(self, "language_model" if name == "language" else name, None)
        return [module] if isinstance(module, nn.Module) else []

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def get_decoder(self) -> nn.Module:
        return self.language_model.get_decoder()

    @property
    def base_model(self) -> Any:
        """What transformers calls the model without its head: takes what `forward` takes, gives ``last_hidden_state``.

        Trainers that make their own loss call it. It is no module: the weights have their names from this one.
        """
        return Headless(self)

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        """``last_hidden_state`` [N, T, D] of the encoder; ``pooler_output``: embeddings [t, W] of each view."""
        return CLIENTS["image_features"](self, pixel_values, **kwargs)

    def get_audio_features(self, input_features: torch.Tensor, *lengths: torch.Tensor, **kwargs: Any) -> Any:
        """As `get_image_features`, of windows of sound; embeddings as many as each window's own length gives."""
        return CLIENTS["audio_features"](self, input_features, *lengths, **kwargs)

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size  # type: ignore[no-any-return]

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; the language model and its configuration, which is part of this one's, do the work."""
        return self.language_model.resize_token_embeddings(*args, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        """Random weights of encoders and connectors of weft's own; towers of transformers start by their own rules."""
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            init.kaiming_uniform_(module.weight, a=5**0.5)  # torch's own start: scaled by the number of inputs
            if module.bias is not None:
                init.zeros_(module.bias)
        elif (initial := getattr(module, "initial", None)) is not None:
            init.copy_(*cast(Any, initial)())
        else:
            super()._init_weights(module)

    # -- forward -------------------------------------------------------------------------------------------------------

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        feature_lengths: torch.Tensor | None = None,
        segment_lengths: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> WeftOutput:
        """Logits, or with ``labels`` the loss; the other arguments are those of `woven`.

        ``labels`` [B, L]: the id at each position, -100 where nothing is learned, *not* shifted. The loss is the mean
        over labelled positions, or with ``num_items_in_batch`` (transformers' Trainer) their sum over that number.
        ``cache`` (or ``past_key_values``) holds what the row began with, as in transformers.
        """
        media = pixel_values, input_features, feature_lengths
        inputs = self.woven(input_ids, attention_mask, position_ids, inputs_embeds, *media, segment_lengths, **kwargs)
        if labels is None:
            out = self.language_model(**inputs, logits_to_keep=logits_to_keep)
            seen = {name: out.get(name) for name in ("hidden_states", "attentions")}
            return WeftOutput(logits=out.logits, **named(out.get(CACHE)), **seen)
        out = self.get_decoder()(**{**inputs, "use_cache": False})
        places_N, targets_N = next_tokens(labels, segment_lengths)
        vocabulary, beside = self.config.text_config.vocab_size, (targets_N, *self.along(places_N))
        total = loss_at(places_N, out.last_hidden_state, cross_entropy(self.logits), vocabulary, *beside)
        count = torch.full((), float(len(places_N)), device=total.device)
        loss = total / (max(len(places_N), 1) if num_items_in_batch is None else num_items_in_batch)
        return WeftOutput(loss=loss, loss_sum=total, loss_count=count, hidden_states=out.get("hidden_states"))

    def last_hidden(self, **inputs: Any) -> torch.Tensor:
        """[B, L, D]: what `logits` makes logits of, and `models.loss` losses; ``inputs`` are those of `woven`."""
        return self.get_decoder()(**self.woven(**inputs, use_cache=False)).last_hidden_state  # type: ignore[no-any-return]

    def woven(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        feature_lengths: torch.Tensor | None = None,
        segment_lengths: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What the language model is called with: embeddings with the media among them, mask, positions, cache.

        ``input_ids`` [B, L]; ``pixel_values`` [N, 3, H, W]; ``input_features`` [N, T, M] (log-mel) or [N, S] (waveform)
        with ``feature_lengths`` [N]; items fill their placeholders in order of appearance over rows.
        ``segment_lengths`` [S]: the row (B = 1) is S samples packed one after the other, their lengths adding up to L.
        Raises WeftError where media and placeholders do not match.
        """
        past, media = take(kwargs), pixel_values is not None or input_features is not None
        if inputs_embeds is not None and media:
            raise WeftError("media find their places by input_ids; give these in place of inputs_embeds")
        if inputs_embeds is None:
            if input_ids is None:
                raise WeftError("the model needs input_ids (or inputs_embeds)")
            if past is not None and past.get_seq_length() > 0 and not media:
                inputs_embeds = self.get_input_embeddings()(input_ids)  # going on: a placeholder here is a mere token
            else:
                inputs_embeds = self.embed(input_ids, pixel_values, input_features, feature_lengths, segment_lengths)
        length = inputs_embeds.shape[1]
        if segment_lengths is not None:
            problem = attention.packing_problem(self.language_model)
            if problem:
                raise WeftError(problem)
            if position_ids is None:
                each = torch.cat([torch.arange(n) for n in segment_lengths.tolist()])[None]
                position_ids = sent(each, inputs_embeds.device)
            attention_mask = attention.segment_mask(segment_lengths)
            kwargs["use_cache"] = False
        elif position_ids is None and isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2:
            # Positions count real tokens, so a row padded on the left equals the row alone.
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]
        known = {"inputs_embeds": inputs_embeds, "attention_mask": attention_mask, "position_ids": position_ids}
        return known | named(past) | kwargs

    def along(self, places_N: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What `logits` is to be given beside hidden states at places of the last pass, rows laid end to end."""
        return () if self.gate is None else (self.gate.along(places_N),)

    def logits(self, hidden_nD: torch.Tensor) -> torch.Tensor:
        """The language model's output head, with what some families do to its result (Gemma 2, Granite, Cohere)."""
        logits_nV = self.language_model.get_output_embeddings()(hidden_nD)
        text = self.config.text_config
        if getattr(text, "logits_scaling", None):
            logits_nV = logits_nV / text.logits_scaling
        if getattr(text, "logit_scale", None):
            logits_nV = logits_nV * text.logit_scale
        cap = getattr(text, "final_logit_softcapping", None)
        return logits_nV if cap is None else cap * torch.tanh(logits_nV / cap)

    # -- generation ----------------------------------------------------------------------------------------------------

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Rows are repeated for beams and several answers: their media are encoded once, before."""
        kwargs = CLIENTS["encoded_once"](self, expand_size, input_ids, kwargs)
        return super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: Any,
        next_sequence_length: int | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        attention_mask: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool | None = False,
        prompt_length: int | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As in transformers. Media belong to the first ``prompt_length`` ids; a placeholder behind is a mere token."""
        past = cache if cache is not None else past_key_values
        known = {"attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
        kwargs |= known | {"is_first_iteration": is_first_iteration}
        inputs = CLIENTS["embedded"](self, input_ids, past, prompt_length, **kwargs)
        return super().prepare_inputs_for_generation(input_ids, next_sequence_length, **named(past), **inputs)  # type: ignore[misc]


class Headless:
    """A model without its head; its other attributes are the model's own."""

    def __init__(self, model: WeftForConditionalGeneration) -> None:
        self.model = model

    def __call__(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPast:
        return self.model.get_decoder()(**self.model.woven(*args, **kwargs))  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def own_attention(text_config: PretrainedConfig) -> dict[str, str]:
    """weft's attention for the language model, unless another was asked for or the family brings its own."""
    asked = text_config._attn_implementation
    model_class: Any = AutoModelForCausalLM._model_mapping[type(text_config)]
    if asked not in (None, attention.NAME) or not getattr(model_class, "_supports_attention_backend", False):
        return {}
    return {"attn_implementation": attention.NAME}


for _auto in (AutoModelForMultimodalLM, AutoModelForImageTextToText, AutoModelForCausalLM):
    _auto.register(WeftConfig, WeftForConditionalGeneration, exist_ok=True)
