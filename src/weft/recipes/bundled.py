"""weft's own model: Whisper tiny.en, EfficientNet-Lite0 and SmolLM2-135M-Instruct, and what weft teaches them.

Connectors first learn what is heard when and seen where, which costs no language model: a moment inside a word is to
give the word's token, which with tied embeddings is what the language model reads. Then they and LoRA learn to answer.
"""

from __future__ import annotations

from weft.models.config import Connector, DialectSection
from weft.parts import sources
from weft.recipes.small import LESSONS
from weft.training.recipe import (
    FULL,
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

DATA = "bundled-data"  # benchmarks/bundled_data.py makes it
LISTEN, ANSWER = 3000, 600  # updates of 2,048 and of 1,024 tokens
CONNECTORS: tuple[PartName, ...] = ("audio_connector", "vision_connector")
BENT = PartTraining(train="lora", lora=Lora(r=32, alpha=64, targets=("q_proj", "v_proj")), tokens_lr_scale=10)
TOLD = {"speech": 0.6, "grounded": 0.1, "scenes": 0.3}  # samples that tell what is heard when or seen where
ASKED = {"plain": 0.5, "speech": 0.06, "world": 0.24, "talk": 0.15, "typed": 0.05}
LISTEN_WELL = {"weight": 1.0, "sharpness": 5.0, "sides": 0.25}


def bundled() -> Recipe:
    """10 tokens a second of sound; 100 of a picture, from two depths of the eye: 1/16 (places) and 1/32 (names)."""
    parts = {role: str(folder) for role, folder in sources().items()}
    # As long as text, by scale and sharpness; places are weaker, for they hide which word is nearest.
    joined = {"kind": "transformer", "norm": True, "attention_layers": 2, "scale": 0.2}
    model = ModelSpec(
        vision=TowerSource(
            source=parts["vision"],
            connector=Connector(merge=4, grid=True, places=0.3, hidden=320, heads=5, **joined),
            options={"stages": [5, 7], "size": [320, 320]},
        ),
        audio=TowerSource(
            source=parts["audio"], connector=Connector(merge=5, places=0.1, hidden=384, heads=6, **joined)
        ),
        language=LanguageSource(source=parts["language"]),
        dialect=DialectSection(name="chatml", switches={"language": "en", "box_bins": 100, "sort_boxes": True}),
    )
    listen = Stage(
        name="listen",
        steps=LISTEN,
        optim=Optim(lr=1e-3, min_lr=5e-5, warmup_steps=50, weight_decay=0.01),
        parts=dict.fromkeys(CONNECTORS, FULL),
        mixture=_mixture(TOLD),
        lessons={"listen": {**LISTEN_WELL, "first": LISTEN}, "near": 2.0},
        row_tokens=2048,
    )
    answer = Stage(
        name="answer",
        steps=ANSWER,
        optim=Optim(lr=8e-4, min_lr=3e-5, warmup_steps=20, weight_decay=0.01, betas=(0.9, 0.98)),
        parts={**dict.fromkeys(CONNECTORS, FULL), "language": BENT},
        mixture=_mixture(ASKED),
        lessons=LESSONS,
        row_tokens=1024,
    )
    return Recipe(name="bundled", model=model, stages=(listen, answer), threads=1, checkpoint_every=50)


def _mixture(shares: dict[str, float]) -> tuple[Source, ...]:
    return tuple(Source(path=f"{DATA}/{name}/train.jsonl", weight=share, name=name) for name, share in shares.items())
