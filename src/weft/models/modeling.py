"""`WeftForConditionalGeneration`: encoders and connectors woven into a `transformers` language model.

State-dict prefixes: ``language_model.`` (a transformers causal LM, its own names), ``vision.``, ``vision_connector.``,
``audio.``, ``audio_connector.``. Nothing here knows of devices or ranks.

Batches without an image or a clip work: the encoder is not run and its parameters get no gradient (None). A trainer
that shards parameters over ranks, or waits for every gradient (FSDP, DDP), needs every rank to run the same modules in
each step: set ``model.always_encode`` to ``("vision", "audio")`` there, and a batch without one runs a dummy item whose
embeddings enter with weight zero, so that gradients exist and are zero. Weft's own training does without.

Shape suffixes: B rows, L tokens, N images or windows, C channels, H height, W width (of a picture) or the language
model's width (of embeddings), T frames, M bands, X embeddings in a row of their own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from transformers.modeling_outputs import CausalLMOutputWithPast

from weft.conversation import WeftError
from weft.models import attention, cache, doors, qwen_text  # noqa: F401  qwen_text registers its model
from weft.models.adapters import adapter_base, check_applied, putting_on
from weft.models.config import WeftConfig
from weft.models.connectors import build_connector
from weft.models.encoders import build_audio, build_vision
from weft.models.encoders.conv import ConvTower
from weft.models.layout import image_grid, mel_bands, merged_grid, token_seconds
from weft.models.loss import cross_entropy, loss_at, next_tokens, sent
from weft.models.splice import before_last_run, splice, splice_boundaries

MEDIA = ("pixel_values", "input_features", "feature_lengths")


@dataclass
class WeftOutput(CausalLMOutputWithPast):
    """``loss`` = ``loss_sum`` / ``loss_count`` (labelled tokens). With labels, ``logits`` are not computed."""

    loss_sum: torch.Tensor | None = None
    loss_count: torch.Tensor | None = None


class WeftForConditionalGeneration(PreTrainedModel, GenerationMixin):
    config_class = WeftConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ["image", "audio", "text"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = ["past_key_values", "cache"]
    # None of its own; a mapping, for only then does peft look for those of the language model, and trains a tied head
    # along with the rows of its table.
    _tied_weights_keys: dict[str, str] = {}

    def __init__(self, config: WeftConfig, language_model: PreTrainedModel | None = None) -> None:
        """``language_model``: one that is loaded already, with ``config.text_config``; None makes it anew."""
        super().__init__(config)
        for module in language_model.modules() if language_model is not None else ():
            module.__dict__["_is_hf_initialized"] = True  # else post_init draws resized embeddings anew
        self.language_model: Any = language_model or doors.language_model(
            config.text_config, **own_attention(config.text_config)
        )
        width = config.text_config.hidden_size
        vision, audio = config.vision_section, config.audio_section
        self.vision: Any = None
        self.vision_connector: Any = None
        self.audio: Any = None
        self.audio_connector: Any = None
        if vision is not None:
            self.vision = build_vision(vision)
            grid = image_grid(vision) if vision.drop_cls or vision.kind in ("siglip", "conv") else None
            self.vision_connector = build_connector(vision.connector, self.vision.width, width, grid)
        if audio is not None:
            self.audio = build_audio(audio)
            if audio.boundaries:
                if config.audio_start_id is None or config.audio_end_id is None:
                    raise WeftError(
                        "audio.boundaries needs audio_start_id and audio_end_id; take a dialect that has both"
                    )
                self.audio.boundaries = nn.Embedding(2, width)  # stand at the start and end tokens of a clip
            self.audio_connector = build_connector(audio.connector, self.audio.width, width)
        self.always_encode: Sequence[str] = ()
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; of an adapter's folder, its base with the adapter on it as transformers puts it there.

        No code of the folder runs, and its weights are safetensors (`doors`). Raises `AdapterError` where the base or
        peft is missing, or where a part of the adapter finds no place.
        """
        name = os.fspath(pretrained_model_name_or_path or "")
        base, adapted = adapter_base(name)
        kwargs |= {"trust_remote_code": False, "use_safetensors": True}
        if name:
            doors.check_safetensors(Path(base))
        if not adapted:
            with doors.guarded(name):
                return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        kwargs["adapter_kwargs"] = {**(kwargs.get("adapter_kwargs") or {}), "_adapter_model_path": name}
        with putting_on(name), doors.guarded(base):
            loaded = super().from_pretrained(base, *args, **kwargs)
        check_applied(loaded[0] if isinstance(loaded, tuple) else loaded, name)
        return loaded

    # -- parts ---------------------------------------------------------------------------------------------------------

    def part(self, name: str) -> list[nn.Module]:
        """The modules of a part by its name in `training.recipe.PART_NAMES`; none where the model has no such part."""
        names = {"language": "language_model"}
        module = getattr(self, names.get(name, name), None)
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

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; the language model and its configuration, which is part of this one's, do the work."""
        return self.language_model.resize_token_embeddings(*args, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        """Random weights of encoders and connectors of weft's own; towers of transformers start by their own rules."""
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            init.kaiming_uniform_(module.weight, a=5**0.5)  # torch's own start: scaled by the number of inputs
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, ConvTower):
            init.copy_(module.positions, module.initial_positions())
        else:
            super()._init_weights(module)

    # -- media to embeddings -------------------------------------------------------------------------------------------

    def embed_images(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        """Embeddings [X, W] of images, one after the other; X = N * layout.image_tokens."""
        if self.vision is None or self.vision_connector is None:
            raise WeftError("this model has no image encoder; give text or audio only")
        height, width = self.config.vision["size"]
        if tuple(pixels_NCHW.shape[1:]) != (3, height, width):
            shape = "x".join(map(str, pixels_NCHW.shape[1:]))
            raise WeftError(f"pixel_values are {shape} an image, and this model's encoder takes 3x{height}x{width}")
        embedded_NtW = self.vision_connector(self.vision(pixels_NCHW))[0]
        if self.config.image_place_ids is not None:
            embedded_NtW = embedded_NtW + self.image_places()
        return embedded_NtW.flatten(0, 1)

    def image_places(self) -> torch.Tensor:
        """[t, W]: for each embedding of an image, those of the tokens of its column and its row.

        Columns and rows share their tokens, so the row's entries are rolled by half the width: else 20 across and 70
        down would be 70 across and 20 down.
        """
        scales = self.config.image_place_ids
        rows, columns = (
            self._place((torch.arange(n, device=self.device) + 0.5) / n * scales[0][1], scales)
            for n in merged_grid(self.config.vision_section)
        )
        return (rows.roll(rows.shape[1] // 2, 1)[:, None] + columns[None]).flatten(0, 1)

    def audio_places(self, tokens: int) -> torch.Tensor:
        """[t, W]: for each embedding of a window, those of the tokens of its moment."""
        scales, section = self.config.audio_place_ids, self.config.audio_section
        moments_t = (torch.arange(tokens, device=self.device) + 0.5) * token_seconds(section)
        return self._place(moments_t / section.window_seconds * (scales[0][1] - 1), scales)

    def _place(self, steps_t: torch.Tensor, scales: Sequence[Sequence[int]]) -> torch.Tensor:
        """[t, W]: the sum of the embeddings that name places, given in steps of the first scale."""
        named_tW: Any = 0.0
        rest_t = steps_t + 1e-3  # a centre such as 0.36 s must not fall short of its own hundredth
        for level, (first, count) in enumerate(scales):
            if level:
                rest_t = (rest_t - rest_t.floor()) * count
            named_tW = named_tW + self.get_input_embeddings()(first + rest_t.long().clamp(max=count - 1))
        return named_tW

    def embed_audio(self, features: torch.Tensor, lengths_N: torch.Tensor | None = None) -> torch.Tensor:
        """Embeddings [X, W] of windows, one after the other, from log-mel [N, T, M] or samples [N, S] and lengths."""
        if self.audio is None or self.audio_connector is None:
            raise WeftError("this model has no audio encoder; give text or images only")
        if lengths_N is None:
            lengths_N = torch.full((len(features),), features.shape[1])
        lengths_N = lengths_N.to(features.device)
        embedded_NtW, tokens_N = self.audio_connector(*self.audio(features, lengths_N))
        if self.config.audio_place_ids is not None:
            embedded_NtW = embedded_NtW + self.audio_places(embedded_NtW.shape[1])
        return embedded_NtW[torch.arange(embedded_NtW.shape[1], device=tokens_N.device) < tokens_N[:, None]]

    def embed(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        feature_lengths: torch.Tensor | None = None,
        segment_lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Text embeddings with the media's at their placeholders, [B, L, W]."""
        config = self.config
        # A placeholder may lie beyond the table: an imported model's rows are all of real words.
        beyond_BL = torch.zeros_like(input_ids, dtype=torch.bool)
        for token in (config.image_token_id, config.audio_token_id):
            if token is not None and token >= config.text_config.vocab_size:
                beyond_BL |= input_ids == token
        text_BLW = mixed_BLW = self.get_input_embeddings()(input_ids.masked_fill(beyond_BL, 0))
        images_XW = self.embed_images(pixel_values) if pixel_values is not None and len(pixel_values) else None
        sounds_XW = None
        if input_features is not None and len(input_features):
            sounds_XW = self.embed_audio(input_features, feature_lengths)
        for modality, token, media in (
            ("image", config.image_token_id, images_XW),
            ("audio", config.audio_token_id, sounds_XW),
        ):
            if getattr(self, "vision" if modality == "image" else "audio") is not None:
                mixed_BLW = splice(mixed_BLW, input_ids, token, media, modality)
        if sounds_XW is not None and config.audio.get("last_clip_only"):
            unheard_BL = before_last_run(input_ids == config.audio_token_id, segment_lengths)
            mixed_BLW = torch.where(unheard_BL[..., None], text_BLW, mixed_BLW)
        if images_XW is None and "vision" in self.always_encode and self.vision is not None:
            mixed_BLW = mixed_BLW + 0.0 * self.embed_images(self._blank_image()).sum().to(mixed_BLW.dtype)
        boundaries = getattr(self.audio, "boundaries", None)
        if sounds_XW is None and "audio" in self.always_encode and self.audio is not None:
            nothing = self.embed_audio(*self._blank_audio()).sum()
            if boundaries is not None:
                nothing = nothing + boundaries.weight.sum()
            mixed_BLW = mixed_BLW + 0.0 * nothing.to(mixed_BLW.dtype)
        if boundaries is not None and sounds_XW is not None:
            mixed_BLW = splice_boundaries(
                mixed_BLW, input_ids, config.audio_start_id, config.audio_end_id, boundaries.weight
            )
        return mixed_BLW

    def _blank_image(self) -> torch.Tensor:
        return torch.zeros(1, 3, *self.config.vision["size"], device=self.device)

    def _blank_audio(self) -> tuple[torch.Tensor, torch.Tensor]:
        section = self.config.audio_section
        bands = mel_bands(section)
        size = 16 if bands else section.sample_rate  # enough for one token of any encoder
        if section.kind == "whisper_decoder":
            size = round(section.window_seconds * 100)
        shape = (1, size, bands) if bands else (1, size)
        return torch.zeros(shape, device=self.device), torch.tensor([size], device=self.device)

    # -- forward -------------------------------------------------------------------------------------------------------

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
        inputs = self.woven(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            input_features=input_features,
            feature_lengths=feature_lengths,
            segment_lengths=segment_lengths,
            **kwargs,
        )
        if labels is None:
            out = self.language_model(**inputs, logits_to_keep=logits_to_keep)
            return WeftOutput(
                logits=out.logits,
                **cache.named(out.get(cache.CACHE)),
                hidden_states=out.get("hidden_states"),
                attentions=out.get("attentions"),
            )
        out = self.get_decoder()(**{**inputs, "use_cache": False})
        places_N, targets_N = next_tokens(labels, segment_lengths)
        vocabulary = self.config.text_config.vocab_size
        total = loss_at(places_N, out.last_hidden_state, cross_entropy(self.logits), vocabulary, targets_N)
        count = torch.full((), float(len(places_N)), device=total.device)
        loss = total / (max(len(places_N), 1) if num_items_in_batch is None else num_items_in_batch)
        return WeftOutput(loss=loss, loss_sum=total, loss_count=count, hidden_states=out.get("hidden_states"))

    def last_hidden(self, **inputs: Any) -> torch.Tensor:
        """[B, L, D]: what `logits` makes logits of, and `models.loss` losses; ``inputs`` are those of `woven`."""
        return self.get_decoder()(**{**self.woven(**inputs), "use_cache": False}).last_hidden_state

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
        past = cache.take(kwargs)
        if inputs_embeds is None:
            if input_ids is None:
                raise WeftError("the model needs input_ids (or inputs_embeds)")
            media = pixel_values is not None or input_features is not None
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
        return dict(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **cache.named(past),
            **kwargs,
        )

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

    @torch.no_grad()
    def generate(self, inputs: torch.Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in transformers. Media are encoded here, once, before rows are repeated for beams or several answers."""
        media = {name: kwargs.pop(name, None) for name in MEDIA}
        ids = inputs if inputs is not None else kwargs.get("input_ids")
        if ids is not None and kwargs.get("inputs_embeds") is None:
            kwargs["inputs_embeds"] = self.embed(ids, **media)
        return super().generate(inputs, *args, **kwargs)  # type: ignore[misc]

    def prepare_inputs_for_generation(
        self,
        input_ids: Any,
        next_sequence_length: int | None = None,
        attention_mask: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        past = cache.take(kwargs)
        prompt_embeds = inputs_embeds
        if inputs_embeds is not None and not is_first_iteration and past is None:
            # Without a cache every step runs the whole row; transformers would embed the prompt anew, without media.
            length = input_ids.shape[1] if attention_mask is None else attention_mask.shape[1]
            new_ids = input_ids[:, input_ids.shape[1] - (length - inputs_embeds.shape[1]) :]
            new_embeds = self.get_input_embeddings()(new_ids)
            prompt_embeds, is_first_iteration = torch.cat([inputs_embeds, new_embeds], 1), True
        return super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids,
            next_sequence_length=next_sequence_length,
            **cache.named(past),
            attention_mask=attention_mask,
            inputs_embeds=prompt_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )


def own_attention(text_config: PretrainedConfig) -> dict[str, str]:
    """weft's attention for the language model, unless another was asked for or the family brings its own."""
    asked = text_config._attn_implementation
    model_class: Any = AutoModelForCausalLM._model_mapping[type(text_config)]
    if asked not in (None, attention.NAME) or not getattr(model_class, "_supports_attention_backend", False):
        return {}
    return {"attn_implementation": attention.NAME}


for _auto in (AutoModelForMultimodalLM, AutoModelForImageTextToText, AutoModelForCausalLM):
    _auto.register(WeftConfig, WeftForConditionalGeneration, exist_ok=True)
