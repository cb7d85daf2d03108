"""Weight files of other programs as named tensors: CTranslate2's model.bin, and GGUF (llama.cpp)."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from weft.formats.checkpoints import CheckpointError, Tensors

# CTranslate2's numbers of types; those of eight bits come with scales, which nothing here reads.
CT2_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
CT2_VERSION = 6


def read_ctranslate2(file: Path) -> Tensors:
    """A model.bin of version 6. Little-endian: version; name and revision of its kind; then each tensor's name, sizes,
    type, number of bytes and data; then names that stand for others' tensors.

    A name has its length (2 bytes) before it and a zero at its end; sizes are 4 bytes each, their number and the type
    one. Scalars (settings of the program that wrote them) are left out. Tensors are mapped, not read.
    """
    shapes, dtypes, places = {}, {}, {}
    try:
        with file.open("rb") as source:
            if (version := _unpacked(source, "I")) != CT2_VERSION:
                raise CheckpointError(f"{file}: a CTranslate2 file of version {version}; weft reads {CT2_VERSION}")
            _text(source), _unpacked(source, "I")
            for _ in range(_unpacked(source, "I")):
                name = _text(source)
                shape = tuple(_unpacked(source, "I") for _ in range(_unpacked(source, "B")))
                kind, size = np.dtype(CT2_TYPES[_unpacked(source, "B")]), _unpacked(source, "I")
                if size != math.prod(shape) * kind.itemsize:
                    raise CheckpointError(f"{file}: {name} has {size} bytes for {shape}; it is damaged, fetch it again")
                if shape:
                    shapes[name], places[name] = shape, (kind, source.tell())
                    dtypes[name] = torch.from_numpy(np.empty(0, kind)).dtype
                source.seek(size, 1)
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: no whole CTranslate2 file ({error}); fetch it again") from error

    def read(name: str) -> torch.Tensor:
        kind, offset = places[name]
        return torch.from_numpy(np.fromfile(file, kind, math.prod(shapes[name]), offset=offset).reshape(shapes[name]))

    return Tensors(str(file), shapes, dtypes, read)


def _unpacked(source: IO[bytes], code: str) -> int:
    return int(struct.unpack("<" + code, source.read(struct.calcsize(code)))[0])


def _text(source: IO[bytes]) -> str:
    return source.read(_unpacked(source, "H")).rstrip(b"\0").decode()


def read_gguf(file: Path) -> Tensors:
    """A GGUF file, its tensors dequantised to float32 as they are read; needs the library `gguf`."""
    try:
        from gguf import GGUFReader, dequantize
    except ImportError:
        raise CheckpointError(f"{file}: needs the library gguf; install it with: pip install gguf") from None
    try:
        held: dict[str, Any] = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
    except (ValueError, IndexError, KeyError) as error:
        raise CheckpointError(f"{file}: no whole GGUF file ({error}); fetch it again") from error

    def read(name: str) -> torch.Tensor:
        values = np.array(dequantize(held[name].data, held[name].tensor_type), np.float32)  # some lie in the file
        return torch.from_numpy(values).reshape(shapes[name])

    shapes = {name: tuple(int(n) for n in reversed(tensor.shape)) for name, tensor in held.items()}
    return Tensors(str(file), shapes, dict.fromkeys(shapes, torch.float32), read)
