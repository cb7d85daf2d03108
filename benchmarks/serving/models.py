"""Two models with random weights that see and hear, and questions about media that nobody else asks about."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from weft.generation import Model
from weft.models.compose import compose

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "100m": {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 14, "num_attention_heads": 12},
}
VISION = {"tiny": [8, 16, 32, 32], "100m": [32, 64, 128, 256]}
HEARING = {"tiny": (32, 1), "100m": (256, 4)}  # width, layers


def build(size: str, dtype: torch.dtype = torch.float32) -> Model:
    """One of `SIZES`; its answers differ from question to question, and seldom end before they must."""
    width, layers = HEARING[size]
    shape = SIZES[size]
    model, processor = compose(
        vision={
            "kind": "conv",
            "config": {"channels": VISION[size], "layers": 1, "heads": 2},
            "options": {"size": (64, 64)},
        },
        audio={
            "kind": "whisper",
            "config": {
                "d_model": width,
                "encoder_layers": layers,
                "encoder_attention_heads": width // 16,
                "encoder_ffn_dim": 2 * width,
                "num_mel_bins": 40,
            },
            "connector": {"kind": "linear", "merge": 4},
            "options": {"window_seconds": 4.0},
        },
        language={
            "config": {
                "model_type": "llama",
                "num_key_value_heads": shape["num_attention_heads"] // 2,
                "max_position_embeddings": 2048,
                **shape,
            }
        },
        seed=0,
    )
    with torch.no_grad():  # random heads are nearly flat: spread them, so that greedy choices are not ties
        head = model.get_output_embeddings().weight
        head.copy_(torch.randn(head.shape, generator=torch.Generator().manual_seed(0)))
    return Model(model.to(dtype), processor, size)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (64, 80, 3), dtype=np.uint8))


def sound(seconds: float, seed: int) -> tuple[np.ndarray, int]:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * 16000)).astype(np.float32), 16000


def question(seed: int) -> list[dict[str, Any]]:
    """A picture, a clip, or both, with a question, which nobody else asks."""
    parts: list[dict[str, Any]] = []
    if seed % 3 != 1:
        parts.append({"type": "image", "image": picture(seed)})
    if seed % 3 != 0:
        parts.append({"type": "audio", "audio": sound(0.5 + seed % 4 / 2, seed)})
    parts.append({"type": "text", "text": f"number {seed}: what is this, and what is it not?"})
    return [{"role": "user", "content": parts}]
