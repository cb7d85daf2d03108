"""A GPU that is not there: tensors on the device "gpu" keep their numbers in CPU memory, and refuse what a GPU refuses.

An operation that mixes tensors of both memories ends with torch's complaint, and everything else gives a CPU's
numbers. What a real card adds (its kernels, autocast, its memory, NCCL) is not tested by it. It must be there before a
process runs its first backward pass: that is when autograd counts the devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map_only

NAME = "gpu"
# The host waits for these.
WAITED_FOR = {"_local_scalar_dense", "nonzero", "masked_select", "equal"}
# CUDA lets these read the other memory: copies, and indices, which it moves itself.
MAY_MIX = {"copy_", "_to_copy", "index", "_index_put_impl_", "index_put_", "index_put"}


class OnGpu(torch.Tensor):
    """A tensor of the stand-in; ``held`` is the CPU tensor behind it."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnGpu:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnGpu({self.held})"

    def tolist(self) -> Any:
        _waits("tolist")
        return self.held.tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert a GPU tensor to numpy; copy it to the CPU first")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Everywhere(TorchDispatchMode):
    """Sees operations without tensors too (``torch.zeros(3, device="gpu")``)."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [*_tensors(args), *_tensors(tuple(kwargs.values()))]
    there, device = any(type(t) is OnGpu for t in tensors), kwargs.get("device")
    made_there = there if device is None else torch.device(device).type == NAME
    if not there and not made_there:
        return func(*args, **kwargs)
    composite, name, aliases = _facts(func)
    if composite:  # without a graph, operations that are made of others arrive whole
        with _Everywhere():
            return func.decompose(*args, **kwargs)
    _refuse(name, args, tensors if there else [])
    chosen = [i.dtype for i in args[1] if i is not None] if name == "index" and there else []
    if (there and name in WAITED_FOR) or torch.bool in chosen:
        _waits(f"{name} of what lies there")
    if name in ("_to_copy", "copy_") and not (kwargs.get("non_blocking") or args[2:3] == (True,)):
        ends = {type(t) is OnGpu for t in tensors} | ({made_there} if device is not None else set())
        if len(ends) > 1:
            _waits("a copy between the memories")
    here = {"device": torch.device("cpu")} if device is not None else {}
    out = func(*_held(args), **{k: _held(v) for k, v in kwargs.items()} | here)
    if name == "copy_":
        return args[0]
    if not made_there:
        return out
    made = OnGpu(out) if isinstance(out, torch.Tensor) else tree_map_only(torch.Tensor, OnGpu, out)
    return return_and_correct_aliasing(func, args, kwargs, made) if aliases else made


@cache
def _facts(func: Any) -> tuple[bool, str, bool]:
    """Whether an operation is made of others, its name, and whether it gives (a view of) what it is given."""
    returns = func._schema.returns
    aliases = any(r.alias_info is not None for r in returns)
    return func._can_decompose(), func._schema.name.removeprefix("aten::"), aliases


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif type(value) in (list, tuple):
            yield from _tensors(value)


def _held(value: Any) -> Any:
    """``value`` with the tensors behind those of the stand-in."""
    if type(value) is OnGpu:
        return value.held
    return type(value)(map(_held, value)) if type(value) in (list, tuple) else value


watched = False  # whether the host may not wait


def _waits(what: str) -> None:
    if watched:
        raise RuntimeError(f"the host waits for the GPU: {what}")


@contextmanager
def waiting(allowed: bool) -> Iterator[None]:
    """Where it is not allowed, an error meanwhile where the host waits for the GPU."""
    global watched
    before, watched = watched, not allowed
    try:
        yield
    finally:
        watched = before


def _refuse(name: str, args: Any, tensors: list[torch.Tensor]) -> None:
    left = [(tuple(t.shape), t.dtype) for t in tensors if not isinstance(t, OnGpu) and t.ndim]
    if left and name not in MAY_MIX:
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got some on the CPU: {left}")
    if left and name == "index" and not isinstance(args[0], OnGpu):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")


def prepare() -> None:
    """Makes the device known; before the first backward pass."""
    if torch._C._get_privateuse1_backend_name() != NAME:
        backend_registration._setup_privateuseone_for_python_backend(NAME)
        torch.get_device_module(NAME).get_amp_supported_dtype = lambda: [torch.bfloat16]


@contextmanager
def stand_in() -> Iterator[str]:
    """The name of a device that works meanwhile."""
    prepare()
    swapped, lifted = torch.__future__.get_swap_module_params_on_conversion(), torch._C._only_lift_cpu_tensors()
    torch.__future__.set_swap_module_params_on_conversion(True)  # tied weights stay one
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(numbers, device=...)` is then seen as a copy
    # subclasses of tensors cannot do without the version counters that inference mode leaves out
    exact = patch.multiple(torch.inference_mode, __enter__=torch.no_grad.__enter__, __exit__=torch.no_grad.__exit__)
    try:
        with exact, _Everywhere():
            yield NAME
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swapped)
        torch._C._set_only_lift_cpu_tensors(lifted)
