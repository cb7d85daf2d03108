"""`scratch`, a small model from nothing: random weights, no download, taught by minutes of training."""

from __future__ import annotations

from weft.models.doors import resolve
from weft.models.sections import Connector, DialectSection
from weft.training.recipe import LanguageSource, ModelSpec, TowerSource

WIDTH = 192


def scratch() -> ModelSpec:
    """About four million parameters: small convolutional towers for pictures and sound, and a small decoder.

    Connectors carry the tokens that name places, at a scale that makes media as large as text (embeddings of 0.05).
    """
    return ModelSpec(
        vision=TowerSource(
            kind="conv",
            config={"channels": [24, 48, 96, WIDTH], "layers": 2, "heads": 3},
            connector=Connector(merge=1, places=True, scale=0.1),
            options={"size": [224, 224], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
        ),
        audio=TowerSource(
            kind="conv",
            config={"num_mel_bins": 80, "width": WIDTH},
            connector=Connector(merge=2, places=True, scale=0.1),
        ),
        language=LanguageSource(
            config={
                "model_type": "llama",
                "hidden_size": WIDTH,
                "intermediate_size": 512,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "max_position_embeddings": 8192,
                "initializer_range": 0.05,
                "tie_word_embeddings": True,
            }
        ),
        dialect=DialectSection(name="chatml", switches={"box_bins": 100, "sort_boxes": True}),
    )


BUILT_IN = {"scratch": scratch}


def model_spec(name: str) -> ModelSpec:
    """The model that a name stands for, as a recipe has it: composed anew, or a checkpoint's folder or hub name."""
    return BUILT_IN[name]() if resolve(name) == "built-in" else ModelSpec(base=name)
