"""weft's attention function, registered once with `transformers` under the name "weft": packed rows, and short ones.

A packed row holds several samples, each attending only to itself. The lengths of its samples travel *as the attention
mask*, an integer tensor [1, 1, 1, S]: `transformers` hands four-dimensional masks through untouched, so every model
that asks its attention function for attention gets it there, with no mask of L x L ever made. Any other mask is what
the model's own masking made for SDPA.

On a CPU, and for float32, packed rows run SDPA once per sample: forward and backward of 4 heads of 64 over 2048
tokens in 16 samples took 57 ms on one core, and 521 ms with a block-diagonal mask, which does the work of the whole
square (from 1 to 64 samples it was never slower). On a GPU in half precision `torch.nn.attention.varlen` runs.

SDPA's backward pass in bfloat16 is slow on a CPU where rows are short (`SHORT`), so training there takes other ways;
with AMX, packed samples of all but the longest do (`models/segments.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from weft.conversation import WeftError
from weft.models.loss import sent
from weft.named import Named

NAME = "weft"
TESTED_FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "weft_qwen")
LAYER_TYPES = {"full_attention", "sliding_attention"}
# Up to here, training in half precision on a CPU is faster without SDPA's bfloat16 kernel. Measured on one core,
# forward and backward: 14 rows x 3 heads x 170 tokens 30 ms with it, 20 ms in float32, 10 ms as plain products; at 400
# tokens all take the same, above it is the fastest. Packed: 16 samples of 128 tokens 38 ms with it, 22 ms in float32.
SHORT = 384
# Of packed samples, on a CPU that has AMX; of a step of generation, on a CPU, where rows are padded.
PRODUCTS = Named[Any]({"amx": "weft.models.segments:SegmentAttention", "step": "weft.models.padded:attention"})
# Their weights are kept for the backward pass: for samples of so many tokens as many bytes as queries, keys and values
# that are repeated in float32. Made again, they would cost what SDPA does.
LONGEST, LONGEST_AROUND = 1024, 640  # causal, and where all meet all
# Names in modules whose layers carry a state along the row, and so from one packed sample into the next.
STATEFUL = ("mamba", "ssm", "rwkv", "recurrent", "deltanet", "shortconv", "linearattention", "conv1d", "lightning")


def segment_mask(segment_lengths_S: torch.Tensor) -> torch.Tensor:
    """The attention mask that stands for a packed row: the lengths of its samples, [1, 1, 1, S], integers.

    It stays on the CPU, where every layer can read it without waiting for the GPU.
    """
    return segment_lengths_S.to("cpu", torch.int64).view(1, 1, 1, -1)


def is_segment_mask(mask: Any) -> bool:
    return isinstance(mask, torch.Tensor) and mask.ndim == 4 and mask.dtype == torch.int64


def packing_problem(language_model: nn.Module) -> str | None:
    """Why samples cannot be packed for this language model, as one sentence; None where they can."""
    config: Any = language_model.config
    instead = f"train it with packing off, or take a tested family: {', '.join(TESTED_FAMILIES)}"
    name = config.model_type
    if name not in TESTED_FAMILIES:
        layer_types = set(getattr(config, "layer_types", None) or ())
        kinds = {type(module).__name__.lower() for module in language_model.modules()}
        if layer_types - LAYER_TYPES or any(word in kind for kind in kinds for word in STATEFUL):
            return (
                f"language model '{name}' has layers that carry one packed sample into the next (state-space, "
                f"convolution or chunked); {instead}"
            )
        if not getattr(language_model, "_supports_attention_backend", False):
            return f"language model '{name}' does not take weft's attention; {instead}"
    if getattr(config, "use_bidirectional_attention", False) or not getattr(config, "is_causal", True):
        return f"language model '{name}' looks ahead (bidirectional attention); {instead}"
    if config._attn_implementation != NAME:
        return (
            f"packing needs weft's attention, and the model was loaded with attn_implementation="
            f"'{config._attn_implementation}'; load it without that option, or train with packing off"
        )
    return None


@dataclass(frozen=True, slots=True)
class Rule:
    """Who looks at whom, and how scores are made."""

    causal: bool = True
    dropout: float = 0.0
    scaling: float | None = None  # None: one over the root of the head size
    window: int | None = None  # keys a query sees, itself included
    softcap: float | None = None  # bounds scores (Gemma 2)


def weft_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    watch: Callable[[torch.Tensor, torch.Tensor, float], None] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function: query [B, H, L, K], key and value [B, G, L', K] -> [B, L, H, K].

    ``watch``, which a layer hands on as it does any keyword that it does not know, is told query, key and scaling.
    """
    if watch is not None:
        watch(query, key, query.shape[-1] ** -0.5 if scaling is None else scaling)
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    rule = Rule(causal, dropout, scaling, sliding_window, softcap)
    if attention_mask is not None and is_segment_mask(attention_mask):
        plain = softcap is None and kwargs.get("s_aux") is None and query.shape[0] == 1
        if torch.compiler.is_compiling() and plain and takes_varlen(value):
            return _varlen(query, key, value, None, _ends(attention_mask, query.device), rule), None
        lengths = attention_mask.flatten().tolist()
        if sum(lengths) != query.shape[2] or query.shape[0] != 1 or key.shape[2] != query.shape[2]:
            raise WeftError(
                f"segment_lengths add up to {sum(lengths)} for a packed row of {query.shape[0]} x {query.shape[2]} "
                "tokens; a packed row is one row, and its samples fill it"
            )
        if kwargs.get("s_aux") is not None:
            raise WeftError("a language model with attention sinks cannot be packed; train it with packing off")
        if takes_varlen(value) and softcap is None:
            ends = _boundaries(tuple(lengths), query.device)
            return _varlen(query, key, value, max(lengths), ends, rule), None
        return _per_segment(query, key, value, lengths, rule), None
    if softcap is not None or _short_on_cpu(query, key, value):
        return _plain(query, key, value, attention_mask, rule), None
    kwargs |= {"dropout": dropout, "scaling": scaling, "is_causal": causal}
    step = attention_mask is not None and query.shape[2] == 1 and query.device.type == "cpu"
    if step and not torch.compiler.is_compiling():
        return PRODUCTS["step"](module, query, key, value, attention_mask, kwargs), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def weft_mask(*args: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
    """transformers' mask for SDPA. In training it is made without asking a GPU first whether a row is padded: the host
    would wait for the answer."""
    if torch.is_grad_enabled() and attention_mask is not None and attention_mask.device.type != "cpu":
        kwargs |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Attention of weft's own layers, not causal: query [B, H, L, K], key and value [B, H, L', K] -> [B, L, H, K]."""
    if _short_on_cpu(query, key, value):
        return _plain(query, key, value, mask, Rule(causal=False))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)


def _half_on_cpu(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether a CPU trains in half precision here.

    The values say the precision: under autocast, rotary embeddings leave queries and keys in float32.
    """
    half = value.dtype in (torch.bfloat16, torch.float16)
    return half and query.device.type == "cpu" and (query.requires_grad or key.requires_grad or value.requires_grad)


def _short_on_cpu(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether training is faster without SDPA's half-precision kernel."""
    return query.shape[2] <= SHORT and _half_on_cpu(query, key, value)


def has_fast_products() -> bool:
    """Whether this CPU has AMX; an older torch does not say so."""
    known: Any = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("amx_bf16"))


def _takes_products(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, longest: int, rule: Rule) -> bool:
    """Whether `segments.SegmentAttention` does what is asked for, and is the fastest here."""
    most = min(rule.window or LONGEST, LONGEST) if rule.causal else LONGEST_AROUND
    fits = longest <= most and not rule.dropout and rule.softcap is None and value.dtype == torch.bfloat16
    return fits and _half_on_cpu(query, key, value) and has_fast_products()


def _causal_mask(length: int, window: int | None, device: torch.device) -> torch.Tensor:
    """[L, L] True where a query may look: at itself and what is before it, ``window`` positions at most."""
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)[None]
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)


def _per_segment(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int], rule: Rule
) -> torch.Tensor:
    if _takes_products(query, key, value, max(lengths), rule):
        scaling = query.shape[-1] ** -0.5 if rule.scaling is None else rule.scaling
        with torch.autocast(query.device.type, enabled=False):
            out: torch.Tensor = PRODUCTS["amx"].apply(query, key, value, lengths, scaling, rule.causal)
            return out
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    # `split` and `cat`, not slices: the backward pass of a slice fills a whole row with zeros for each sample.
    samples = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    with torch.autocast(query.device.type, enabled=False):  # which would make bfloat16 of what is float32 on purpose
        return torch.cat([_one_segment(q, k, v, rule) for q, k, v in samples], 1)


def _one_segment(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: Rule) -> torch.Tensor:
    dtype, length = value.dtype, query.shape[2]
    if _takes_products(query, key, value, length, rule):  # which a longer one of the row does not
        return _per_segment(query, key, value, [length], rule)
    windowed = rule.causal and rule.window is not None and rule.window < length
    mask = _causal_mask(length, rule.window, query.device) if windowed else None
    if rule.softcap is not None:
        return _plain(query, key, value, mask, rule)
    exact = torch.float32 if _short_on_cpu(query, key, value) else dtype
    query, key, value = query.to(exact), key.to(exact), value.to(exact)
    causal = rule.causal and mask is None
    mixed = F.scaled_dot_product_attention(query, key, value, mask, rule.dropout, causal, scale=rule.scaling)
    return mixed.transpose(1, 2).to(dtype)


def takes_varlen(value: torch.Tensor) -> bool:
    """Whether FlashAttention, which varlen runs, takes this type and head size, on this GPU: one from Ampere on has the
    instructions of its kernels (not a T4 or V100)."""
    fits = value.dtype in (torch.float16, torch.bfloat16) and value.shape[-1] in range(8, 257, 8)
    return fits and value.is_cuda and torch.cuda.get_device_capability(value.device) >= (8, 0)


@lru_cache(maxsize=8)
def _boundaries(lengths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Where samples begin and end, [S + 1], on the device; the same for all layers of a step."""
    return sent(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), device)


def _ends(mask: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The same of a `segment_mask` whose numbers are not read, so that torch.compile makes one graph of a layer."""
    return F.pad(mask.flatten().cumsum(0, dtype=torch.int32), (1, 0)).to(device, non_blocking=True)


def _varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, longest: int | None, ends: torch.Tensor, rule: Rule
) -> torch.Tensor:
    """``ends``: `_boundaries`. ``longest``: the longest sample; None: not known, so that it may be the whole row."""
    if rule.dropout:
        raise WeftError(
            "attention dropout cannot be used with packed rows on a GPU; set the model's attention_dropout to 0"
        )
    from torch.nn.attention.varlen import varlen_attn

    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    q, k, v = (x[0].transpose(0, 1).to(value.dtype).contiguous() for x in (query, key, value))  # [L, H, K]
    longest = query.shape[2] if longest is None else longest
    left = -1 if rule.window is None else rule.window - 1  # varlen counts the keys before the query
    window = (left, 0) if rule.causal else (-1, -1)
    out: Any = varlen_attn(q, k, v, ends, ends, longest, longest, scale=rule.scaling, window_size=window)
    return out[None]


def _plain(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, rule: Rule
) -> torch.Tensor:
    """Attention written out, with what SDPA cannot do: scores bounded by softcap * tanh(scores / softcap)."""
    groups, length = query.shape[1] // key.shape[1], query.shape[2]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    if mask is None and rule.causal and length > 1:
        key, value = key[:, :, :length], value[:, :, :length]  # a fixed-size cache is longer than what it holds
        mask = _causal_mask(length, None, query.device)
    query, key = query.to(value.dtype), key.to(value.dtype)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if rule.scaling is None else rule.scaling)
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if mask.dtype == torch.bool else scores + mask
    weights = F.dropout(F.softmax(scores, dim=-1).to(value.dtype), rule.dropout)
    return (weights @ value).transpose(1, 2).contiguous()


AttentionInterface.register(NAME, weft_attention)
AttentionMaskInterface.register(NAME, weft_mask)
