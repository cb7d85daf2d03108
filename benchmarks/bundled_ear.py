"""Teaches Whisper tiny.en the voices of `bundled_data.py`, and to hear clips without half a minute of silence.

    python benchmarks/bundled_ear.py DATA [-o DATA/ear] [--minutes 20] [--also real/digits/test.jsonl] [--ear FOLDER]
        [--share 0.5] [--more DATA ...]

LoRA on all matrices of its encoder and decoder (rank 16), which is merged into a folder like the part's: the ear of the
recipe `bundled`. ``--ear``: goes on with the LoRA of such a folder; ``--share``: and takes so much of what was learned
since, the rest of what was before (https://arxiv.org/abs/2109.01903). Half of the clips get noise, a quarter a
telephone's band, and in the place of a fifth of them digits or words are said one by one, as who reads a number aloud
says them. Printed in the end: WER of the greedy transcription, before and after, on unheard sentences and voices.
"""

from __future__ import annotations

import argparse
import copy
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
from peft.tuners.lora import LoraLayer
from rapidfuzz.distance import Levenshtein
from torch.nn import functional as F
from transformers import AutoTokenizer, WhisperModel
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from weft.conversation import Conversation, Text, Words, read_samples
from weft.media import log_mel
from weft.models.compose import compose
from weft.models.encoders.alignment import loudness
from weft.models.encoders.base import halved
from weft.parts import sources
from weft.playground import sentences
from weft.playground.speech import HELD_OUT_SPEEDS, HELD_OUT_VOICES, SPEEDS, VOICES, spoken

RATE, BANDS, BATCH = 16000, 80, 16
EAR = {"kind": "transcript", "connector": {"kind": "transcript", "merge": 5, "vocab_size": 51864, "hidden": 384}}
TINY = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
NORMAL = EnglishTextNormalizer({})
MATRICES = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
RANK, SCALE = 16, 2.0
MOST = 80  # tokens of a transcription that is measured
ALONE = 0.2  # of the clips: words one by one


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
    """Another speed, another microphone, silence around, the band of a telephone, noise: each by chance."""
    if rng.random() < 0.5:
        wave = soxr.resample(wave, RATE, RATE * rng.uniform(0.85, 1.18))
    if rng.random() < 0.5:
        wave = coloured(wave, rng)
    if rng.random() < 0.25:
        wave = soxr.resample(soxr.resample(wave, RATE, 8000), 8000, RATE)
    wave = np.pad(wave, rng.integers(0, RATE // 2, 2))
    if rng.random() < 0.5:
        loud = float(np.sqrt(np.mean(wave**2))) * 10 ** (-rng.uniform(5, 40) / 20)
        wave = wave + loud * rng.standard_normal(len(wave))
    return wave.astype(np.float32)


def whole_words(text: str) -> list[str]:
    """Those of three small letters or more: no ends of names, and no parts of what an apostrophe or a hyphen joins."""
    return re.findall(r"(?<![\w'’-])[a-z]{3,}(?![\w'’-])", text)


def one_by_one(words: list[str], rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A clip of two to eight digits, or of words, each said alone: by one voice, with short silences between them."""
    voice = rng.choice([voice for voice in VOICES["en"] if voice not in HELD_OUT_VOICES])
    speeds = [speed for speed in range(*SPEEDS) if not HELD_OUT_SPEEDS[0] <= speed < HELD_OUT_SPEEDS[1]]
    pitch, speed = int(rng.integers(20, 85)), int(rng.choice(speeds))
    drawn = rng.choice(sentences.ONES[:10] if rng.random() < 0.75 else words, rng.integers(2, 9)).tolist()
    pieces: list[np.ndarray] = []
    for word in drawn:
        wave, rate, _ = spoken(
            word, voice, max(speed + int(rng.integers(-15, 16)), 80), pitch + int(rng.integers(-8, 9))
        )
        loud = np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max())
        wave = wave[loud[0] : loud[-1] + 1] * rng.uniform(0.5, 1) / np.abs(wave).max()
        pieces += [wave, np.zeros(int(rate * rng.uniform(0.03, 0.35)), np.float32)]
    return soxr.resample(np.concatenate(pieces), rate, RATE), " ".join(drawn)


def coloured(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As another microphone hears it: each band louder or softer by up to 9 dB, smoothly."""
    spectrum = np.fft.rfft(wave)
    at = np.linspace(0, 7, len(spectrum))
    return np.fft.irfft(spectrum * 10 ** (np.interp(at, range(8), rng.uniform(-9, 9, 8)) / 20), len(wave))


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


def factors(change: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """B [out, RANK] and A [RANK, in], whose product is as near to the change of a matrix as any of that rank."""
    u, s, v = torch.linalg.svd(change, full_matrices=False)
    root = s[:RANK].sqrt()
    return u[:, :RANK] * root, root[:, None] * v[:RANK]


def with_lora(tower: Any, untaught: dict[str, torch.Tensor]) -> Any:
    """LoRA on a tower that may be taught already: what it differs by from the untaught one is where LoRA begins."""
    config = peft.LoraConfig(r=RANK, lora_alpha=RANK * SCALE, target_modules=MATRICES)
    change = {name: value - untaught[name] for name, value in tower.state_dict().items()}
    tower.load_state_dict(untaught)
    taught = peft.get_peft_model(tower, config)
    for name, module in tower.named_modules():
        if isinstance(module, LoraLayer) and (update := change[f"{name}.weight"]).any():
            b, a = factors(update / SCALE)
            module.lora_A["default"].weight.data, module.lora_B["default"].weight.data = a, b
    return taught


def between(
    untaught: dict[str, torch.Tensor], before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """Weights between those before and after, matrices within LoRA's rank of the untaught ones, as both are."""
    found = {}
    for name, usual in untaught.items():
        change = torch.lerp(before[name], after[name], share) - usual
        if change.ndim == 2 and 0 < share < 1 and change.any():
            b, a = factors(change)
            change = b @ a
        found[name] = usual + change
    return found


@torch.inference_mode()
def wer(ear: Any, samples: list[Conversation], tokenizer: Any) -> float:
    wrong = words = 0
    for sample in samples:
        mel_NTM = batch_of([wave_of(sample)])
        frames_N, room_N = torch.tensor([mel_NTM.shape[1]]), torch.tensor([MOST])
        loud_NT = loudness(mel_NTM, frames_N)
        ids = ear.write(heard_by(ear, mel_NTM), halved(frames_N), loud_NT, room_N)[1][0].tolist()
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
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--ear", type=Path, help="a folder that this program wrote, whose LoRA is taught further")
    parser.add_argument("--share", type=float, default=1.0, help="of what is learned beyond --ear; 1: all")
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="further folders like DATA to learn from")
    parser.add_argument("--limit", type=int, default=60, help="samples of each to measure on")
    asked = parser.parse_args()
    part = sources()["audio"]
    tokenizer = AutoTokenizer.from_pretrained(part)
    source = {"source": str(part), **EAR}
    model, _ = compose(audio={**source, "options": {"pad_to_window": True}}, language={"config": TINY})
    ear, files = model.audio, [asked.data / name / "test.jsonl" for name in ("plain", "voices")] + asked.also
    untaught = copy.deepcopy(ear.tower.state_dict())
    if asked.ear:
        ear.tower.load_state_dict(WhisperModel.from_pretrained(asked.ear).state_dict())
    known = copy.deepcopy(ear.tower.state_dict())
    held = {file: list(read_samples(file))[: asked.limit] for file in files if file.exists()}
    before = {file: wer(ear, some, tokenizer) for file, some in held.items()}
    print("; ".join(f"{file}: WER {100 * share:.1f} %" for file, share in before.items()), flush=True)

    ear.whole = False
    torch.manual_seed(0)
    taught = with_lora(ear.tower, untaught)
    trained = [p for p in taught.parameters() if p.requires_grad]
    rate, begun, done = asked.rate, time.monotonic(), 0
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.01)
    files = [folder / n / "train.jsonl" for folder in (asked.data, *asked.more) for n in ("plain", "voices")]
    samples = [sample for file in files if file.exists() for sample in read_samples(file)]
    words = sorted({word for sample in samples for word in whole_words(text_of(sample))})
    rng, sums = np.random.default_rng(0), []
    while (past := (time.monotonic() - begun) / (60 * asked.minutes)) < 1:
        drawn = [
            one_by_one(words, rng) if rng.random() < ALONE else (wave_of(sample), text_of(sample))
            for sample in (samples[n] for n in rng.integers(0, len(samples), BATCH))
        ]
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (done + 1) / 50) * (0.02 + 0.98 * (1 + math.cos(math.pi * past)) / 2)
        with torch.autocast("cpu", torch.bfloat16):
            mel_NTM = batch_of([changed(wave, rng) for wave, _ in drawn])
            loss = loss_of(ear, mel_NTM, [text for _, text in drawn], tokenizer)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        sums.append(loss.item())
        done += 1
        if done % 50 == 0:
            print(f"update {done}, {60 * asked.minutes * past:.0f} s: loss {np.mean(sums[-50:]):.3f}", flush=True)
    ear.tower = taught.merge_and_unload().eval()
    ear.tower.load_state_dict(between(untaught, known, ear.tower.state_dict(), asked.share))
    for file, some in held.items():
        print(f"{file}: WER {100 * before[file]:.1f} to {100 * wer(ear, some, tokenizer):.1f} %", flush=True)
    out = asked.out or asked.data / "ear"
    ear.tower.save_pretrained(out)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        if (part / name).exists():
            shutil.copyfile(part / name, out / name)


if __name__ == "__main__":
    main()
