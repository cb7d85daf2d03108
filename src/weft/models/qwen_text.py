"""Qwen-7B (the first Qwen, Qwen-Audio's language model) as a Qwen2 with its two rules for long text.

Weights are Qwen2's (gate = the release's ``w2``, up = ``w1``). Beyond ``seq_length`` the release changes two things,
in inference only (modeling_qwen.py):

- *dynamic NTK*: the rotary base is multiplied by ``alpha ** (d / (d - 2))``; for a row of n tokens, padding not
  counted, alpha = max(2^ceil(log2(n / seq_length) + 1) - 1, 1). Fixed when the prompt is read, kept while decoding.
- *log-n*: the query at position i (from 1) is multiplied by max(1, log_seq_length(i)).

The release counts the log-n position from the start of the *padded* row, so a short row in a left-padded batch comes
out differently than alone. ``padded_positions`` reproduces that; without it a row's own tokens are counted.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2Attention,
    Qwen2ForCausalLM,
    Qwen2Model,
    apply_rotary_pos_emb,
    eager_attention_forward,
)

from weft.models import cache
from weft.models.attention import is_segment_mask
from weft.models.config import WeftQwenConfig


def ntk_alpha(tokens: int, seq_length: int) -> int:
    """alpha of a row of ``tokens`` tokens: 1 up to ``seq_length``, 3 up to twice, 7 up to four times that, ..."""
    return (2 << (max(tokens - 1, 0) // seq_length).bit_length()) - 1


class WeftQwenAttention(Qwen2Attention):
    """Qwen2's attention with a factor on the queries, ``query_scale`` [B, L]."""

    def forward(  # type: ignore[override]
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        query_scale: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        past = cache.take(kwargs)
        heads = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            p(hidden_states).view(heads).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        if query_scale is not None:
            query = query * query_scale[:, None, :, None].to(query.dtype)
        if past is not None:
            key, value = past.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        mixed, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(mixed.reshape(*hidden_states.shape[:-1], -1)), weights


class WeftQwenModel(Qwen2Model):
    config_class = WeftQwenConfig
    _can_compile_fullgraph = False  # the cache carries each row's alpha, which a compiled step would not see

    def __init__(self, config: WeftQwenConfig) -> None:
        super().__init__(config)
        for index, layer in enumerate(self.layers):
            layer.self_attn = WeftQwenAttention(config, index)
        self.post_init()

    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        past = cache.take(kwargs)
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        use_cache = self.config.use_cache and not self.training if use_cache is None else use_cache
        if use_cache and past is None:
            past = DynamicCache(config=self.config)
        seen = past.get_seq_length() if past is not None else 0
        padded_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)[None] + seen
        if position_ids is None:
            position_ids = padded_ids
        alpha = self.alpha(attention_mask, inputs_embeds, past, seen)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **cache.named(past),
        )
        position_embeddings = self.rotary(inputs_embeds, position_ids, alpha)
        query_scale = None
        if self.config.use_logn_attn and not self.training:
            count_BL = (padded_ids if self.config.padded_positions else position_ids) + 1
            query_scale = (count_BL.float().log() / math.log(self.config.seq_length)).clamp(min=1.0)
        hidden_states = inputs_embeds
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                attention_mask=mask,
                position_ids=position_ids,
                use_cache=use_cache,
                position_embeddings=position_embeddings,
                query_scale=query_scale,
                **cache.named(past),
                **kwargs,
            )
        return BaseModelOutputWithPast(self.norm(hidden_states), **cache.named(past if use_cache else None))

    def alpha(
        self, attention_mask: torch.Tensor | None, inputs_embeds: torch.Tensor, past: Any, seen: int
    ) -> torch.Tensor | None:
        """alpha of each row [B, 1], or of each token of a packed row [1, L]; None where it is 1 everywhere.

        The prompt's alpha is kept on the cache, so it belongs to the rows it was made for.
        """
        if self.training or not self.config.use_dynamic_ntk:
            return None
        if seen:
            return getattr(past, "ntk_alpha", None)
        batch, length = inputs_embeds.shape[:2]
        limit = self.config.seq_length
        alpha = None
        if is_segment_mask(attention_mask) and attention_mask is not None:
            lengths = attention_mask.flatten().tolist()
            alpha = torch.tensor([[ntk_alpha(n, limit) for n in lengths for _ in range(n)]])
        elif length > limit:
            two_d = attention_mask is not None and attention_mask.ndim == 2
            lengths = attention_mask.sum(-1).tolist() if two_d and attention_mask is not None else [length] * batch
            alpha = torch.tensor([[ntk_alpha(int(n), limit)] for n in lengths])
        alpha = None if alpha is None else alpha.to(inputs_embeds.device)
        if past is not None:
            past.ntk_alpha = alpha
        return alpha

    def rotary(
        self, x: torch.Tensor, position_ids: torch.Tensor, alpha: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin [B, L, K] of the positions, computed in float32."""
        if alpha is None:
            return self.rotary_emb(x, position_ids)
        size = self.config.head_dim
        parameters: Any = self.config.rope_parameters
        base = parameters["rope_theta"] * alpha.float() ** (size / (size - 2))
        exponent = torch.arange(0, size, 2, device=x.device, dtype=torch.float32) / size
        angle = position_ids[..., None].float() / base[..., None] ** exponent
        angle = torch.cat([angle, angle], -1)
        return angle.cos().to(x.dtype), angle.sin().to(x.dtype)


class WeftQwenForCausalLM(Qwen2ForCausalLM):
    config_class = WeftQwenConfig
    _can_compile_fullgraph = False

    def __init__(self, config: WeftQwenConfig) -> None:
        super().__init__(config)
        self.model = WeftQwenModel(config)
        self.post_init()


AutoModelForCausalLM.register(WeftQwenConfig, WeftQwenForCausalLM, exist_ok=True)
