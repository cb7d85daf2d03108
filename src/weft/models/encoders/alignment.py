"""When each token of a transcription was heard: read off Whisper's own attention to the sound.

Heads of the upper half of its decoder attend, while a token is written, to where it sounds (Whisper's authors take word
times from them, https://arxiv.org/abs/2212.04356). Dynamic time warping finds the way through that attention on which
neither sound nor text goes back. A pause belongs to the word before or after it then, so what is quiet is taken off.
Attention changes from one word to the next some way off where the words do, so a pause nearby says it better.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

SMOOTH = 7  # states of 20 ms, of which the median is taken
QUIET = 0.3  # of the way from the 5th to the 95th of a hundred states by loudness; from 0.2 to 0.5 it hardly matters
# States: the shortest pause; how far one of a state reaches, and how far any; and how late words follow each other
# where there is none. Chosen on 80 recordings of digits and 60 clips of espeak's; their neighbours do as well.
SHORTEST, REACH, FARTHEST, LATE = 3, 3, 15, 2
STILL = 0.1  # as QUIET: a word ends within a pause where it is no louder


@dataclass
class Watched:
    """Of one layer that attends to sound: itself, and its queries [N, 1, D] of each token."""

    attention: Any
    queries: list[torch.Tensor] = field(default_factory=list)


@contextmanager
def attention_watched(decoder: Any) -> Iterator[list[Watched]]:
    """Collects the queries with which the upper half of a decoder's layers attend to sound meanwhile."""
    layers = decoder.layers[len(decoder.layers) // 2 :]
    watched = [Watched(layer.encoder_attn) for layer in layers]

    def keep(each: Watched) -> Any:
        return lambda _, __, query_NLD: each.queries.append(query_NLD[:, -1:])

    hooks = [each.attention.q_proj.register_forward_hook(keep(each)) for each in watched]
    try:
        yield watched
    finally:
        for hook in hooks:
            hook.remove()


def extents(
    watched: Sequence[Watched],
    heard_NTD: torch.Tensor,
    own_N: torch.Tensor,
    written_N: torch.Tensor,
    loud_NT: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """[N, S] at which of the ``own_N`` states of its clip each of the ``written_N`` tokens begins, the token that ends
    the transcription among them, and before which it ends; 0 behind that. Silence at either end is left out."""
    attention_NHST = torch.cat([_attention(each, heard_NTD) for each in watched], 1).float().cpu()
    starts_NS, ends_NS = np.zeros((2, len(attention_NHST), attention_NHST.shape[2]), np.int64)
    for n, (own, written) in enumerate(zip(own_N.tolist(), written_N.tolist(), strict=True)):
        starts_S = first_states(-sharpened(attention_NHST[n, :, :written, :own]).numpy())
        ends_S = np.append(starts_S[1:], own)
        starts_NS[n, :written], ends_NS[n, :written] = within_sound(starts_S, ends_S, loud_NT[n, :own].cpu().numpy())
    return torch.from_numpy(starts_NS).to(heard_NTD.device), torch.from_numpy(ends_NS).to(heard_NTD.device)


def loudness(mel_NTM: torch.Tensor, lengths_N: torch.Tensor) -> torch.Tensor:
    """[N, ceil(T / 2)]: how loud it is while each state lasts, the mean of its bands; behind a clip as at its end."""
    at_NT = torch.arange(mel_NTM.shape[1], device=lengths_N.device).minimum(lengths_N[:, None] - 1)
    return F.avg_pool1d(mel_NTM.float().mean(2).gather(1, at_NT.to(mel_NTM.device)), 2, ceil_mode=True)


def level(loud_T: np.ndarray) -> np.ndarray:
    """How loud states are beside the others of their clip: 0 the 5th, 1 the 95th of a hundred."""
    low, high = np.percentile(loud_T, (5, 95))
    return np.asarray((loud_T - low) / max(high - low, 1e-6))


def within_sound(starts_S: np.ndarray, ends_S: np.ndarray, loud_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Extents without what is quiet at either end, where it is not quiet all through."""
    heard = np.flatnonzero(level(loud_T) > QUIET)
    first_S, last_S = np.searchsorted(heard, starts_S), np.searchsorted(heard, ends_S) - 1
    there_S = first_S <= last_S
    return (
        np.where(there_S, heard[np.minimum(first_S, len(heard) - 1)], starts_S) if len(heard) else starts_S,
        np.where(there_S, heard[last_S] + 1, ends_S) if len(heard) else ends_S,
    )


def at_pauses(starts: Sequence[int], ends: Sequence[int], level_T: np.ndarray) -> list[tuple[int, int]]:
    """The states of words one after the other, each of which begins and ends at a pause where there is one near.

    A pause parts two neighbours at most: those whose edge is nearest, and the longer it lasts, the farther off. Words
    stay one after the other; one that would be left with nothing keeps what it had. ``level_T``: of the states of the
    clip and no others; it is silent behind them.
    """
    own = list(zip(starts, ends, strict=True))
    if not own or (level_T <= QUIET).all():
        return own
    level_T = np.append(level_T, np.zeros(SHORTEST))
    edges = np.flatnonzero(np.diff(level_T <= QUIET, prepend=False, append=False)).reshape(-1, 2)
    pauses = [(a, z) for a, z in edges.tolist() if z - a >= SHORTEST]
    told = list(zip([starts[0], *ends], [*starts, ends[-1]], strict=True))
    gaps = told.copy()
    near = []
    for p, (a, z) in enumerate(pauses):
        for g, gap in enumerate(gaps):
            away = max(a - max(gap), min(gap) - z, 0)
            if away <= min(REACH * (z - a), FARTHEST):
                near.append((away, p, g))
    found: dict[int, int] = {}
    for _, p, g in sorted(near):
        if g not in found and all((p < other) if g < at else (p > other) for at, other in found.items()):
            found[g] = p
            a, z = pauses[p]
            still = a + np.flatnonzero(level_T[a:z] <= max(STILL, level_T[a:z].min()))
            gaps[g] = int(still[0]), int(still[-1]) + 1
    for g, (x, y) in enumerate(gaps):
        if x == y and g not in found and 0 < g < len(starts) and x - LATE > gaps[g - 1][1]:
            gaps[g] = (x - LATE,) * 2
    while crushed := [n for n, (start, end) in enumerate(own) if gaps[n + 1][0] - gaps[n][1] < min(1, end - start)]:
        for n in crushed:  # an edge is that of both its words: no word begins before the one in front of it ends
            gaps[n : n + 2] = told[n : n + 2]
    return [(x, y) for (_, x), (y, _) in pairwise(gaps)]


def _attention(watched: Watched, heard_NTD: torch.Tensor) -> torch.Tensor:
    """[N, H, S, T]"""
    layer = watched.attention
    query_NHSK, key_NHTK = (
        x.unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
        for x in (torch.cat(watched.queries, 1), layer.k_proj(heard_NTD))
    )
    return (query_NHSK @ key_NHTK.transpose(2, 3) * layer.scaling).softmax(-1)


def sharpened(attention_HST: torch.Tensor) -> torch.Tensor:
    """[S, T]: how much more than others each token attends to a state; medians over time, the mean of the heads."""
    mean_H1T = attention_HST.mean(1, keepdim=True)
    spread_H1T = attention_HST.std(1, correction=0, keepdim=True).clamp(min=1e-6)
    around = F.pad((attention_HST - mean_H1T) / spread_H1T, (SMOOTH // 2, SMOOTH // 2), mode="replicate")
    return around.unfold(-1, SMOOTH, 1).median(-1).values.mean(0)


def first_states(cost_ST: np.ndarray) -> np.ndarray:
    """[S]: the first state of each token on the way of least cost from the first state and token to the last ones."""
    tokens, states = cost_ST.shape
    before_ST = np.concatenate([np.zeros((tokens, 1)), cost_ST.cumsum(1)], 1)
    least_ST = np.empty((tokens, states))
    least_ST[0] = before_ST[0, 1:]
    for s in range(1, tokens):
        came_T = np.minimum(least_ST[s - 1], np.concatenate([[np.inf], least_ST[s - 1, :-1]]))
        least_ST[s] = before_ST[s, 1:] + np.minimum.accumulate(came_T - before_ST[s, :-1])
    starts_S, t = np.zeros(tokens, np.int64), states - 1
    for s in range(tokens - 1, 0, -1):
        while t and least_ST[s, t - 1] < min(least_ST[s - 1, t], least_ST[s - 1, t - 1]):
            t -= 1
        starts_S[s] = t
        t -= t > 0 and least_ST[s - 1, t - 1] <= least_ST[s - 1, t]
    return starts_S
