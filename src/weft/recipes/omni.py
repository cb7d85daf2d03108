"""Pictures and sound in one model: SigLIP 2, Whisper and Qwen3. No paper has this one; all numbers are ours.

What guided them: connectors first and alone, because their random output would only disturb what the language model
knows (LLaVA, arXiv 2304.08485); then everything on all tasks at once, the encoders at a tenth of the rate. Whisper
takes clips at their own length, as Qwen-Audio's encoder does (arXiv 2311.07919), for it trains too: a second costs 12
tokens, where a padded window would cost 375 for any clip.
"""

from __future__ import annotations

from typing import Literal

from weft.models.sections import Connector
from weft.recipes.datasets import data
from weft.recipes.small import SOUND
from weft.training.recipe import (
    LanguageSource,
    Lora,
    ModelSpec,
    Optim,
    PartName,
    PartTraining,
    Recipe,
    Stage,
    TowerSource,
)

SMALL_TOWERS = "google/siglip2-base-patch16-256", "openai/whisper-small"
LARGE_TOWERS = "google/siglip2-so400m-patch16-384", "openai/whisper-large-v3-turbo"
# size -> (language model, encoders, whether all of it trains: above 2B, LoRA holds it in one GPU's memory)
SIZES = {
    "0.6b": ("Qwen/Qwen3-0.6B", SMALL_TOWERS, True),
    "1.7b": ("Qwen/Qwen3-1.7B", LARGE_TOWERS, True),
    "4b": ("Qwen/Qwen3-4B", LARGE_TOWERS, False),
    "8b": ("Qwen/Qwen3-8B", LARGE_TOWERS, False),
}
# 2x2 patches into one token: 64 of 256 px, 144 of 384 px. Four frames of 20 ms into one: 12.5 a second.
PATCHES = Connector(kind="mlp", merge=4, grid=True)
FRAMES = Connector(kind="mlp", merge=4)


def omni(size: Literal["0.6b", "1.7b", "4b", "8b"] = "0.6b") -> Recipe:
    """Two stages: connectors on captions and transcripts, then all of it on every task of pictures and sound."""
    language, (vision, audio), full = SIZES[size]
    connectors: dict[PartName, PartTraining] = {
        "vision_connector": PartTraining(train="full"),
        "audio_connector": PartTraining(train="full"),
    }
    encoders: dict[PartName, PartTraining] = {
        "vision": PartTraining(train="full", lr_scale=0.1),
        "audio": PartTraining(train="full", lr_scale=0.1),
    }
    adapted = PartTraining(train="lora", lora=Lora(r=64, alpha=128))  # on every linear layer
    return Recipe(
        name=f"omni-{size}",
        model=ModelSpec(
            vision=TowerSource(source=vision, connector=PATCHES),
            audio=TowerSource(source=audio, connector=FRAMES),
            language=LanguageSource(source=language),
        ),
        stages=(
            # No boxes or times yet: the language model is frozen and has never seen the tokens they are written in.
            Stage(
                name="align",
                steps=4000,
                optim=Optim(lr=1e-3, warmup_steps=120, weight_decay=0.0),
                parts=connectors,
                mixture=(data("laion"), data("cc3m"), data("speech", 2), data("sound_caption", 0.1)),
                row_tokens=4096,
                accumulate=8,  # about 150 samples
                checkpoint_activations=True,
            ),
            Stage(
                name="weave",
                steps=20_000,
                optim=Optim(lr=2e-5 if full else 1e-4, min_lr=1e-6, warmup_steps=600, betas=(0.9, 0.98)),
                parts={**connectors, **encoders, "language": PartTraining(train="full") if full else adapted},
                # As many samples of pictures as of sound; grounding (boxes, word times) is a third of either.
                mixture=(
                    data("coco_caption", 2),
                    data("textcaps", 2),
                    *(data(name, 2) for name in ("vqav2", "gqa", "ocrvqa")),
                    *(data(name, 1) for name in ("refcoco", "refcoco_plus", "refcocog", "visual_genome")),
                    *(data(name, 0.5) for name in ("inv_refcoco", "flickr_grounded", "flickr_detection")),
                    data("llava_reason", 3),
                    *(data(name, 4, SOUND) for name in ("speech", "word_times_en")),
                    data("speech_translation", 2),
                    data("word_times_zh", 2, SOUND),
                    *(data(name, 1) for name in ("sound_caption", "sound_question", "sound_event", "audio_chat")),
                    data("text_chat", 2),
                ),
                row_tokens=4096,
                accumulate=16,
                checkpoint_activations=True,
            ),
        ),
    )
