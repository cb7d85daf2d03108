"""What `torch.nn.attention.varlen.varlen_attn` computes, by its documentation; the kernel itself only a GPU has."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def documented_varlen(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
    """Each sample of the packed query, key and value [L, H, K] attends to itself; ends ``cu_seq_q`` int32 [S + 1]."""
    lengths = cu_seq_q.diff().tolist()
    assert cu_seq_q.dtype == torch.int32 and cu_seq_k is cu_seq_q and max_q == max_k == max(lengths)
    assert sum(lengths) == len(query) == len(key) == len(value) and query.shape == key.shape == value.shape
    out = []
    for q, k, v in zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True):
        places = torch.arange(len(q), device=q.device)
        left, right = (len(q) if w < 0 else w for w in window_size)
        distance = places[:, None] - places[None]
        mask = (distance <= left) & (distance >= -right)
        mixed = F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in (q, k, v)), attn_mask=mask, scale=scale)
        out.append(mixed.transpose(0, 1))
    return torch.cat(out)
