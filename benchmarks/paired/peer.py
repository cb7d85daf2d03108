"""The other side: `transformers`' Trainer with its own classes of such models (Qwen2-Audio, LLaVA, Qwen2).

Batches of 8 padded rows, bfloat16 autocast or float32, fused AdamW, gradients clipped: the Trainer's ways. Rows are
tokenized once before; the collator reads media and runs the classes' own processors. ``grouped``: batches of similar
length as ``train_sampling_strategy="group_by_length"`` makes them, by transformers' own function, in random order (it
gives them from long to short, of which a few updates would be no sample). No class takes both media: mixed alternates
between two models, each with a Trainer in a thread of its own that waits while the other works.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.paired import world
from PIL import Image
from torch.utils.data import DataLoader
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    WhisperFeatureExtractor,
)
from transformers.trainer_pt_utils import get_length_grouped_indices

MEDIA = world.VOCABULARY - 1  # the placeholder
EPOCHS = 50


def build(kind: str) -> Any:
    if kind == "image":
        vision, text = CLIPVisionConfig(**world.SIGHT), LlamaConfig(**world.TEXT)
        config: Any = LlavaConfig(vision_config=vision, text_config=text, image_token_index=MEDIA)
        return LlavaForConditionalGeneration(config)
    if kind == "text":
        return Qwen2ForCausalLM(Qwen2Config(**world.TEXT))
    sound = Qwen2AudioEncoderConfig(**(world.WHISPER_TINY if kind == "whisper" else world.SOUND))
    config = Qwen2AudioConfig(
        audio_config=sound.to_dict(), text_config=Qwen2Config(**world.TEXT).to_dict(), audio_token_index=MEDIA
    )
    return Qwen2AudioForConditionalGeneration(config)


class Rows:
    """Samples with their ids; and batches of them."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        bands = world.WHISPER_TINY["num_mel_bins"] if kind == "whisper" else world.SOUND["num_mel_bins"]
        self.ears = WhisperFeatureExtractor(feature_size=bands)
        self.eyes = CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
        (name,) = world.files(kind)
        self.rows = [self.row(json.loads(line)) for line in (folder / f"{name}.jsonl").open()]

    def row(self, sample: dict[str, Any]) -> dict[str, Any]:
        import soundfile

        prompt, media = [5] * 4, {"image": [], "audio": []}  # type: ignore[var-annotated]
        for part in sample["messages"][0]["content"]:
            if part["type"] == "text":
                prompt += self.tokenizer(part["text"], add_special_tokens=False)["input_ids"]
            else:
                media[part["type"]].append(part[part["type"]])
                tokens = world.PATCHES
                if part["type"] == "audio":
                    frames = soundfile.info(self.folder / part["audio"]).frames // 160
                    tokens = ((frames - 1) // 2 + 1 - 2) // 2 + 1
                prompt += [MEDIA] * tokens
        prompt += [6] * 6
        answer = self.tokenizer(sample["messages"][1]["content"], add_special_tokens=False)["input_ids"] + [0]
        return {"input_ids": prompt + answer, "answer": len(answer), **media}

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        shape = len(rows), longest
        ids, labels, mask = torch.zeros(shape).long(), torch.full(shape, -100), torch.zeros(shape).long()
        for i, row in enumerate(rows):
            length = len(row["input_ids"])
            ids[i, :length], mask[i, :length] = torch.tensor(row["input_ids"]), 1
            labels[i, length - row["answer"] : length] = ids[i, length - row["answer"] : length]
        batch: dict[str, Any] = {"input_ids": ids, "labels": labels, "attention_mask": mask}
        if pictures := [self._picture(name) for row in rows for name in row["image"]]:
            batch["pixel_values"] = torch.from_numpy(np.stack(self.eyes(pictures)["pixel_values"]))
        if waves := [self._wave(name) for row in rows for name in row["audio"]]:
            made = self.ears(waves, sampling_rate=world.RATE, return_tensors="pt")
            frames = torch.tensor([len(wave) // 160 for wave in waves])
            batch["input_features"] = made["input_features"]
            batch["feature_attention_mask"] = (torch.arange(3000)[None] < frames[:, None]).long()
        return batch

    def batches(self, grouped: bool) -> list[list[int]]:
        """Whole batches of some epochs."""
        draw, found = torch.Generator().manual_seed(0), []
        for _ in range(EPOCHS):
            order = torch.randperm(len(self.rows), generator=draw).tolist()
            if grouped:
                lengths = [len(row["input_ids"]) for row in self.rows]
                order = get_length_grouped_indices(lengths, world.BATCH, generator=draw)
            whole = len(order) // world.BATCH * world.BATCH
            cut = [order[i : i + world.BATCH] for i in range(0, whole, world.BATCH)]
            found += [cut[i] for i in torch.randperm(len(cut), generator=draw).tolist()]
        return found

    def _picture(self, name: str) -> Image.Image:
        return Image.open(self.folder / name).convert("RGB")

    def _wave(self, name: str) -> np.ndarray:
        import soundfile

        return soundfile.read(self.folder / name, dtype="float32")[0]  # type: ignore[no-any-return]


class Paired(Trainer):
    rows: Rows
    order: list[list[int]]
    seen: deque[dict[str, int]]  # of batches that are made and not yet trained on: the next is made before

    def get_train_dataloader(self) -> DataLoader:
        def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            batch = self.rows.collate(rows)
            mask, labels = batch["attention_mask"], batch["labels"]
            counted = {"samples": len(mask), "tokens": int(mask.sum()), "places": mask.numel()}
            self.seen.append({**counted, "labels": int((labels >= 0).sum())})
            return batch

        return DataLoader(self.rows.rows, batch_sampler=self.order, collate_fn=collate)  # type: ignore[arg-type]


class After(TrainerCallback):
    def __init__(self, act: Any) -> None:
        self.act = act

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.act()


def peer_side(folder: Path, kind: str, precision: str, *, grouped: bool, meter: Any) -> None:
    torch.manual_seed(0)
    kinds = world.files("mixed") if kind == "mixed" else (kind,)
    turns = [threading.Semaphore(0) for _ in kinds]

    def run(number: int) -> None:
        turns[number].acquire()
        torch.set_num_threads(1)
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=precision == "bfloat16", learning_rate=1e-4,
            lr_scheduler_type="constant", max_steps=10**6, save_strategy="no", logging_strategy="no", report_to=[],
            disable_tqdm=True, remove_unused_columns=False, dataloader_pin_memory=False,
        )  # fmt: skip
        rows = Rows(folder, kinds[number])
        trainer = Paired(model=build(kinds[number]), args=arguments, train_dataset=rows.rows)
        trainer.rows, trainer.order, trainer.seen = rows, rows.batches(grouped), deque()

        def after() -> None:
            meter.add(**trainer.seen.popleft())
            turns[(number + 1) % len(kinds)].release()
            turns[number].acquire()

        trainer.add_callback(After(after))
        trainer.train()

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(kinds))]
    for thread in threads:
        thread.start()
    turns[0].release()
    threads[0].join()
