"""Teaches Whisper tiny.en the voices of `bundled_data.py`, and to hear clips without half a minute of silence.

    python benchmarks/bundled_ear.py DATA [-o DATA/ear] [--minutes 20] [--also real/digits/test.jsonl]

LoRA on all matrices of its encoder and decoder (rank 16), which is merged into a folder like the part's: the ear of the
recipe `bundled`. Half of the clips get noise, a quarter the band of a telephone. Printed in the end: WER of the greedy
transcription, before and after, on unheard sentences and voices.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import peft
import soundfile
import soxr
import torch
from rapidfuzz.distance import Levenshtein
from torch.nn import functional as F
from transformers import AutoTokenizer
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from weft.conversation import Conversation, Text, Words, read_samples
from weft.media import log_mel
from weft.models.compose import compose
from weft.parts import sources

RATE, BANDS, BATCH = 16000, 80, 16
EAR = {"kind": "transcript", "connector": {"kind": "transcript", "merge": 5, "vocab_size": 51864, "hidden": 384}}
TINY = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
NORMAL = EnglishTextNormalizer({})


def wave_of(sample: Conversation) -> np.ndarray:
    wave, rate = soundfile.read(sample.audios[0].source, dtype="float32")
    return wave if rate == RATE else soxr.resample(wave, rate, RATE)


def text_of(sample: Conversation) -> str:
    parts = [part for message in sample.learned for part in message.parts]
    said = [p.text for p in parts if isinstance(p, Text)] + [
        w.text for p in parts if isinstance(p, Words) for w in p.words
    ]
    return " ".join(said)


def changed(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another speed, silence around, the band of a telephone, noise: each by chance."""
    if rng.random() < 0.5:
        wave = soxr.resample(wave, RATE, RATE * rng.uniform(0.88, 1.12))
    if rng.random() < 0.25:
        wave = soxr.resample(soxr.resample(wave, RATE, 8000), 8000, RATE)
    wave = np.pad(wave, rng.integers(0, RATE // 2, 2))
    if rng.random() < 0.5:
        loud = float(np.sqrt(np.mean(wave**2))) * 10 ** (-rng.uniform(5, 40) / 20)
        wave = wave + loud * rng.standard_normal(len(wave))
    return wave.astype(np.float32)


def batch_of(waves: list[np.ndarray]) -> torch.Tensor:
    """Log-mel [N, T, M], shorter clips filled up with silence."""
    longest = max(len(wave) for wave in waves)
    return torch.stack([torch.from_numpy(log_mel(np.pad(w, (0, longest - len(w))), BANDS)) for w in waves])


def heard_by(ear: Any, mel_NTM: torch.Tensor) -> torch.Tensor:
    lengths_N = torch.full((len(mel_NTM),), mel_NTM.shape[1])
    return ear.hear(mel_NTM, lengths_N, ear.window(mel_NTM.shape[1]))  # type: ignore[no-any-return]


def loss_of(ear: Any, mel_NTM: torch.Tensor, texts: list[str], tokenizer: Any) -> torch.Tensor:
    heard_NTD = heard_by(ear, mel_NTM)
    start_NP, end = ear.prompt(heard_NTD), tokenizer.eos_token_id
    rows = [tokenizer(f" {text}", add_special_tokens=False).input_ids + [end] for text in texts]
    longest = max(map(len, rows))
    ids_NL = torch.tensor([row + [end] * (longest - len(row)) for row in rows])
    known_NL = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
    states_NLD = ear.states(torch.cat([start_NP, ids_NL[:, :-1]], 1), heard_NTD)[:, start_NP.shape[1] - 1 :]
    return F.cross_entropy(F.linear(states_NLD[known_NL], ear.table(heard_NTD)).float(), ids_NL[known_NL])


@torch.inference_mode()
def wer(ear: Any, samples: list[Conversation], tokenizer: Any) -> float:
    wrong = words = 0
    for sample in samples:
        heard = heard_by(ear, batch_of([wave_of(sample)]))
        ids = ear.write(heard, 40)[1][0].tolist()
        said = tokenizer.decode([i for i in ids if i < tokenizer.eos_token_id])
        got, right = (re.sub(r"(?<=\d)(?=\d)", " ", NORMAL(text)).split() for text in (said, text_of(sample)))
        wrong, words = wrong + Levenshtein.distance(right, got), words + len(right)
    return wrong / words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="further transcripts to measure on")
    parser.add_argument("--limit", type=int, default=60, help="samples of each to measure on")
    asked = parser.parse_args()
    part = sources()["audio"]
    tokenizer = AutoTokenizer.from_pretrained(part)
    source = {"source": str(part), **EAR}
    model, _ = compose(audio={**source, "options": {"pad_to_window": True}}, language={"config": TINY})
    ear, files = model.audio, [asked.data / name / "test.jsonl" for name in ("plain", "voices")] + asked.also
    held = {file: list(read_samples(file))[: asked.limit] for file in files if file.exists()}
    before = {file: wer(ear, some, tokenizer) for file, some in held.items()}
    print("; ".join(f"{file}: WER {100 * share:.1f} %" for file, share in before.items()), flush=True)

    ear.whole = False
    torch.manual_seed(0)
    matrices = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    taught = peft.get_peft_model(ear.tower, peft.LoraConfig(r=16, lora_alpha=32, target_modules=matrices))
    trained = [p for p in taught.parameters() if p.requires_grad]
    rate, begun, done = 1e-3, time.monotonic(), 0
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.01)
    samples = [s for n in ("plain", "voices") for s in read_samples(asked.data / n / "train.jsonl")]
    rng, sums = np.random.default_rng(0), []
    while (past := (time.monotonic() - begun) / (60 * asked.minutes)) < 1:
        drawn = [samples[n] for n in rng.integers(0, len(samples), BATCH)]
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (done + 1) / 50) * (0.02 + 0.98 * (1 + math.cos(math.pi * past)) / 2)
        with torch.autocast("cpu", torch.bfloat16):
            mel_NTM = batch_of([changed(wave_of(sample), rng) for sample in drawn])
            loss = loss_of(ear, mel_NTM, [text_of(sample) for sample in drawn], tokenizer)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        sums.append(loss.item())
        done += 1
        if done % 50 == 0:
            print(f"update {done}, {60 * asked.minutes * past:.0f} s: loss {np.mean(sums[-50:]):.3f}", flush=True)
    ear.tower = taught.merge_and_unload().eval()
    for file, some in held.items():
        print(f"{file}: WER {100 * before[file]:.1f} to {100 * wer(ear, some, tokenizer):.1f} %", flush=True)
    out = asked.out or asked.data / "ear"
    ear.tower.save_pretrained(out)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        if (part / name).exists():
            shutil.copyfile(part / name, out / name)


if __name__ == "__main__":
    main()
