"""Updates of a 7B model on one GPU: tokens and TFLOP/s of text, pictures and speech, LoRA and full.

    python benchmarks/gpu_speed.py --train lora --data text images speech [--compile] [--peak 989]
    python benchmarks/gpu_speed.py --tiny --device cpu          that it runs; says nothing of speed
    python -m benchmarks.gpu_dry                                these models and rows in full size, as shapes alone

**No GPU has run it yet**: it was run with --tiny on a CPU, and its steps were traced by `gpu_dry`. Rows are full and
packed, weights random (nothing is looked up), in the shapes of Qwen2.5-7B, SigLIP so400m at 448 pixels and
Whisper-large's encoder. Weights are float32 and computed in bfloat16, as in training; so all of 7B takes 16 bytes a
weight, which is more than one H200 has beside encoders: --train full is for --data text there, and needs the memory of
122 GB and activations.

FLOPs: of each weight but the embeddings 2 a token forward, 2 for the gradient of its input where one flows through, 2
for its own where it trains; and attention's products. What is computed again (activation checkpointing) does not count.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture

from weft.conversation import Audio, Conversation, Image, Message, Text
from weft.data.loader import Batch
from weft.models.config import Connector
from weft.models.modeling import WeftForConditionalGeneration
from weft.models.plan import plan
from weft.training.optim import build_optimizer, embedding_ids, set_rate, step_where_finite
from weft.training.parallel import clip_gradients
from weft.training.parts import apply_parts, set_modes, spare_activations
from weft.training.recipe import FULL, Lora, PartTraining, Stage
from weft.training.update import backward, read

TEXT = {"model_type": "qwen2", "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944}
TEXT |= {"num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False}
SIGHT = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
SIGHT |= {"image_size": 448, "patch_size": 14}
SOUND = {"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120}
SOUND |= {"num_mel_bins": 128, "max_source_positions": 1500}
TINY_TEXT = TEXT | {"vocab_size": 4096, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
TINY_TEXT |= {"num_attention_heads": 4, "num_key_value_heads": 2}
TINY_SIGHT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY_SIGHT |= {"image_size": 56, "patch_size": 14}
TINY_SOUND = SOUND | {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48}


def made(data: str, tiny: bool, device: str) -> tuple[Any, Any]:
    """``(model, processor)`` with the encoder that the data need."""
    merge = Connector(kind="mlp", merge=4, grid=True) if data == "images" else Connector(kind="mlp", merge=4)
    vision = {"kind": "siglip", "config": TINY_SIGHT if tiny else SIGHT, "connector": merge.model_dump()}
    audio = {"kind": "whisper", "config": TINY_SOUND if tiny else SOUND, "connector": merge.model_dump()}
    senses = {"vision": vision if data == "images" else None, "audio": audio if data == "speech" else None}
    config, processor = plan(language={"config": TINY_TEXT if tiny else TEXT}, **senses)
    with torch.device(device):
        return WeftForConditionalGeneration(config).float(), processor


def row(processor: Any, data: str, tokens: int, rng: np.random.Generator) -> Batch:
    """One row of samples as long as fit, each of an item and an answer; or of text."""
    encoded: list[Any] = []
    while True:
        words = " ".join(rng.choice(["red", "cup", "left", "seven", "sings"], int(rng.integers(40, 120))))
        parts: list[Any] = [Text("what is this?")]
        if data == "images":
            parts.insert(0, Image(Picture.fromarray(rng.integers(0, 256, (448, 448, 3), np.uint8))))
        if data == "speech":
            seconds = rng.uniform(4, 28)
            parts.insert(0, Audio((rng.normal(0, 0.1, int(seconds * 16000)).astype(np.float32), 16000)))
        sample = processor.encode(Conversation((Message("user", tuple(parts)), Message("assistant", (Text(words),)))))
        if sum(len(e.input_ids) for e in encoded) + len(sample.input_ids) > tokens:
            break
        encoded.append(sample)
    inputs = {k: torch.as_tensor(np.asarray(v)) for k, v in processor.pack(encoded).items()}
    count, labels = sum(len(e.input_ids) for e in encoded), sum(int(e.loss_mask[1:].sum()) for e in encoded)
    return Batch(inputs, tokens=count, places=tokens, labels=labels, samples=[])


def staged(data: str, full: bool, checkpointing: bool) -> Stage:
    """What trains, and how."""
    lora = PartTraining(train="lora", lora=Lora(r=16, alpha=32), dialect_tokens=False)
    parts: dict[Any, PartTraining] = {"language": FULL if full else lora}
    sense = {"images": "vision", "speech": "audio"}.get(data)
    if sense:
        parts |= {f"{sense}_connector": FULL} | ({sense: FULL} if full else {})
    return Stage(parts=parts, checkpoint_activations=checkpointing)


def flops(model: Any, batch: Batch, full: bool) -> tuple[float, float]:
    """Of the language model, and of the encoder, which trains as it does."""
    text, times = model.config.text_config, 6 if full else 4
    tables = {id(m.weight): m.weight.numel() for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    weights = sum(p.numel() for n, p in model.language_model.named_parameters() if "lora_" not in n)
    weights -= sum(tables.values())
    lengths = batch.inputs["segment_lengths"].double()
    pairs = float((lengths**2).sum()) / 2 * 4 * text.hidden_size * text.num_hidden_layers  # causal
    head = 6 * batch.labels * model.get_output_embeddings().weight.numel()
    decoder = times * weights * batch.tokens + 3 * pairs + (head if full else head * 2 / 3)
    encoder = 0.0
    for part, given in (("vision", "pixel_values"), ("audio", "feature_lengths")):
        if given in batch.inputs:
            (tower,) = model.part(part)
            items = batch.inputs[given]
            places = len(items) * model.image_kind.grid[0] ** 2 if part == "vision" else float(items.sum()) / 2
            encoder = (6.0 if full else 2.0) * sum(p.numel() for p in tower.parameters()) * places
    return decoder, encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=("text", "images", "speech"), default=["text", "images", "speech"])
    parser.add_argument("--train", choices=("lora", "full"), default="lora")
    parser.add_argument("--row-tokens", type=int, default=8192)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--peak", type=float, default=989, help="TFLOP/s of the device in bfloat16 (H100, H200: 989)")
    asked = parser.parse_args()
    tokens, full = 1024 if asked.tiny else asked.row_tokens, asked.train == "full"
    print("| data | tokens/s | decoder TFLOP/s | encoder TFLOP/s | MFU | GB at most |\n|---|---|---|---|---|---|")
    for data in asked.data:
        rng = np.random.default_rng(0)
        model, processor = made(data, asked.tiny, asked.device)
        stage = staged(data, full, not asked.no_checkpointing)
        trained = apply_parts(model, stage)
        model.to(asked.device)
        spare_activations(model, stage.checkpoint_activations)
        set_modes(model, stage)
        if asked.compile:
            for layer in model.get_decoder().layers:
                layer.compile()
        weights = [p for part in trained for p in part.parameters.values()]
        optimizer = build_optimizer(trained, stage.optim, embedding_ids(model))
        set_rate(optimizer, 1e-5)
        rows = [row(processor, data, tokens, rng) for _ in range(4)]
        counted = np.zeros(3)
        for number in range(asked.updates + 3):
            if number == 3:  # warm
                if asked.device.startswith("cuda"):
                    torch.cuda.synchronize()
                    torch.cuda.reset_peak_memory_stats()
                began = time.perf_counter()
                counted[:] = 0
            batch = rows[number % len(rows)]
            losses = backward(model, [batch], precision="bfloat16", seed=(0, number))
            norm = clip_gradients(weights, 1.0)
            step_where_finite(optimizer, norm.isfinite())
            optimizer.zero_grad(set_to_none=True)
            loss = read(losses)["loss"]
            counted += (batch.tokens, *flops(model, batch, full))
        seconds = time.perf_counter() - began
        per = counted / seconds
        memory = torch.cuda.max_memory_allocated() / 1e9 if asked.device.startswith("cuda") else float("nan")
        mfu = (per[1] + per[2]) / 1e12 / asked.peak
        rates = f"{per[0]:,.0f} | {per[1] / 1e12:.3g} | {per[2] / 1e12:.3g} | {mfu:.1%} | {memory:.1f}"
        print(f"| {data}, {asked.train} | {rates} |   loss {loss:.3f}", flush=True)
        del model, optimizer, weights, trained


if __name__ == "__main__":
    main()
