"""What tells one model from another, wherever it lies: answers of other weights are never mixed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from weft.generation.engine import Model

LOOKED_AT = 64  # numbers of each tensor that tell one model's weights from another's


def identity(model: Model) -> dict[str, Any]:
    """What an answer depends on besides what is asked and how."""
    return {
        "config": _settings(model.model.config.to_dict()),
        "weights": _weights(model.model),
        "dtype": str(model.dtype),
        "switches": model.processor.dialect.switches.model_dump(mode="json"),
    }


def _settings(config: Any) -> Any:
    """A configuration without where it came from and who wrote it."""
    if not isinstance(config, dict):
        return config
    return {k: _settings(v) for k, v in config.items() if k not in ("_name_or_path", "transformers_version")}


def _weights(model: torch.nn.Module) -> str:
    """A few numbers of every tensor: training moves all of them, and reading whole weights would take minutes."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        flat = tensor.detach().flatten()
        few = flat[:: max(1, len(flat) // LOOKED_AT)]
        digest.update(f"{name} {tuple(tensor.shape)} {few.double().tolist()}".encode())
    return digest.hexdigest()
