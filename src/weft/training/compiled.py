"""A run whose layers go through `torch.compile`, where its recipe says ``compile``.

Layer by layer, for layers of one kind share their graphs: a language model of thirty layers is compiled in the time of
one. Packed rows are filled up to the whole row, with a sample of filling that nothing is learned from, so that rows of
every length are one shape; what pictures and clips there are differs, and is compiled anew once, for any number.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch._dynamo.utils import counters
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from weft.data.loader import Batch
from weft.models import attention
from weft.models.loss import IGNORE
from weft.training.sharding import units

BACKEND = "inductor"
MOST_GRAPHS = 64  # of one kind of layer: with and without gradient, in training and evaluation, for kinds of batches


class Compiled:
    """Compiles the layers of a stage's model, or says why it does not; the run then goes on without."""

    def __init__(self, run: Any) -> None:
        """``run``: a `StageRun` whose parts are chosen."""
        self.run, self.on, self.seen, self.row, self.after = run, False, 0, 0, ExitStack()
        if problem := why_not(run.ranks.device):
            run.log.say(f"  compile: {problem}; the run goes on without")
            return
        # A layer that cannot be compiled runs as it is.
        self.after.enter_context(torch._dynamo.config.patch(recompile_limit=MOST_GRAPHS, suppress_errors=True))
        if not run.ranks.device.startswith("cuda"):
            # It goes sample by sample here: a graph would be one of this row's lengths, and made anew for the next.
            ALL_ATTENTION_FUNCTIONS.register(attention.NAME, torch.compiler.disable(attention.weft_attention))
            self.after.callback(ALL_ATTENTION_FUNCTIONS.register, attention.NAME, attention.weft_attention)
        counters.clear()
        for layer in units(run.model):
            layer.compile(backend=BACKEND)
        if run.handed.evaluate is not None:
            run.handed = replace(run.handed, evaluate=partial(answered, run.handed.evaluate))
        self.on = True
        self.row = run.stage.row_tokens * run.stage.rows if run.stage.packing else 0

    def filled(self, micro: list[Batch]) -> list[Batch]:
        """The micro-steps of the next update, packed rows as long as all others: what they are filled with is a sample
        of its own, without labels. Graphs that the update before made are told."""
        graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
        if self.on and graphs > self.seen:
            self.run.log.write("compiled", step=self.run.at.step, graphs=graphs, breaks=breaks)
            self.run.log.say(f"  compiled {graphs - self.seen} graphs{' more' * bool(self.seen)} (breaks: {breaks})")
            self.seen = graphs
        return [filled(batch, self.row, self.run.processor.pad_id) for batch in micro]

    def close(self) -> None:
        """Leaves the process as it was."""
        self.after.close()


def answered(evaluate: Any, *asked: Any) -> Any:
    """What ``evaluate`` gives of layers as they are: each length of a prompt, and of an answer, would be compiled."""
    with torch.compiler.set_stance("force_eager"):
        return evaluate(*asked)


def filled(batch: Batch, row: int, filler: int) -> Batch:
    """A packed row of ``row`` tokens, if it has fewer."""
    ids_BL, lengths_S = batch.inputs.get("input_ids"), batch.inputs.get("segment_lengths")
    more = 0 if ids_BL is None or lengths_S is None else row - ids_BL.shape[1]
    if more <= 0:
        return batch
    added = {
        "input_ids": torch.full((1, more), filler),
        "labels": torch.full((1, more), IGNORE),
        "position_ids": torch.zeros(1, more),  # further on there may be none, or angles that count for the whole row
        "segment_lengths": torch.tensor([more]),
    }
    joined = {k: torch.cat([batch.inputs[k], v.to(batch.inputs[k].dtype)], -1) for k, v in added.items()}
    return replace(batch, inputs={**batch.inputs, **joined})


def why_not(device: str) -> str | None:
    """Why nothing can be compiled for the device; None where it can: a few numbers are, for whoever lacks a compiler
    hears it here."""
    try:
        with torch._dynamo.config.patch(suppress_errors=False):
            torch.compile(lambda x: x * 2 + 1, backend=BACKEND)(torch.ones(8, device=device))
    except Exception as error:  # torch has a kind of its own for each thing that may be wrong
        said = [line.strip() for line in str(error).splitlines() if line.strip() and not line.endswith("raised:")]
        return f"torch.compile does not work here ({said[0] if said else type(error).__name__})"
    return None
