"""A very small random model that sees and hears, and conversations about media made here."""

import numpy as np
import torch
from PIL import Image

from weft.generation import Model
from weft.models.compose import compose

VISION = {
    "kind": "conv",
    "config": {"channels": [8, 16, 16, 16], "layers": 1, "heads": 2},
    "options": {"size": (32, 32)},
}
AUDIO = {
    "kind": "whisper",
    "config": {
        "d_model": 16,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "num_mel_bins": 16,
    },
    "connector": {"kind": "linear", "merge": 4},
    "options": {"window_seconds": 2.0},
}
LANGUAGE = {
    "config": {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
}


def tiny(seed: int = 0, **changes) -> Model:
    model, processor = compose(vision=VISION, audio=AUDIO, language=LANGUAGE, seed=seed, **changes)
    with torch.no_grad():  # random heads are nearly flat: spread them, so that greedy choices are not ties
        head = model.get_output_embeddings().weight
        head.copy_(torch.randn(head.shape, generator=torch.Generator().manual_seed(seed)))
    return Model(model, processor, "tiny")


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 50, 3), dtype=np.uint8))


def sound(seconds: float, seed: int = 0) -> tuple[np.ndarray, int]:
    wave = np.random.default_rng(seed).normal(0, 0.1, round(seconds * 16000)).astype(np.float32)
    return wave, 16000


def user(*parts) -> list[dict]:
    made = []
    for part in parts:
        if isinstance(part, str):
            made.append({"type": "text", "text": part})
        elif isinstance(part, Image.Image):
            made.append({"type": "image", "image": part})
        elif isinstance(part, tuple):
            made.append({"type": "audio", "audio": part})
        else:
            made.append({"type": "task", **part})
    return [{"role": "user", "content": made}]


def questions() -> list[list[dict]]:
    """Text, pictures, sound, both, and several turns, of different lengths."""
    return [
        user("hello"),
        user(picture(1), "what is in the picture?"),
        user(sound(0.7), {"task": "transcribe", "language": "en", "timestamps": False}),
        user(picture(2), picture(3), "which of the two is brighter, and why do you think so?"),
        user(sound(1.3, 1), picture(4), "both"),
        [*user(picture(5), "one"), {"role": "assistant", "content": "two"}, *user("three")],
        user(sound(5.1, 2), "what do you hear in this long clip?"),
        user("a"),
    ]
