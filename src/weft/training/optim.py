"""AdamW in groups, and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from weft.training.parts import TrainedPart
from weft.training.recipe import Optim


def learning_rate(step: int, steps: int | None, optim: Optim) -> float:
    """The rate of update ``step`` (from 0) of ``steps``: a linear warm-up, then the schedule down to ``min_lr``.

    ``steps`` None: not known yet, and the end far away.
    """
    warmup = optim.warmup_steps if steps is None else min(optim.warmup_steps, max(steps - 1, 0))
    if step < warmup:
        return optim.lr * (step + 1) / (warmup + 1)
    if optim.schedule == "constant" or steps is None:
        return optim.lr
    done = (step - warmup) / max(steps - warmup, 1)
    shape = 0.5 * (1 + math.cos(math.pi * done)) if optim.schedule == "cosine" else 1 - done
    return optim.min_lr + (optim.lr - optim.min_lr) * shape


def build_optimizer(parts: Sequence[TrainedPart], optim: Optim, embeddings: set[int]) -> torch.optim.AdamW:
    """One group per (part, decayed or not, single rows or not, who holds it). Biases, norms, other 1-D tensors and
    ``embeddings`` (ids) do not decay: decay would pull the rows of rare tokens towards nothing between their turns.
    """
    groups: dict[tuple[str, bool, bool, str], dict[str, Any]] = {}
    for part in parts:
        for name, p in part.parameters.items():
            rows = "trainable_tokens_delta" in name  # peft's name for single rows of an embedding
            decays = p.ndim >= 2 and not rows and id(p) not in embeddings
            scale = part.training.lr_scale * (part.training.tokens_lr_scale if rows else 1)
            group = {"params": [], "weight_decay": optim.weight_decay if decays else 0.0, "lr_scale": scale}
            key = part.name, not decays, rows, str(getattr(p, "device_mesh", ""))
            groups.setdefault(key, group)["params"].append(p)
    ordered = [groups[key] for part in parts for key in sorted(groups) if key[0] == part.name]
    return torch.optim.AdamW(ordered, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True)


def embedding_ids(model: nn.Module) -> set[int]:
    return {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def step_where_finite(optimizer: torch.optim.AdamW, finite: torch.Tensor) -> None:
    """An update of the weights where ``finite`` (bool, on their device) says so, else none at all; nobody waits.

    Fused AdamW has this for scaled gradients; weights, moments and steps stay as they are.
    """
    optimizer.grad_scale, optimizer.found_inf = None, (~finite).float()  # type: ignore[attr-defined]
    optimizer.step()


def optimizer_state(optimizer: torch.optim.Optimizer, names: dict[int, str]) -> dict[str, torch.Tensor]:
    """The optimizer's tensors as ``{"exp_avg/<parameter>": tensor, ...}``; ``names`` by parameter id."""
    return {
        f"{kind}/{names[id(p)]}": value
        for p, state in optimizer.state.items()
        for kind, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], parameters: dict[str, nn.Parameter]
) -> None:
    """The reverse of `optimizer_state`; what is of no parameter is left out."""
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        if (p := parameters.get(name)) is not None:
            optimizer.state[p][kind] = value.to(p.device)  # the step too: fused AdamW keeps it there
