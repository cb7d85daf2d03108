"""Qwen-Audio and Qwen-Audio-Chat (arXiv 2311.07919; QwenLM/Qwen-Audio at b50fb95): one encoder for all kinds of sound.

[C]: the released code and configurations. [F]: the paper's figure. [U]: recalled from the paper, not checked. The sets
were never named (issues 29 and 65): sources are named by task, and weights are the paper's hours [U], which stand for
numbers of clips where clips are of like length.
"""

from __future__ import annotations

from weft.data.augment import Augment
from weft.models.sections import Connector, DialectSection
from weft.recipes.datasets import data
from weft.training.recipe import FULL, LanguageSource, ModelSpec, Optim, Recipe, Stage, TowerSource

# Frames of 20 ms, averaged in pairs before the last norm, then one linear layer; the embeddings of a clip's start and
# end belong to the encoder [C audio.py].
PROJECTION = Connector(kind="linear", merge=1)
# SpecAugment, LibriSpeech's basic policy (arXiv 1904.08779 table 1: F 27, T 100, one mask each) [U].
SPEC_AUGMENT = Augment(time_masks=1, time_mask_frames=100, freq_masks=1, freq_mask_bands=27)

MODEL = ModelSpec(
    audio=TowerSource(
        source="openai/whisper-large-v2",  # README
        kind="qwen_audio",
        connector=PROJECTION,
        options={"boundaries": True},
    ),
    # Qwen-7B [README] as a folder that `weft import qwen` makes of the published one.
    language=LanguageSource(source="models/qwen-7b"),
    dialect=DialectSection(name="qwen_audio"),
)


def _optim(lr: float, min_lr: float, warmup: int) -> Optim:
    """AdamW, betas 0.9 and 0.98, eps 1e-6, decay 0.05, clipped at 1, cosine [U]."""
    return Optim(lr=lr, min_lr=min_lr, warmup_steps=warmup, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.05, clip=1.0)


def qwen_audio() -> Recipe:
    """Two stages: the encoder on more than thirty tasks, the language model frozen; then the reverse, on dialogues.

    Encoder trained and language model frozen [F]; its projection and boundary embeddings lie within the encoder [C], so
    they train with it. The second stage freezes what lies in the encoder and trains the language model [F, U].
    """
    return Recipe(
        name="qwen_audio",
        model=MODEL,
        stages=(
            Stage(
                name="multitask",
                steps=500_000,  # [U]
                optim=_optim(5e-5, 1e-5, 2000),  # [U]
                parts={"audio": FULL, "audio_connector": FULL},
                mixture=(
                    data("speech", 30_000),
                    data("speech_translation", 3_700),
                    data("word_times_en", 10_000),
                    data("word_times_zh", 11_000),
                    data("dialect", 2_000),
                    data("language_identification", 11_700),
                    data("speaker", 4_800 + 4_800),  # gender and age
                    data("sound_caption", 8_400),
                    data("sound_event", 5_400),
                    data("music_caption", 25_000),
                    data("music_genre", 9_500),
                    # "Others" have less than 1,000 hours each [U]; 500 is ours.
                    *(data(name, 500) for name in ("emotion", "scene", "vocal_sound", "note", "sound_question")),
                    *(data(name, 500) for name in ("entities", "sound_location")),
                ),
                augment=SPEC_AUGMENT,
                row_tokens=2048,  # seq_length [C]
                accumulate=20,  # 120 clips [U] of about 300 tokens: 10 s of sound, and its text
                checkpoint_activations=True,
            ),
            Stage(
                name="chat",
                steps=8000,  # the published checkpoint's name ends in iter8000 [C]
                optim=_optim(1e-5, 1e-6, 3000),  # [U]
                parts={"language": FULL},
                # Dialogues about sound and about text alone; the share is ours: half each. 20k dialogues in all [U].
                mixture=(data("audio_chat", 1), data("text_chat", 1)),
                row_tokens=2048,
                accumulate=32,  # 128 dialogues [U] of about 500 tokens
                checkpoint_activations=True,
            ),
        ),
    )
