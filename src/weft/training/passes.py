"""What a language model does between its products, in fewer passes over memory and in few shapes: for training in
bfloat16 on a CPU that has AMX, where products are so fast that all else takes most of an update.

Laid over the layers of `transformers` from outside, while it is open.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from weft.models.attention import has_fast_products, is_segment_mask

# Families whose norms and rotary embeddings are those of Llama, by the modules that hold them.
FAMILIES = tuple(f"transformers.models.{name}.modeling_{name}" for name in ("llama", "mistral", "qwen2", "qwen3"))
NORMS = ("input_layernorm", "post_attention_layernorm")  # what reads them are linear layers
ROWS = 128  # at a time: what they become in between stays in the processor's cache
# Tokens of a row, to a multiple of which it is filled up: a CPU makes a kernel for each shape of a product, which took
# a twentieth of an update.
WHOLE = 128
ROTATE = "apply_rotary_pos_emb"


class Passes:
    """Open, norms give at once what autocast would make of their result, rotary embeddings turn a head in one step, and
    a packed row is filled up with one sample more, of zeros, which nothing reads."""

    def __init__(self, model: Any) -> None:
        self.model, self.open, self.turning = model, False, dict[str, Any]()  # of a module's name its own function
        if not has_fast_products():
            return
        for name, layer in model.language_model.named_modules():
            if type(layer).__module__ in FAMILIES and name.endswith(NORMS):
                layer.forward = partial(self.norm, layer, layer.forward)
            if hasattr(layer, "q_proj") and any(kind.__module__ in FAMILIES for kind in type(layer).mro()):
                holder = type(layer).__module__  # of what the layer calls
                self.turning.setdefault(holder, getattr(sys.modules[holder], ROTATE))
        for layer in model.modules():
            if type(layer).__name__ == "WhisperEncoderLayer":
                layer.forward = partial(self.encoder_layer, layer.forward)
        decoder = model.get_decoder()
        decoder.forward = partial(self.decoder, decoder.forward)

    def set(self, is_open: bool) -> None:
        self.open = is_open
        for holder, usual in self.turning.items():
            setattr(sys.modules[holder], ROTATE, partial(turned_pair, usual) if is_open else usual)

    @property
    def half(self) -> bool:
        return self.open and torch.is_autocast_enabled("cpu")

    def norm(self, layer: Any, usual: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        if not self.half or x.dtype != torch.float32 or x.device.type != "cpu":
            return usual(x)
        return RootMeanSquare.apply(x, layer.weight, layer.variance_epsilon)  # type: ignore[no-any-return]

    def encoder_layer(self, usual: Callable[..., Any], row: torch.Tensor, mask: Any, *args: Any, **more: Any) -> Any:
        """The first of them fills up the row, which stays so: what packed it takes no more than it gave."""
        if self.half and is_segment_mask(mask):
            row, mask = filled(row, mask)
        return usual(row, mask, *args, **more)

    def decoder(
        self,
        usual: Callable[..., Any],
        *args: Any,
        inputs_embeds: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        **more: Any,
    ) -> Any:
        packed = self.half and is_segment_mask(attention_mask) and self.model.gate is None  # which knows each token
        if packed and inputs_embeds is not None and position_ids is not None:
            length = inputs_embeds.shape[1]
            inputs_embeds, attention_mask = filled(inputs_embeds, attention_mask)
            position_ids = F.pad(position_ids, (0, inputs_embeds.shape[1] - length))
            out = usual(inputs_embeds=inputs_embeds, attention_mask=attention_mask, position_ids=position_ids, **more)
            out.last_hidden_state = out.last_hidden_state[:, :length]
            return out
        return usual(
            *args, inputs_embeds=inputs_embeds, attention_mask=attention_mask, position_ids=position_ids, **more
        )


def filled(row_1LD: torch.Tensor, mask: Any) -> tuple[torch.Tensor, Any]:
    """The row with zeros up to a multiple of `WHOLE`, unless it has them, and its mask with a sample of them."""
    tokens = int(mask.sum())
    rest = -tokens % WHOLE
    row_1LD = F.pad(row_1LD, (0, 0, 0, tokens + rest - row_1LD.shape[1]))
    return row_1LD, F.pad(mask, (0, 1), value=rest) if rest else mask


class RootMeanSquare(torch.autograd.Function):
    """`apply(x, weight, epsilon)`: x [..., D] over the root of its mean square, times ``weight`` [D], in bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        x_LD, out_LD = x.flatten(0, -2), torch.empty_like(x, dtype=torch.bfloat16).flatten(0, -2)
        over_L1 = torch.linalg.vector_norm(x_LD, dim=-1, keepdim=True).square_()
        over_L1 = over_L1.div_(x.shape[-1]).add_(epsilon).rsqrt_()
        for start in range(0, len(x_LD), ROWS):
            rows = slice(start, start + ROWS)
            out_LD[rows] = (x_LD[rows] * over_L1[rows]).mul_(weight)
        ctx.save_for_backward(x_LD, weight, over_L1)
        return out_LD.view(x.shape)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x_LD, weight, over_L1), grad_LD = ctx.saved_tensors, grads[0].flatten(0, -2)
        of_x_LD, of_weight = torch.empty_like(x_LD), torch.zeros_like(weight)
        for start in range(0, len(x_LD), ROWS):
            rows = slice(start, start + ROWS)
            plain, grad = x_LD[rows] * over_L1[rows], grad_LD[rows].float()
            both = grad * plain
            of_weight += both.sum(0)
            along_L1 = both.mul_(weight).mean(-1, keepdim=True)
            torch.mul(grad, weight, out=of_x_LD[rows]).addcmul_(plain, along_L1, value=-1).mul_(over_L1[rows])
        return of_x_LD.view(grads[0].shape), of_weight, None


def turned_pair(
    usual: Callable[..., Any], query: torch.Tensor, key: torch.Tensor, cos: Any, sin: Any, unsqueeze_dim: int = 1
) -> Any:
    """In place of `transformers`' function of this name: query and key stay in bfloat16, as attention takes them."""
    if query.dtype != torch.bfloat16 or query.device.type != "cpu" or unsqueeze_dim != 1:
        return usual(query, key, cos, sin, unsqueeze_dim=unsqueeze_dim)
    return Turned.apply(query, cos, sin), Turned.apply(key, cos, sin)


class Turned(torch.autograd.Function):
    """`apply(x, cos, sin)`: heads x [B, H, L, K] turned by their positions' angles [B, L, K], in x's type."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _turned(grads[0], cos, sin, -1), None, None


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, way: int) -> torch.Tensor:
    """In float32 in between. The angles of both halves are the same."""
    x_BLHK, half = x.transpose(1, 2), x.shape[-1] // 2
    out_BLHK = torch.empty(x_BLHK.shape, dtype=x.dtype)
    for start in range(0, x.shape[2], ROWS):
        rows = slice(start, start + ROWS)
        given, sines = x_BLHK[:, rows].float(), sin[:, rows, None, :half]
        made = given * cos[:, rows, None]
        made[..., :half].addcmul_(given[..., half:], sines, value=-way)
        made[..., half:].addcmul_(given[..., :half], sines, value=way)
        out_BLHK[:, rows] = made
    return out_BLHK.transpose(1, 2)
