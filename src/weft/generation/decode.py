"""The token loop: greedy and sampled decoding of a left-padded batch over a KV cache.

A loop of our own rather than ``model.generate`` because it yields each token as it is made (streaming without threads),
drops rows that are done (a batch costs what its unfinished rows cost) and draws every row from its own generator (an
answer does not depend on its neighbours). Beam search is left to transformers.

Shapes: B rows, L tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, GenerationConfig

from weft.generation.reply import Options

Inputs = dict[str, torch.Tensor]


@torch.inference_mode()
def decode(
    model: Any, inputs: Inputs, options: Options, stop: frozenset[int], limits: Sequence[int]
) -> Iterator[dict[int, int]]:
    """Yields, step by step, the new token of every row that still runs: ``{row: id}``, stop tokens included.

    ``inputs`` is what ``processor.collate(..., padding_side="left")`` gives; ``limits[row]`` is the most tokens that
    row may have. A row ends with a stop token or at its limit.
    """
    mask_BL = inputs["attention_mask"]
    rows = list(range(mask_BL.shape[0]))
    draws = [np.random.default_rng(options.seed) for _ in rows] if options.do_sample else []
    seen_BV = _seen(inputs["input_ids"], mask_BL, model) if options.repetition_penalty != 1 else None
    cache = DynamicCache(config=model.config.get_text_config())
    positions_BL = (mask_BL.cumsum(-1) - 1).clamp(min=0)
    out = model(**inputs, position_ids=positions_BL, cache=cache, use_cache=True, logits_to_keep=1)
    made = 0
    while True:
        logits_BV = out.logits[:, -1].float()
        if seen_BV is not None:
            logits_BV = _penalise(logits_BV, seen_BV, options.repetition_penalty)
        if options.do_sample:
            token_B = _draw(logits_BV, options, np.array([draws[r].random() for r in rows]))
        else:
            token_B = logits_BV.argmax(-1)
        made += 1
        ids = token_B.tolist()
        yield dict(zip(rows, ids, strict=True))
        going = [
            i for i, (row, token) in enumerate(zip(rows, ids, strict=True)) if token not in stop and made < limits[row]
        ]
        if not going:
            return
        if len(going) < len(rows):
            keep = torch.tensor(going, device=token_B.device)
            _keep(cache, keep)
            mask_BL, token_B = mask_BL[keep], token_B[keep]
            seen_BV = None if seen_BV is None else seen_BV[keep]
            rows = [rows[i] for i in going]
        if seen_BV is not None:
            seen_BV.scatter_(1, token_B[:, None], True)
        mask_BL = torch.cat([mask_BL, mask_BL.new_ones(len(rows), 1)], 1)
        out = model(
            input_ids=token_B[:, None],
            attention_mask=mask_BL,
            position_ids=mask_BL.sum(-1, keepdim=True) - 1,
            cache=cache,
            use_cache=True,
            logits_to_keep=1,
        )


def beams(model: Any, inputs: Inputs, options: Options, stop: frozenset[int], limit: int, pad: int) -> list[list[int]]:
    """The best beam of every row, by transformers' search; ids end with a stop token where one was made.

    Where it samples, all rows draw from one generator: give it one row, and the answer does not depend on others.
    """
    config = GenerationConfig(
        max_new_tokens=limit,
        num_beams=options.num_beams,
        do_sample=options.do_sample,
        repetition_penalty=options.repetition_penalty,
        eos_token_id=sorted(stop) or None,
        pad_token_id=pad,
        **(
            {"temperature": options.temperature, "top_p": options.top_p, "top_k": options.top_k}
            if options.do_sample
            else {}
        ),
    )
    devices = [inputs["input_ids"].device] if inputs["input_ids"].device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode():
        if options.seed is None:
            torch.seed()  # else it would be what it was the last time
        else:
            torch.manual_seed(options.seed)
        out_BL = model.generate(**inputs, generation_config=config)
    prompt = inputs["input_ids"].shape[1]
    return [_until(row[prompt:].tolist(), stop) for row in out_BL]


def _keep(cache: DynamicCache, rows: torch.Tensor) -> None:
    """Drops the other rows of a cache, and of the per-row rotary factor that the first Qwen keeps on it."""
    cache.batch_select_indices(rows)
    if (alpha := getattr(cache, "ntk_alpha", None)) is not None:
        cache.ntk_alpha = alpha[rows]  # type: ignore[attr-defined]


def _until(ids: list[int], stop: frozenset[int]) -> list[int]:
    end = next((i + 1 for i, token in enumerate(ids) if token in stop), len(ids))
    return ids[:end]


def _seen(input_ids_BL: torch.Tensor, mask_BL: torch.Tensor, model: Any) -> torch.Tensor:
    """Which ids each row holds already, padding apart: bool [B, V]."""
    vocabulary = model.config.get_text_config().vocab_size
    seen = torch.zeros(len(input_ids_BL), vocabulary, dtype=torch.bool, device=input_ids_BL.device)
    for row, (ids, mask) in enumerate(zip(input_ids_BL, mask_BL, strict=True)):
        seen[row, ids[mask.bool()].clamp(max=vocabulary - 1)] = True
    return seen


def _penalise(logits_BV: torch.Tensor, seen_BV: torch.Tensor, penalty: float) -> torch.Tensor:
    """Divides positive and multiplies negative logits of seen ids by the penalty (Keskar et al. 2019)."""
    changed = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return torch.where(seen_BV[:, : logits_BV.shape[1]], changed, logits_BV)


def _draw(logits_BV: torch.Tensor, options: Options, uniform_B: np.ndarray) -> torch.Tensor:
    """One id a row by inverting the distribution function at ``uniform_B``: the same on any device and in any batch."""
    probs, ids = torch.sort(
        torch.softmax(logits_BV.double() / options.temperature, -1), dim=-1, descending=True, stable=True
    )
    if options.top_k:
        probs[:, options.top_k :] = 0
    before = probs.cumsum(-1) - probs
    probs[before >= options.top_p * probs.sum(-1, keepdim=True)] = 0  # the first is always kept
    total = probs.cumsum(-1)
    point = torch.as_tensor(uniform_B, device=total.device)[:, None] * total[:, -1:]
    place = torch.searchsorted(total, point, right=True).clamp(max=total.shape[1] - 1)
    return ids.gather(1, place)[:, 0]
