"""What training a 7B and a 70B model takes on each of n devices that share it out: computed, no weight is made.

    python benchmarks/scale_memory.py [--row-tokens 8192]

The figure after the slash: of devices of which 4 (7B) or 8 (70B, as many as it has heads of keys) compute each layer of
one row together (`parallel.tensor`).

The language models have the shapes of Qwen2.5-7B and Llama-3-70B, the encoders those of SigLIP 2 so400m at 384 pixels
and Whisper-large-v3-turbo. Counted as `weft show` counts (`weft.training.sizes`); no GPU has run this.
"""

from __future__ import annotations

import argparse

from weft.models.config import Connector
from weft.recipes.omni import LARGE_TOWERS
from weft.training.recipe import FULL, LanguageSource, Lora, ModelSpec, PartTraining, Recipe, Stage, TowerSource
from weft.training.sizes import planned, stage_size

LANGUAGE = {
    "7B": {"model_type": "qwen2", "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944}
    | {"num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False},
    "70B": {"model_type": "llama", "vocab_size": 128256, "hidden_size": 8192, "intermediate_size": 28672}
    | {"num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "tie_word_embeddings": False},
}
DEVICES = 1, 8, 16, 64, 256
TOGETHER = {"7B": 4, "70B": 8}  # no more than there are heads of keys
ALL = dict.fromkeys(("vision", "vision_connector", "audio", "audio_connector"), FULL)
TRAINS = {
    "full": {**ALL, "language": FULL},
    "LoRA r 64, encoders frozen": {
        "vision_connector": FULL,
        "audio_connector": FULL,
        "language": PartTraining(train="lora", lora=Lora(r=64, alpha=128)),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row-tokens", type=int, default=8192)
    asked = parser.parse_args()
    vision, audio = (TowerSource(source=name, connector=Connector(kind="mlp", merge=4)) for name in LARGE_TOWERS)
    print(f"GB on each device, bfloat16, one row of {asked.row_tokens:,} tokens, activation checkpointing\n")
    print("| model | trains | of it weights, gradients, moments |" + "".join(f" {n} |" for n in DEVICES))
    print("|---|---|---|" + "---|" * len(DEVICES))
    for size, config in LANGUAGE.items():
        spec = ModelSpec(vision=vision, audio=audio, language=LanguageSource(config=config))
        made, processor = planned(spec, outline=True)
        for how, parts in TRAINS.items():
            options = {"parts": parts, "row_tokens": asked.row_tokens, "checkpoint_activations": True}
            stage = Stage(**options)
            memory = stage_size(made, stage, Recipe(name=size, model=spec, stages=(stage,)), processor).memory
            held = memory.weights + memory.gradients + memory.optimizer
            each = [f"{memory.each(n) / 1e9:,.0f} / {memory.each(n, TOGETHER[size]) / 1e9:,.0f}" for n in DEVICES[1:]]
            told = " | ".join([f"{memory.each(1) / 1e9:,.0f}", *each])
            print(f"| {size} | {how} | {held / 1e9:,.0f} | {told} |")


if __name__ == "__main__":
    main()
