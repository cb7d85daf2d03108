"""The small model that weft brings along: random weights, no download, taught by a few minutes of training."""

from __future__ import annotations

from typing import Any

from weft.models.config import Connector, DialectSection
from weft.training.recipe import LanguageSource, ModelSpec, TowerSource

WIDTH = 192


def bundled() -> ModelSpec:
    """About three million parameters: a convolutional image tower, a Whisper-like encoder, and a small decoder."""
    return ModelSpec(
        vision=TowerSource(
            kind="conv",
            config={"channels": [24, 48, 96, WIDTH], "layers": 4, "heads": 3},
            connector=Connector(merge=4, grid=True),
            options={"size": [224, 224], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
        ),
        audio=TowerSource(
            kind="whisper",
            config={
                "d_model": WIDTH,
                "encoder_layers": 4,
                "encoder_attention_heads": 3,
                "encoder_ffn_dim": 4 * WIDTH,
                "num_mel_bins": 80,
                "max_source_positions": 1500,
            },
            connector=Connector(merge=4),
        ),
        language=LanguageSource(
            config={
                "model_type": "llama",
                "hidden_size": WIDTH,
                "intermediate_size": 3 * WIDTH,
                "num_hidden_layers": 4,
                "num_attention_heads": 3,
                "num_key_value_heads": 3,
                "max_position_embeddings": 8192,
                "tie_word_embeddings": True,
            }
        ),
        dialect=DialectSection(name="chatml", switches={"box_bins": 100}),
    )


def bundled_model() -> tuple[Any, Any]:
    """``(model, processor)`` of `bundled`: the same random weights every time, in evaluation mode."""
    from weft.training.build import build_model

    model, processor = build_model(bundled())
    return model.eval(), processor
