"""The steps of `gpu_speed` in full size without a GPU: shapes go through the model, no number is computed.

    python -m benchmarks.gpu_dry [--train lora full] [--data text images speech] [--compile] [--tiny]

Model, row and stage are those of `gpu_speed`, on PyTorch's meta device; packed rows take the way that they take on a
GPU, up to the kernel (`varlen_attn`), of whose result only the shape is known. A line is printed for what ended:

- products: FLOPs of matrix products and convolutions of one step, forward and backward, as torch counts them while it
  runs without activation checkpointing; and by the formula that `gpu_speed` reports. Attention is in neither.
- kept: bytes that autograd keeps for the backward pass, with checkpointing, where all is in bfloat16. Under autocast,
  as training runs, norms and what rotary embeddings turn are in float32, and weights have copies.
- memory: of one GPU, as `weft show` computes it.
- with --compile, each layer of the decoder goes through torch.compile (backend "aot_eager": traced forward and backward
  by Dynamo and AOTAutograd, no kernel is made): graphs and breaks with activation checkpointing / without, and why.

Nothing here is a speed. Kernels, autocast, clipping and the optimizer's step are not run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from benchmarks.gpu_speed import flops, made, row, staged
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from weft.models import attention
from weft.training.optim import embedding_ids
from weft.training.outline import stage_size
from weft.training.parts import apply_parts, set_modes, spare_activations
from weft.training.recipe import ModelSpec, Recipe
from weft.training.sizes import outlined
from weft.training.update import backward

ATTENTION = ("attention", "attn")  # in names of operations


@contextmanager
def as_on_gpu() -> Iterator[None]:
    """Packed rows take the way of a GPU whose kernels take half precision."""
    with patch.object(attention, "takes_varlen", lambda value: value.dtype == torch.bfloat16):
        yield


class Kept:
    """Bytes that autograd keeps while it is open, each storage once; ``model``'s own weights are not counted."""

    def __init__(self, model: Any) -> None:
        self.weights = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
        self.storages: dict[int, torch.UntypedStorage] = {}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.weights:
            self.storages[storage._cdata] = storage
        return tensor

    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self.storages.values())


def step(model: Any, batch: Any) -> None:
    """Loss and gradients of one row."""
    model.zero_grad(set_to_none=True)
    with as_on_gpu():
        backward(model, [batch], precision="float32", seed=(0, 0))  # no autocast: there is none for shapes


class Products(TorchDispatchMode):
    """FLOPs of products and convolutions while it is open, by torch's own formulas.

    Not `FlopCounterMode`, which keeps count of modules too and so ends at a gradient that is asked for on the way, as
    the loss does.
    """

    counted = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out, kwargs = func(*args, **(kwargs or {})), kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None and not any(word in str(func) for word in ATTENTION):
            self.counted += formula(*args, **kwargs, out_val=out)
        return out


def dry(data: str, train: str, *, tiny: bool, tokens: int, compiled: bool) -> dict[str, Any]:
    """What one line of `gpu_speed` comes to."""
    began, full = time.process_time(), train == "full"
    model, processor = made(data, tiny, "meta")
    stage = staged(data, full, True).model_copy(update={"row_tokens": tokens})
    recipe = Recipe(name="dry", model=ModelSpec(), stages=(stage,))
    memory = stage_size(outlined(model.config, processor), stage, recipe).memory.total
    trained = apply_parts(model, stage)
    set_modes(model, stage)
    model.bfloat16()
    batch = row(processor, data, tokens, np.random.default_rng(0))
    lengths = batch.inputs["segment_lengths"].double()
    with Products() as products:
        step(model, batch)
    without = [name for part in trained for name, p in part.parameters.items() if p.grad is None]
    decoder, encoder = flops(model, batch, full)
    text = model.config.text_config
    pairs = 3 * float((lengths**2).sum()) / 2 * 4 * text.hidden_size * text.num_hidden_layers  # as the formula has them
    spare_activations(model, True)
    kept = Kept(model)
    with kept.hooks:
        step(model, batch)
    found = {
        "data": data,
        "train": train,
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for part in trained for p in part.parameters.values()),
        "tables": len(embedding_ids(model)),
        "tokens": batch.tokens,
        "samples": len(lengths),
        "labels": batch.labels,
        "counted": products.counted,
        "formula": decoder + encoder - pairs,
        "kept": kept.bytes(),
        "memory": memory,
        "without_gradient": without,
    }
    if compiled:
        for layer in model.get_decoder().layers:
            layer.compile(backend="aot_eager", dynamic=False)
        found |= {"with": traced(model, batch, True), "without": traced(model, batch, False)}
    return found | {"seconds": time.process_time() - began}


def traced(model: Any, batch: Any, checkpointing: bool) -> tuple[int, int, set[str]]:
    """How many graphs the compiled layers of one step came to, how often one broke off, and why."""
    spare_activations(model, checkpointing)
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    step(model, batch)
    broken = counters["graph_break"]
    return counters["stats"]["unique_graphs"], sum(broken.values()), {reason.splitlines()[0] for reason in broken}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=("text", "images", "speech"), default=["text", "images", "speech"])
    parser.add_argument("--train", nargs="+", choices=("lora", "full"), default=["lora", "full"])
    parser.add_argument("--row-tokens", type=int, default=8192)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    columns = ["data, trains", "B parameters, trained", "samples, tokens, labels", "TFLOP: counted / by formula"]
    columns += [
        "kept, GB",
        "memory, GB",
        "without a gradient",
        *["graphs, breaks: with / without"] * asked.compile,
        "CPU s",
    ]
    print("| " + " | ".join(columns) + " |")
    print("|---" * (8 + asked.compile) + "|")
    for data in asked.data:
        for train in asked.train:
            tokens = 1024 if asked.tiny else asked.row_tokens
            d = dry(data, train, tiny=asked.tiny, tokens=tokens, compiled=asked.compile)
            told = f"| {data}, {train} | {d['parameters'] / 1e9:.2f}, {d['trained'] / 1e9:.3f} "
            told += f"| {d['samples']}, {d['tokens']:,}, {d['labels']:,} "
            told += f"| {d['counted'] / 1e12:.4g} / {d['formula'] / 1e12:.4g} | {d['kept'] / 1e9:.2f} "
            told += f"| {d['memory'] / 1e9:.0f} | {len(d['without_gradient'])} |"
            if asked.compile:
                told += f" {d['with'][0]}, {d['with'][1]} / {d['without'][0]}, {d['without'][1]} |"
            print(f"{told} {d['seconds']:.0f} |")
            for reason in sorted({*d["without_gradient"], *(d["with"][2] | d["without"][2] if asked.compile else ())}):
                print(f"    {reason}", flush=True)


if __name__ == "__main__":
    main()
