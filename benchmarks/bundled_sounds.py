"""Gives a weft folder whose ear transcribes a layer that tells sounds, and where someone speaks (`sound_events`).

    python -m benchmarks.bundled_sounds MODEL OUT DATA [--clips 3000] [--recordings FOLDER]

MODEL has a connector of kind transcript with ``timed``. Its weights stay what they are; the layer is fitted to states
of its ear: clips of the playground's sounds, speech of DATA (`bundled_data.py`: speech/ and voices/), recordings of
people (any folder of WAV files in which someone speaks), noise, and sums of two. Printed at last, on clips of the test
split: of the sounds how many are found (name right, both ends within 0.2 s in the mean) and how many of those told are
there, how far their ends are off, and of speech and of sounds how many moments are taken for speech.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from torch.nn import functional as F

import weft
from weft.conversation import Words, read_samples
from weft.files import whole_folder
from weft.media import log_mel
from weft.models.adapters import adapter_base
from weft.models.encoders.transcript import TOLD
from weft.models.sound_events import SoundEvents, told_of
from weft.playground.chance import Chance
from weft.playground.sounds import SOUNDS, make_clip

RATE, STATES = 16000, 50  # a second
NAMES = list(SOUNDS)
SPEECH = len(NAMES)
UPDATES, BATCH = 1500, 24
QUIET, WINDOW = 0.03, 0.25  # of the loudest, and seconds around a moment
Piece = tuple[np.ndarray, list[tuple[int, float, float]]]  # a wave and what is heard in it: which, from, to


def sounds(chance: Chance) -> Piece:
    clip = make_clip(chance)
    return clip.wave, [(NAMES.index(s.name), s.start, s.end) for s in clip.sounds]


def wave_of(path: Any) -> np.ndarray:
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(wave[: 20 * rate].mean(1), rate, RATE), np.float32)


def loud(wave: np.ndarray) -> list[tuple[int, float, float]]:
    """Where a recording of someone is not quiet, pauses of half of WINDOW left in."""
    size = round(WINDOW * RATE)
    power = np.convolve(wave.astype(np.float64) ** 2, np.ones(size) / size, "same").clip(0)
    there = (np.sqrt(power) > QUIET * np.sqrt(power.max() + 1e-9)).astype(np.int8)
    edges = np.flatnonzero(np.diff(there, prepend=0, append=0)).reshape(-1, 2) / RATE
    return [(SPEECH, float(start), float(end)) for start, end in edges]


def speech(chance: Chance, data: Path, recordings: list[Path], kept: dict[str, Any]) -> Piece:
    way = chance.rng.random()
    if recordings and way < 0.35:
        wave = wave_of(chance.one(recordings))
        return wave, loud(wave)
    name = "voices" if way < 0.6 and (data / "voices").is_dir() else "speech"
    if name not in kept:
        kept[name] = list(read_samples(data / name / f"{chance.split}.jsonl"))
    drawn = chance.one(kept[name])
    wave = wave_of(drawn.audios[0].source)
    said = [word for m in drawn.learned for part in m.parts if isinstance(part, Words) for word in part.words]
    return wave, [(SPEECH, word.start, word.end) for word in said] if said else loud(wave)


def piece(n: int, split: str, data: Path, recordings: list[Path], kept: dict[str, Any]) -> Piece:
    """Clip ``n``: sounds, speech, both at once, or neither."""
    chance = Chance(np.random.default_rng((53, split == "test", n)), split, "en")
    way = chance.rng.random()
    if way < 0.08:
        wave, heard = np.zeros(chance.whole(RATE // 2, 6 * RATE), np.float32), []
    elif way < 0.5:
        wave, heard = sounds(chance)
    else:
        wave, heard = speech(chance, data, recordings, kept)
        wave = wave * np.float32(chance.between(0.2, 1) / max(float(np.abs(wave).max()), 1e-4))
        if way < 0.65:
            other, more = sounds(chance)
            longest = max(len(wave), len(other))
            wave = np.pad(wave, (0, longest - len(wave))) + np.pad(other, (0, longest - len(other)))
            heard = heard + more
    before = chance.between(0, 0.6) if chance.yes() else 0.0
    wave = np.pad(wave, (round(before * RATE), 0))
    if chance.yes():
        wave = wave + chance.rng.standard_normal(len(wave), np.float32) * np.float32(10 ** chance.between(-4, -1.7))
    if chance.yes(0.15):
        wave = soxr.resample(soxr.resample(wave, RATE, 8000), 8000, RATE)
    return np.clip(wave, -1, 1).astype(np.float32), [(k, a + before, b + before) for k, a, b in heard]


def labels(heard: list[tuple[int, float, float]], states: int) -> np.ndarray:
    told = np.zeros((states, SPEECH + 1), np.float32)
    for number, start, end in heard:
        told[round(start * STATES) : max(round(end * STATES), round(start * STATES) + 1), number] = 1
    return told


@torch.inference_mode()
def states_of(ear: Any, wave: np.ndarray) -> torch.Tensor:
    mel = torch.from_numpy(log_mel(wave[: 30 * RATE], 80))[None]
    length = torch.tensor([mel.shape[1]])
    return ear.hear(mel, length, ear.window(mel.shape[1]))[0, : (mel.shape[1] + 1) // 2]  # type: ignore[no-any-return]


def made(ear: Any, count: int, split: str, *where: Any) -> Iterator[tuple[torch.Tensor, Any, Any]]:
    kept: dict[str, Any] = {}
    for n in range(count):
        wave, heard = piece(n, split, *where, kept)
        states = states_of(ear, wave)
        yield states, labels(heard, len(states)), heard
        if n % 500 == 499:
            print(f"{n + 1:,} clips of {split}", flush=True)


def fitted(clips: list[tuple[torch.Tensor, Any, Any]], width: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    own = {name: torch.zeros(shape) for name, shape in SoundEvents.shapes(SPEECH, width).items()}
    mean_D = torch.cat([states[::7] for states, _, _ in clips]).mean(0)
    for name in ("inward", "around", "across", "told"):
        own[name].normal_(std=own[name][0].numel() ** -0.5)
    own["shifts"][0] = -own["inward"] @ mean_D
    own["bias"].fill_(-3.0)
    for value in own.values():
        value.requires_grad_(True)
    optimizer = torch.optim.AdamW(own.values(), lr=3e-3, weight_decay=0.01)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=UPDATES)
    rng, losses = np.random.default_rng(0), []
    for update in range(UPDATES):
        drawn = [clips[n] for n in rng.integers(0, len(clips), BATCH)]
        longest = max(len(states) for states, _, _ in drawn)
        x = torch.stack([F.pad(states.float(), (0, 0, 0, longest - len(states))) for states, _, _ in drawn])
        y = torch.stack([F.pad(torch.from_numpy(own), (0, 0, 0, longest - len(own))) for _, own, _ in drawn])
        there = torch.stack([torch.arange(longest) < len(states) for states, _, _ in drawn])
        loss = F.binary_cross_entropy_with_logits(told_of(x, own)[there], y[there])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        plan.step()
        losses.append(loss.item())
        if update % 250 == 249:
            print(f"update {update + 1}: {np.mean(losses[-250:]):.4f}", flush=True)
    return {name: value.detach() for name, value in own.items()}


def examined(told: SoundEvents, clips: Iterator[tuple[torch.Tensor, Any, Any]]) -> str:
    right = there = written = 0
    before = told.before[told.before >= 0]
    off, spoken = [], {"speech": [0, 0], "other": [0, 0]}
    for states, wanted, heard in clips:
        found, speech_T = told.find(states)
        names = [(a / STATES, b / STATES, ids) for a, b, ids in found]
        real = [(a, b, told.spelling[k][told.spelling[k] >= 0].tolist()) for k, a, b in heard if k != SPEECH]
        there, written = there + len(real), written + len(names)
        for start, end, ids in names:
            near = [r for r in real if r[2] == ids[len(before) : len(before) + len(r[2])]]
            near.sort(key=lambda r: abs(r[0] - start) + abs(r[1] - end))
            if near and (gap := (abs(near[0][0] - start) + abs(near[0][1] - end)) / 2) <= 0.2:
                real.remove(near[0])
                right += 1
                off.append(gap)
        for name, mask in (("speech", wanted[:, SPEECH] > 0), ("other", wanted[:, SPEECH:].sum(1) == 0)):
            if name == "speech" or not wanted[:, SPEECH].any():
                spoken[name][0] += int(speech_T[mask].sum())
                spoken[name][1] += int(mask.sum())
    shares = ", ".join(f"{100 * a / max(b, 1):.1f} % of {name}" for name, (a, b) in spoken.items())
    return (
        f"{there} sounds: {100 * right / there:.1f} % found, {100 * right / max(written, 1):.1f} % of {written} told "
        f"are there, ends {1000 * np.mean(off):.0f} ms off; taken for speech: {shares} where nobody speaks"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "out", "data"):
        options.add_argument(name, type=Path)
    options.add_argument("--clips", type=int, default=3000)
    options.add_argument("--recordings", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    loaded = weft.load(str(given.model))
    ear, processor = loaded.model.audio, loaded.processor
    width = ear.width - TOLD
    people = sorted(given.recordings.rglob("*.wav")) if given.recordings else []
    clips = list(made(ear, given.clips, "train", given.data, people))
    told = SoundEvents(SPEECH, width)
    told.learn(NAMES, processor.renderer.encode_text)
    told.load_state_dict(fitted(clips, width), strict=False)
    print(examined(told, made(ear, 300, "test", given.data, [])))
    write(given.model, given.out, told)


def write(model: Path, out: Path, told: SoundEvents) -> None:
    from safetensors.torch import load_file, save_file

    base = Path(adapter_base(str(model))[0])  # within it, where LoRA lies beside the weights
    weights = load_file(base / "model.safetensors")
    weights |= {f"audio_connector.events.{name}": value for name, value in told.state_dict().items()}
    with whole_folder(out) as folder:
        shutil.copytree(model, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("model.safetensors"))
        inner = folder / base.relative_to(model)
        for place in {folder, inner}:
            for name, key in (("config.json", ()), ("processor_config.json", ("config",))):
                config = json.loads((place / name).read_text())
                section = config
                for step in (*key, "audio", "connector"):
                    section = section[step]
                section["events"] = len(told.spelling)
                (place / name).write_text(json.dumps(config, indent=2) + "\n")
        save_file(weights, inner / "model.safetensors", {"format": "pt"})


if __name__ == "__main__":
    main()
