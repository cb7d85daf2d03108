"""What an update costs: FLOPs of its matrix products, the rate that this machine has for them, memory, a trace.

A product counts 2 FLOPs for each weight and position forward, 2 for the gradient of its input where something before
it learns, and 2 for its own where it trains. Embedding tables and attention between positions are not counted, padding
is, and what activation checkpointing does twice counts once.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

# Dense bfloat16 FLOP/s that makers state, by a part of the GPU's name: model FLOPs utilisation is a share of these.
STATED = {"B200": 2.25e15, "H200": 9.89e14, "H100": 9.89e14, "A100": 3.12e14, "L40S": 3.62e14, "L4": 1.21e14}
SIDE = 768  # of the matrices by which a CPU's rate is measured
PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d)
TRACED = 3  # updates of a trace; two before them warm up


class Flops:
    """Counts a model's FLOPs while it is open, forward and for the backward pass to come; by part.

    ``decoder`` is the language model and its output head, ``encoder`` all else. Of a layer that is compiled each
    product is taken to be as long as the layer's output: a number that was counted inside would be one that its graphs
    hold for, and they would be made anew in each update.
    """

    def __init__(self, model: nn.Module) -> None:
        self.counted, self._open = {"encoder": 0, "decoder": 0}, False
        language = {id(module) for part in model.part("language") for module in part.modules()}  # type: ignore[operator]
        self._hooks = [
            module.register_forward_hook(self._counter("decoder" if id(module) in language else "encoder"))
            for module in model.modules()
            if isinstance(module, PRODUCTS)
        ]
        self._compiled = [(layer, made) for layer in model.modules() if (made := layer._compiled_call_impl) is not None]
        for layer, made in self._compiled:
            whole = partial(self._whole, layer, "decoder" if id(layer) in language else "encoder", made)
            layer._compiled_call_impl = whole

    def __enter__(self) -> Flops:
        self._open = True
        return self

    def __exit__(self, *_: Any) -> None:
        self._open = False

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()
        for layer, made in self._compiled:
            layer._compiled_call_impl = made

    def taken(self) -> tuple[int, ...]:
        """What was counted since the last time: the encoder's and the decoder's."""
        found, self.counted = self.counted, dict.fromkeys(self.counted, 0)
        return tuple(found.values())

    def _counter(self, part: str) -> Callable[..., None]:
        def count(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if not torch.compiler.is_compiling() and self._open:
                self.counted[part] += product_flops(module, inputs[0], output)

        return count

    def _whole(self, layer: nn.Module, part: str, made: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A compiled layer's pass; what enters its products is taken to learn where what leaves the layer does."""
        before = self.counted[part]
        out = made(*args, **kwargs)
        if self._open:
            mixed = out if isinstance(out, torch.Tensor) else out[0]
            products = (module for module in layer.modules() if isinstance(module, PRODUCTS))
            self.counted[part] = before + sum(product_flops(module, mixed, mixed) for module in products)
        return out


def product_flops(module: Any, given: torch.Tensor, output: torch.Tensor) -> int:
    """FLOPs of a linear layer or a convolution that made ``output`` of ``given``, backward pass included."""
    if isinstance(module, nn.Linear):  # by its own widths: of a layer that ranks compute together they see a part
        once = 2 * module.in_features * module.out_features * (output.numel() // output.shape[-1])
    else:
        once = 2 * module.weight.shape[1:].numel() * output.numel()
    learns = torch.is_grad_enabled() and output.requires_grad
    return once * (1 + (learns and given.requires_grad) + (learns and module.weight.requires_grad))


@lru_cache(maxsize=8)
def product_rate(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of matrix products: of a GPU as its maker states them, of a CPU the best of some, with torch's threads."""
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
        return next((rate for part, rate in STATED.items() if part in name), 0.0)
    one = torch.randn(SIDE, SIDE).to(device, dtype)
    best = float("inf")
    for _ in range(4):
        started = time.thread_time()  # other programs may hold the processor meanwhile
        torch.mm(one, one)
        best = min(best, time.thread_time() - started)
    return 2 * SIDE**3 / best


def memory_gb(device: str) -> float:
    """The most that this process held so far, in GB: on a GPU of its memory."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


class Meter:
    """What the log tells of a stage's updates beside their numbers. ``say`` is told where bfloat16 is slower."""

    def __init__(self, model: nn.Module, device: str, *, half: bool, say: Callable[[str], None]) -> None:
        self.flops, self.device = Flops(model), device
        self.rate = product_rate(device, torch.bfloat16 if half else torch.float32)
        if half and device == "cpu" and (single := product_rate(device, torch.float32)) > 1.2 * self.rate:
            say(
                f"  float32 is the faster type on this processor ({single / 1e9:.0f} against {self.rate / 1e9:.0f} "
                "GFLOP/s in matrix products): --set precision=float32"
            )

    def facts(self, tokens: int, flops: Sequence[int], seconds: float, world: int) -> dict[str, Any]:
        """``flops`` of the encoder and the decoder on all ranks; ``share``: of the rate that products have."""
        encoder, decoder = flops
        return {
            "tokens_per_second": round(tokens / seconds, 1),
            "encoder_tflop": round(encoder / 1e12, 6),
            "decoder_tflop": round(decoder / 1e12, 6),
            "share": round((encoder + decoder) / seconds / world / self.rate, 4) if self.rate else 0.0,
            "memory_gb": round(memory_gb(self.device), 3),
        }


@contextmanager
def traced(file: Path | None) -> Iterator[Callable[[], None]]:
    """Writes a trace of the updates 3 to 5 to ``file``, for Perfetto; gives what to call after each."""
    if file is None:
        yield lambda: None
        return
    from torch import profiler

    def write(done: profiler.profile) -> None:
        done.export_chrome_trace(str(file))

    plan = profiler.schedule(wait=1, warmup=1, active=TRACED, repeat=1)
    with profiler.profile(schedule=plan, on_trace_ready=write, record_shapes=True) as work:
        yield work.step
