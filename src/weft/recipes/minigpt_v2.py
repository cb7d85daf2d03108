"""MiniGPT-v2 (arXiv 2310.09478; Vision-CAIR/MiniGPT-4 at d94738a): pictures, and an identifier for each task.

Only the third stage was ever released as code. [C]: read there. [P]: the paper, by way of copies or issues. Marked
"ours": not published, with the reason for what stands here. Not as in the original: computing in bfloat16 (theirs:
float16 with a gradient scaler), samples packed into rows, and each stage's LoRA merged before the next starts its own
(theirs: one LoRA through all stages, of the same size).
"""

from __future__ import annotations

from weft.models.sections import Connector, DialectSection
from weft.recipes.datasets import data
from weft.training.recipe import (
    LanguageSource,
    Lora,
    ModelSpec,
    Optim,
    PartName,
    PartTraining,
    Recipe,
    Source,
    Stage,
    TowerSource,
)

# Projector and LoRA on queries and values train in every stage; the ViT and its norm never do [C].
# r 64, alpha 16 (scale 0.25), dropout 0.05 [C minigpt_v2.py]; the vocabulary stays Llama's.
TRAINED: dict[PartName, PartTraining] = {
    "vision_connector": PartTraining(train="full"),
    "language": PartTraining(
        train="lora", lora=Lora(r=64, alpha=16, dropout=0.05, targets=("q_proj", "v_proj")), dialect_tokens=False
    ),
}
# 448 px, 32x32 patches, four of a row merged into one token: 256 a picture [C]. The released code builds 39 blocks and
# no final norm, then a LayerNorm of its own (eps 1e-5), frozen at its start [C].
TOWER = {"final_norm": False, "extra_norm": 1e-5}
MERGE = Connector(kind="linear", merge=4)
# A new model is asked as it was trained: one <s> (the released inference doubles it by accident). Captions without
# words get one of the published instructions; training drew from 17 [C].
DIALECT = DialectSection(name="minigpt_v2", switches={"doubled_bos": False, "instructions": True})

MODEL = ModelSpec(
    vision=TowerSource(
        # EVA-CLIP-g as BLIP-2 holds it, positions interpolated from 16x16: the tower of the released eva_vit_g.pth.
        source="Salesforce/blip2-opt-2.7b",
        connector=MERGE,
        options={"size": [448, 448], **TOWER},
    ),
    language=LanguageSource(source="meta-llama/Llama-2-7b-chat-hf"),  # [C]
    dialect=DIALECT,
)

# Weak data first, names [P], sampled more than the rest [P]; the shares are ours: two thirds weak.
WEAK = (data("laion", 100), data("cc3m", 100), data("sbu", 50), data("grit", 150))
# Fine-grained data, names [P]; the shares are ours: those of stage 3, where it has the same set.
FINE = (
    data("coco_caption", 60),
    data("textcaps", 180),
    *(data(name, 150) for name in ("refcoco", "refcoco_plus", "refcocog")),
    *(data(name, 60) for name in ("inv_refcoco", "inv_refcoco_plus", "inv_refcocog")),
    data("visual_genome", 240),
    data("vqav2", 90),
    data("okvqa", 48),
    data("aokvqa", 72),
    data("gqa", 300),
    data("ocrvqa", 180),
)
# Stage 3 [C, train_configs/minigptv2_finetune.yaml]: a ratio picks the set of a batch, and batches differ in size, so a
# set's share of the samples is ratio x batch: here, and of the same sets above. conversation_58k 30x2, detail_23k 20x4,
# reasoning_77k 80x4, Flickr's phrase -> boxes and object -> boxes are one set here: (80+80)x2.
INSTRUCTIONS = (
    data("multitask_conversation", 100),
    data("llava_conversation", 60),
    data("llava_detail", 80),
    data("llava_reason", 320),
    data("flickr_grounded", 160),
    data("flickr_detection", 320),
    data("unnatural_instructions", 10),
)


def _optim(lr: float, min_lr: float) -> Optim:
    """AdamW, betas 0.9 and 0.999, decay 0.05 (none of 1-D tensors), 1,000 steps of warm-up, cosine, no clipping [C]."""
    return Optim(lr=lr, min_lr=min_lr, warmup_steps=1000, betas=(0.9, 0.999), weight_decay=0.05, clip=None)


def _stage(name: str, steps: int, batch: int, optim: Optim, mixture: tuple[Source, ...]) -> Stage:
    """``batch`` samples of about 320 tokens (256 of them the picture), in rows that hold the longest answer (1,024)."""
    rows = round(batch * 320 / 4096)
    return Stage(
        name=name,
        steps=steps,
        optim=optim,
        parts=TRAINED,
        mixture=mixture,
        row_tokens=4096,
        accumulate=rows,
        checkpoint_activations=True,
    )


def minigpt_v2() -> Recipe:
    """Three stages: wide and weak, fine-grained, instructions.

    Steps, batches and rates of the first two are recalled, not read anywhere; stage 3: 35k steps [P, issue 450] (the
    released configuration has 50k), 24 samples a batch, 1e-5 to 1e-6 [C]. Their lowest rates are ours: stage 1's is
    8e-5, which the first released stage 3 was left with though it was above its own rate.
    """
    return Recipe(
        name="minigpt_v2",
        model=MODEL,
        stages=(
            _stage("pretrain", 400_000, 96, _optim(1e-4, 8e-5), (*WEAK, *_shares(FINE, 200))),
            _stage("multitask", 50_000, 64, _optim(1e-5, 1e-6), FINE),
            _stage("instructions", 35_000, 24, _optim(1e-5, 1e-6), (*FINE, *INSTRUCTIONS)),
        ),
        checkpoint_every=1000,  # the released "epoch" [C]
    )


def _shares(sources: tuple[Source, ...], total: float) -> tuple[Source, ...]:
    """The sources with weights of the same proportions that add up to ``total``."""
    factor = total / sum(source.weight for source in sources)
    return tuple(source.model_copy(update={"weight": source.weight * factor}) for source in sources)
