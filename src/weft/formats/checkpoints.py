"""Published weight files in, a weft folder out, one tensor at a time.

Reading never runs code from a file: safetensors, and pickles through `torch.load(weights_only=True)`. Tensors stay on
disk (memory-mapped) until they are asked for, and are written as they come, so a checkpoint of any size converts
within the memory of its largest tensor. What their names mean is in `mapping` and each system's table.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakSet

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from torch import Tensor

from weft.conversation import WeftError
from weft.files import whole_folder, write_json
from weft.models.doors import PICKLES, check_index, check_safetensors, json_object

Shape = tuple[int, ...]
NO_FOLDER = "{}: not a folder; give the folder that holds config.json and the weights"
SHARD_BYTES = 4 * 2**30
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SAFETENSORS_NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
}


class CheckpointError(WeftError):
    """A weight file that cannot be read, or whose tensors are not the expected ones."""


@dataclass
class Tensors:
    """Named tensors of one input, read when asked for. ``label`` names the input in messages."""

    label: str
    shapes: dict[str, Shape]
    dtypes: dict[str, torch.dtype]
    read: Callable[[str], Tensor]
    extra: dict[str, Any] = field(default_factory=dict)  # what a pickle holds besides tensors (a training config)
    used: set[str] = field(default_factory=set)
    surplus: set[str] = field(default_factory=set)

    def __getitem__(self, name: str) -> Tensor:
        return self.read(name)

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def kept_dtype(self, name: str) -> torch.dtype | None:
        """The type that a tensor keeps in every folder; None: it is a floating one, and takes that of the folder."""
        return None if self.dtypes[name].is_floating_point else self.dtypes[name]

    def dtype(self) -> torch.dtype:
        """The floating type that most of the values have."""
        sizes: dict[torch.dtype, int] = {}
        for name, kind in self.dtypes.items():
            if kind.is_floating_point:
                sizes[kind] = sizes.get(kind, 0) + math.prod(self.shapes[name])
        return max(sizes, key=lambda kind: sizes[kind], default=torch.float32)


def said(shape: Sequence[int]) -> str:
    """A shape in a message."""
    return f"({', '.join(map(str, shape))})"


def some(names: Sequence[str], limit: int = 8) -> str:
    """The first of many names in a message."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def stored_dtype(dtype: str, weights: Tensors) -> torch.dtype:
    """The type to write: ``auto`` is what most values of ``weights`` (the language model's) are stored in."""
    if dtype == "auto":
        stored = weights.dtype()
        return stored if stored in DTYPES.values() else torch.float32
    if dtype not in DTYPES:
        raise CheckpointError(f"--dtype {dtype}: not one of auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def read_folder(folder: Path, pickles: bool = True) -> Tensors:
    """The weights of a Hugging Face folder: one file or shards with an index, safetensors or pickles.

    ``pickles`` False: of a folder in weft's own layout, which has none.
    """
    if not folder.is_dir():
        raise CheckpointError(NO_FOLDER.format(folder))
    if not pickles:
        check_safetensors(folder)
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = folder / f"{stem}.{suffix}.index.json"
        if index.exists():
            check_index(index)
            names = read_json(index).get("weight_map", {})
            parts = sorted(set(names.values()))
            absent = [p for p in parts if not (folder / p).exists()]
            if not parts or absent:
                raise CheckpointError(f"{index}: names {some(absent) or 'no'} files that are not in the folder")
            joined = join([read_file(folder / p) for p in parts], str(folder))
            lost = sorted(set(names) - set(joined.shapes))
            if lost:
                raise CheckpointError(f"{folder}: the index lists {some(lost)}, which its shards do not hold")
            return joined
        single = folder / f"{stem}.{suffix}"
        if single.exists():
            return read_file(single, label=str(folder))
    loose = sorted(folder.glob("*.safetensors")) or sorted(folder.glob(PICKLES))
    if loose:  # shards whose index was not downloaded: complete or not, the key map will tell
        return join([read_file(p) for p in loose], str(folder))
    raise CheckpointError(f"{folder}: holds no weights (model.safetensors, pytorch_model.bin or shards of them)")


def join(parts: Sequence[Tensors], label: str) -> Tensors:
    """Several files as one input. A name in two files is an error."""
    home: dict[str, Tensors] = {}
    for part in parts:
        for name in part.shapes:
            if name in home:
                raise CheckpointError(f"{label}: {name} is in {home[name].label} and in {part.label}")
            home[name] = part
    shapes = {n: t.shapes[n] for n, t in home.items()}
    dtypes = {n: t.dtypes[n] for n, t in home.items()}
    return Tensors(label, shapes, dtypes, lambda name: home[name].read(name))


def read_file(file: Path, label: str | None = None, inside: str | None = None) -> Tensors:
    """One weight file. ``inside`` names the entry of a pickled dictionary that holds the tensors, if it has it."""
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file")
    if file.suffix == ".safetensors":
        return _read_safetensors(file, label or str(file))
    return _read_pickle(file, label or str(file), inside)


def _read_safetensors(file: Path, label: str) -> Tensors:
    def opened() -> Any:
        try:
            return safe_open(file, framework="pt")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: not a whole safetensors file ({error}); download it again") from error

    first = opened()
    names = list(first.keys())
    shapes = {n: tuple(first.get_slice(n).get_shape()) for n in names}
    kinds = {text: kind for kind, text in _SAFETENSORS_NAMES.items()}
    dtypes = {n: kinds.get(first.get_slice(n).get_dtype(), torch.uint8) for n in names}
    return Tensors(label, shapes, dtypes, _Mapped(lambda: opened().get_tensor))


def _read_pickle(file: Path, label: str, inside: str | None) -> Tensors:
    entries, extra = _load_pickle(file, inside)
    shapes = {n: tuple(t.shape) for n, t in entries.items()}
    dtypes = {n: t.dtype for n, t in entries.items()}
    read: Callable[[str], Tensor] = entries.__getitem__
    if zipfile.is_zipfile(file):
        read = _Mapped(lambda: _load_pickle(file, inside)[0].__getitem__)
    return Tensors(label, shapes, dtypes, read, extra)


def _load_pickle(file: Path, inside: str | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a pickle and what lies beside them under other keys than ``inside``."""
    try:
        # Only a zip archive (torch >= 1.6) can be mapped; the older format is read whole.
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        needs = re.search(r"GLOBAL (\S+)", str(error))
        raise CheckpointError(
            f"{file}: {f'needs {needs[1]}, which is' if needs else 'is damaged, or holds'} more than tensors and plain "
            f"data; loading it could run code, so it is refused (save its state dict alone, best as safetensors)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{file}: not a whole PyTorch file; download it again") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file}: holds a {type(content).__name__}, not a dictionary of tensors")
    held = content.get(inside) if inside else None
    entries = dict(held) if isinstance(held, Mapping) else dict(content)
    extra = {k: v for k, v in content.items() if k != inside} if isinstance(held, Mapping) else {}
    odd = [str(k) for k, v in entries.items() if not isinstance(v, Tensor)]
    if odd:
        raise CheckpointError(f"{file}: {some(odd)}: not tensors; expected a dictionary of tensors")
    return entries, extra


class _Mapped:
    """Reads tensors of a memory-mapped file; all such files together are mapped anew after every half GiB.

    Pages that were touched count as the process's memory for as long as their mapping lives, so one mapping for a whole
    checkpoint would show (and under a memory limit be charged) as if everything had been loaded.
    """

    limit = 2**29  # bytes
    open_files: ClassVar[WeakSet[_Mapped]] = WeakSet()

    def __init__(self, open_file: Callable[[], Callable[[str], Tensor]]) -> None:
        self.open_file, self.served = open_file, 0
        self.get: Callable[[str], Tensor] | None = None

    def __call__(self, name: str) -> Tensor:
        if sum(file.served for file in self.open_files) > self.limit:
            for file in list(self.open_files):
                file.get, file.served = None, 0
            self.open_files.clear()
        if self.get is None:
            self.get = self.open_file()
            self.open_files.add(self)
        tensor = self.get(name)
        self.served += tensor.nbytes
        return tensor


def read_json(file: Path) -> dict[str, Any]:
    try:
        return json_object(file)
    except OSError as error:
        if not file.parent.is_dir():
            raise CheckpointError(NO_FOLDER.format(file.parent)) from None
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CheckpointError(f"{file}: not JSON ({error})") from error


def check_weft(folder: Path, name: str) -> None:
    """Raises `CheckpointError` where the folder, which the user called ``name``, is not that of a weft model."""
    if not (folder / "config.json").is_file():
        wanted = "name the folder of a checkpoint"
        if (folder / "run.json").is_file():  # of a run, whose model lies in it, or beside NAME.run
            left = (Path(name) / "final", Path(str(name).rstrip("/").removesuffix(".run")))
            found = next((model for model in left if model.is_dir() and model != Path(name)), None)
            wanted = f"it is a run, and its model is {found}" if found else f"weft train --resume {name} ends the run"
        raise CheckpointError(f"{name} holds no model: there is no config.json in it; {wanted}")
    check_kind(name, read_json(folder / "config.json"))


def check_kind(name: str, config: dict[str, Any]) -> None:
    """Raises `CheckpointError` where the content of a config.json is of another kind of model than weft's."""
    kind = config.get("model_type")
    if kind is None:
        raise CheckpointError(f"{name} holds no model: its config.json names no model_type; copy the checkpoint again")
    if kind != "weft":
        raise CheckpointError(
            f"{name} is a {kind} checkpoint, not a weft one; `weft import --help` lists what can be imported, and a "
            f"recipe composes a model from parts"
        )


@dataclass(frozen=True)
class Output:
    """One tensor to be written: its name in the weft folder, its shape, and how to make it (called once, late)."""

    name: str
    shape: Shape
    make: Callable[[], Tensor]
    dtype: torch.dtype | None = None  # None: the type the whole folder is written in


def copy(tensors: Tensors, name: str, to: str) -> Output:
    """An output that is an input under another name."""
    return Output(to, tensors.shapes[name], lambda: tensors[name], tensors.kept_dtype(name))


def write_weights(
    outputs: Sequence[Output],
    folder: Path,
    dtype: torch.dtype,
    progress: Callable[[int, int], None] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> int:
    """Writes ``outputs`` as `model.safetensors`, or as shards with an index; returns the bytes written.

    A safetensors header holds only shapes and types, so it is written first and the tensors follow one by one.
    ``progress`` gets the bytes done and in all.
    """
    held = {output.name: output for output in outputs}
    plan = split_state_dict_into_shards_factory(
        held,
        get_storage_size=lambda output: _bytes(output, dtype),
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_bytes,
    )
    total, done, free = sum(_bytes(output, dtype) for output in outputs), 0, shutil.disk_usage(folder).free
    if total > free:
        raise CheckpointError(f"{folder}: needs {total / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB free")
    for file, names in plan.filename_to_tensors.items():
        for written in _write_shard([held[name] for name in names], folder / file, dtype):
            done += written
            if progress is not None:
                progress(done, total)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        write_json(folder / "model.safetensors.index.json", index, 2)
    return total


def _bytes(output: Output, dtype: torch.dtype) -> int:
    return math.prod(output.shape) * (output.dtype or dtype).itemsize


def _write_shard(outputs: Sequence[Output], file: Path, dtype: torch.dtype) -> Iterator[int]:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for output in outputs:
        size = _bytes(output, dtype)
        kind = _SAFETENSORS_NAMES[output.dtype or dtype]
        header[output.name] = {"dtype": kind, "shape": list(output.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    with file.open("wb") as sink:
        sink.write(struct.pack("<Q", len(text)) + text)
        for output in outputs:
            tensor = output.make()
            if tuple(tensor.shape) != output.shape:
                raise CheckpointError(f"{output.name}: made as {said(tensor.shape)}, planned as {said(output.shape)}")
            values = tensor.detach().to(output.dtype or dtype).contiguous()
            # One pass without a mask as large as the tensor; not-a-number passes through both ends.
            if values.numel() and not all(math.isfinite(end) for end in values.aminmax()):
                raise CheckpointError(
                    f"{output.name}: not all values are finite in {output.dtype or dtype}; the file is damaged or the "
                    f"type too narrow (try --dtype float32)"
                )
            sink.write(values.reshape(-1).view(torch.uint8).numpy().data)
            yield _bytes(output, dtype)


@contextmanager
def new_folder(out: Path, force: bool = False) -> Iterator[Path]:
    """A folder to write into that becomes ``out`` only when the block ends well.

    Refuses an ``out`` that has content unless ``force``, and with ``force`` replaces only a model folder.
    """
    out = out.resolve()
    check_out(out, force)
    with whole_folder(out) as folder:
        yield folder


def check_out(out: Path, force: bool = False) -> None:
    """Raises `CheckpointError` where ``out`` cannot be written; called before long work begins."""
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out}: is a file; give a folder that does not exist yet")
    if out.is_dir() and any(out.iterdir()):
        if not force:
            raise CheckpointError(f"{out}: exists and is not empty; give another folder, or --force to replace it")
        if not any((out / name).exists() for name in ("config.json", "adapter_config.json")):
            raise CheckpointError(f"{out}: is not a model folder (no config.json), so --force does not replace it")
