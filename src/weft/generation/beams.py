"""Answers by a search with beams, which is left to transformers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from weft.generation.reply import Options

if TYPE_CHECKING:
    from weft.generation.engine import Model

Inputs = dict[str, torch.Tensor]


def searched(model: Model, jobs: list[Any], options: Options, batch_size: int, batch_tokens: int) -> Iterator[int]:
    """Answers prompts in batches of similar length; yields the place of the conversation of each that is answered."""
    for batch in _batches(jobs, options.max_new_tokens, batch_size, batch_tokens):
        limits = [model.room(job.encoded, options.max_new_tokens) for job in batch]
        together: dict[tuple[int, int], list[Any]] = {}
        # A search has one limit, and one source of random numbers, for its rows.
        for i, (job, limit) in enumerate(zip(batch, limits, strict=True)):
            together.setdefault((limit, i if options.do_sample else 0), []).append(job)
        for (limit, _), rows in together.items():
            inputs = model.collated([job.encoded for job in rows])
            found = beams(model.model, inputs, options, model.stop, limit, model.processor.pad_id)
            for job, ids in zip(rows, found, strict=True):
                model.answered(job, ids)
        yield from (job.index for job in batch)


def _batches(jobs: list[Any], new_tokens: int, batch_size: int, batch_tokens: int) -> Iterator[list[Any]]:
    """Prompts that are sorted by their length, the longest first, in batches."""
    while jobs:
        width = len(jobs[0].encoded.input_ids) + new_tokens
        n = max(1, min(batch_size, batch_tokens // width))
        yield jobs[:n]
        jobs = jobs[n:]


def beams(model: Any, inputs: Inputs, options: Options, stop: frozenset[int], limit: int, pad: int) -> list[list[int]]:
    """The best beam of every row, by transformers' search; ids end with a stop token where one was made.

    Where it samples, all rows draw from one generator: give it one row, and the answer does not depend on others.
    """
    without = ("seed",) if options.do_sample else ("seed", "temperature", "top_p", "top_k")
    asked = {name: value for name, value in asdict(options).items() if name not in without}
    ends = {"max_new_tokens": limit, "eos_token_id": sorted(stop) or None, "pad_token_id": pad}
    config = GenerationConfig(**{**asked, **ends})
    devices = [inputs["input_ids"].device] if inputs["input_ids"].device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode():
        if options.seed is None:
            torch.seed()  # else it would be what it was the last time
        else:
            torch.manual_seed(options.seed)
        out_BL = model.generate(**inputs, generation_config=config)
    prompt = inputs["input_ids"].shape[1]
    return [_until(row[prompt:].tolist(), stop) for row in out_BL]


def _until(ids: list[int], stop: frozenset[int]) -> list[int]:
    end = next((i + 1 for i, token in enumerate(ids) if token in stop), len(ids))
    return ids[:end]
