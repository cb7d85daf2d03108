"""Items of nothing, for trainers in which every rank has to run the same modules in each step (`modeling`)."""

from __future__ import annotations

from typing import Any

import torch

from weft.models.encoders import ImageKind, SoundKind


def view(kind: ImageKind, device: torch.device) -> torch.Tensor:
    """One view of nothing."""
    return torch.zeros(1, 3, *kind.section.size, device=device)


def window(kind: SoundKind, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """One short window of nothing and its length."""
    frames = kind.window(0, min(kind.window_samples, kind.section.sample_rate // 5)).frames
    shape = (1, frames) if kind.bands is None else (1, frames, kind.bands)
    return torch.zeros(shape, device=device), torch.tensor([frames])


def vision(model: Any) -> torch.Tensor:
    """What a blank picture's embeddings come to, times 0: its gradients are there, and are 0. None of it is drawn."""
    return _undrawn(model, lambda: model.embed_images(view(model.image_kind, model.device)))


def audio(model: Any) -> torch.Tensor:
    """As `vision`, of a window of sound."""
    return _undrawn(model, lambda: model.embed_audio(*window(model.sound_kind, model.device), ends=True))


def _undrawn(model: Any, embed: Any) -> torch.Tensor:
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        return 0.0 * embed().sum()  # type: ignore[no-any-return]
