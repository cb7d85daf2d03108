"""Sizes and data of the benchmark: words, clips and pictures of realistic spreads of length, all made from seeds.

A language model of 6 layers of 384 with 32,000 words (35 M parameters), encoders of sound and pictures of 6 layers
of 384 each (11 M).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("text", "image", "speech", "whisper", "mixed")
VOCABULARY, RATE, PATCHES = 32_000, 16_000, 256
BATCH = 8  # rows of the Trainer's batch; about as many samples fit weft's row
ROW_TOKENS = {"text": 1280, "image": 4608, "speech": 2048, "whisper": 2048, "mixed": 3328}
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
HEARD = {"d_model": 384, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536}
SOUND = HEARD | {"encoder_layers": 6, "num_mel_bins": 128}
WHISPER_TINY = HEARD | {"encoder_layers": 4, "num_mel_bins": 80}
SIGHT = {
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "image_size": 224,
    "patch_size": 14,
}


def files(kind: str) -> tuple[str, ...]:
    """Files of samples that a kind trains on, without their ending."""
    return {"mixed": ("speech", "image"), "whisper": ("speech",)}.get(kind, (kind,))


def make(folder: Path, clips: int = 320, pictures: int = 160, samples: int = 960) -> None:
    """Writes tokenizer, media and samples, unless they are there."""
    if (folder / "text.jsonl").exists():
        return
    import soundfile

    for name in ("wav", "img"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    words = _words(np.random.default_rng(7))
    tokenizer = _tokenizer(folder / "tokenizer", words)
    draw = np.random.default_rng(0)

    def say(tokens: int) -> str:
        text = " ".join(words[i] for i in draw.integers(0, len(words), tokens))
        return str(tokenizer.decode(tokenizer(" " + text, add_special_tokens=False)["input_ids"][:tokens])).strip()

    def sample(*parts: Any) -> dict[str, Any]:
        answer = say(int(np.clip(draw.lognormal(3.2, 1.0), 2, 200)))
        return {"messages": [{"role": "user", "content": list(parts)}, {"role": "assistant", "content": answer}]}

    def text(tokens: int) -> dict[str, str]:
        return {"type": "text", "text": say(tokens)}

    made: dict[str, list[Any]] = {"speech": [], "image": [], "text": []}
    for i in range(clips):
        seconds = float(np.clip(draw.lognormal(np.log(6), 0.7), 1, 28))
        soundfile.write(folder / f"wav/{i}.flac", _wave(draw, seconds), RATE, subtype="PCM_16")
        made["speech"].append(sample({"type": "audio", "audio": f"wav/{i}.flac"}, text(8)))
    for i in range(pictures):
        _picture(draw).save(folder / f"img/{i}.jpg", quality=88)
    for _ in range(2 * pictures):
        names = [f"img/{i}.jpg" for i in draw.integers(0, pictures, draw.integers(1, 4))]
        shown = [{"type": "image", "image": name} for name in names]
        made["image"].append(sample(*shown, text(20)))
    made["text"] = [sample(text(int(np.clip(draw.lognormal(4.2, 0.8), 8, 512)))) for _ in range(samples)]
    for name, rows in made.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _words(draw: np.random.Generator) -> list[str]:
    syllables = [a + b for a in "bdfghjklmnprstvwz" for b in ("a", "e", "i", "o", "u", "an", "er", "il", "on", "us")]
    found: dict[str, None] = {}
    while len(found) < 20_000:
        found["".join(draw.choice(syllables, draw.integers(2, 4)))] = None
    return list(found)


def _tokenizer(folder: Path, words: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=31_000,
        special_tokens=["<|endoftext|>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator([" " + " ".join(words)], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    tokenizer.save_pretrained(folder)
    return tokenizer


def _wave(draw: np.random.Generator, seconds: float) -> np.ndarray:
    at = np.arange(int(seconds * RATE)) / RATE
    pitch = np.interp(at, np.linspace(0, seconds, 12), draw.uniform(100, 300, 12))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    loud = np.interp(at, np.linspace(0, seconds, int(seconds * 4) + 2), draw.uniform(0, 1, int(seconds * 4) + 2))
    voice = sum(np.sin(k * phase) / k for k in (1, 2, 3, 5, 8))
    return (loud * voice * 0.15 + draw.normal(0, 0.003, len(at))).astype(np.float32)


def _picture(draw: np.random.Generator) -> Any:
    from PIL import Image

    small = Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8))
    big = np.asarray(small.resize((640, 480), Image.Resampling.BICUBIC)).astype(np.int16)
    return Image.fromarray(np.clip(big + draw.normal(0, 8, big.shape), 0, 255).astype(np.uint8))


def recipe(folder: Path, kind: str, precision: str) -> Any:
    """weft's recipe of these sizes: every weight trains, batches are packed."""
    from weft.models.config import Connector
    from weft.training.recipe import (
        LanguageSource,
        ModelSpec,
        Optim,
        PartTraining,
        Recipe,
        Source,
        Stage,
        TowerSource,
    )

    vision = audio = None
    if kind in ("image", "mixed"):  # LLaVA's: the layer before the last, a projector of two layers
        vision = TowerSource(kind="clip", config=SIGHT, connector=Connector(kind="mlp", merge=1), options={"layer": -2})
    if kind in ("speech", "mixed"):  # Qwen2-Audio's: 25 embeddings a second
        config = SOUND | {"max_source_positions": 1500}
        audio = TowerSource(kind="qwen_audio", config=config, connector=Connector(kind="linear", merge=1))
    if kind == "whisper":
        config = WHISPER_TINY | {"max_source_positions": 1500}
        audio = TowerSource(kind="whisper", config=config, connector=Connector(kind="pool", merge=2))
    family = "llama" if kind == "image" else "qwen2"
    language = LanguageSource(config=TEXT | {"model_type": family}, tokenizer=str(folder / "tokenizer"))
    parts = {"language": True, "vision": vision, "vision_connector": vision, "audio": audio, "audio_connector": audio}
    stage = Stage(
        name="paired",
        steps=1_000_000,
        optim=Optim(lr=1e-4, warmup_steps=10, schedule="constant"),
        parts={name: PartTraining(train="full") for name, there in parts.items() if there},
        mixture=tuple(Source(path=str(folder / f"{name}.jsonl"), name=name) for name in files(kind)),
        row_tokens=ROW_TOKENS[kind],
    )
    spec = ModelSpec(vision=vision, audio=audio, language=language)
    return Recipe(name=f"paired-{kind}", model=spec, stages=(stage,), threads=1, checkpoint_every=10**8,
                  precision=precision)  # fmt: skip
