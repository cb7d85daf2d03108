"""What a later epoch of a stage that trains connectors alone costs, with and without features that are kept on disk.

    python -m benchmarks.features SAMPLES.jsonl --audio PARTS/whisper-tiny.en --language PARTS/smollm2
    python -m benchmarks.features SAMPLES.jsonl --audio large --language PARTS/smollm2 --pairs 1

"large" is Whisper's shape with random weights. Each pair is one update of the same samples, both ways: CPU seconds of
decoding, loss and gradient. The first update, which fills the store, stands apart. Last, what of a later epoch is
neither language model nor connector: decoding and log-mel, without which there is no key; and keys, reading,
checksums and casts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from weft.data.loader import SourceSpec, TrainingData
from weft.models.compose import compose
from weft.training.features import FeatureStore, Recalled
from weft.training.parts import apply_parts
from weft.training.recipe import FULL, Stage
from weft.training.update import backward

SHAPES: dict[str, dict[str, Any]] = {  # openai/whisper-*
    "tiny": {"d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536},
    "large": {"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120},
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples")
    parser.add_argument("--audio", default="tiny", help="a folder, or a shape: " + ", ".join(SHAPES))
    parser.add_argument("--language", required=True, help="a folder")
    parser.add_argument("--pad", action="store_true", help="fill clips up to 30 s, as was the default once")
    parser.add_argument("--row-tokens", type=int, default=1134)
    parser.add_argument("--pairs", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    source = {"config": SHAPES[asked.audio]} if asked.audio in SHAPES else {"source": asked.audio}
    options = {"pad_to_window": asked.pad}
    model, processor = compose(
        audio={**source, "connector": {"kind": "mlp"}, "options": options}, language=asked.language
    )
    apply_parts(model, Stage(parts={"audio_connector": FULL}))
    data = TrainingData([SourceSpec(asked.samples)], processor, row_tokens=asked.row_tokens)

    def update(recall: Mapping[str, Recalled]) -> tuple[float, Any]:
        model.recall = recall
        begun = time.process_time()
        batch = next(data.batches())
        backward(model, [batch], precision="bfloat16")
        model.zero_grad()
        return time.process_time() - begun, batch

    _, batch = update({})  # kernels are made, samples are decoded
    print(f"{batch.tokens} tokens, {len(batch.samples)} samples", flush=True)
    with TemporaryDirectory() as folder:
        kept = {"audio": Recalled(model.audio, FeatureStore(Path(folder), "one", 10**10, print), torch.bfloat16)}
        print(f"first epoch, which keeps: {update(kept)[0]:.2f} CPU s an update", flush=True)
        pairs = []
        for _ in range(asked.pairs):
            pairs.append((update({})[0], update(kept)[0]))
            print("{:.2f} without, {:.2f} with".format(*pairs[-1]), flush=True)
    without, with_ = (median(column) for column in zip(*pairs, strict=True))
    begun = time.process_time()
    inputs = next(data.batches()).inputs
    media = time.process_time() - begun
    with TemporaryDirectory() as folder, torch.autocast("cpu", torch.bfloat16):
        tower = Recalled(model.audio, FeatureStore(Path(folder), "one", 10**10, print), torch.bfloat16)
        took = []
        for _ in range(4):  # the first computes
            begun = time.process_time()
            tower(inputs["input_features"], inputs["feature_lengths"])
            took.append(time.process_time() - begun)
    print(f"encoder {took[0]:.3f}; later epochs: decoding and log-mel {media:.3f}, features {median(took[1:]):.3f}")
    print(f"median {without:.2f} and {with_:.2f}: {without / with_:.2f} times as fast")


if __name__ == "__main__":
    main()
