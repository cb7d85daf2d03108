"""InternVL 2.5 of one billion (arXiv 2412.05271; OpenGVLab/InternVL, shell/internvl2.5): tiles into Qwen2.5-0.5B.

[S]: the released scripts of stages 1 and 2. "ours": not as there, with the reason. The tower is taken from a conversion
for `transformers` (the released one comes with code of its own), so it is one that was trained along already; no path
of it is dropped (theirs: one in ten, in stage 2).
"""

from __future__ import annotations

from weft.models.sections import Connector, DialectSection
from weft.recipes.datasets import data
from weft.training.recipe import FULL, LanguageSource, ModelSpec, Optim, Recipe, Stage, TowerSource

# Four patches into one, normed, two layers; up to 12 tiles and the whole picture [S].
PROJECTOR = Connector(kind="mlp", merge=4, grid=True, norm=True)
TILES = {"tiles": 12}

MODEL = ModelSpec(
    vision=TowerSource(source="OpenGVLab/InternVL3-1B-hf", connector=PROJECTOR, options=TILES),
    language=LanguageSource(source="Qwen/Qwen2.5-0.5B-Instruct"),  # [S]
    dialect=DialectSection(name="internvl"),
)


def internvl() -> Recipe:
    """Two stages of 512 packed rows a step [S]: the projector alone, then everything. Labels are averaged between
    tokens and answers (square averaging) [S]."""
    return Recipe(
        name="internvl",
        model=MODEL,
        stages=(
            Stage(
                name="warmup",
                steps=100_000,  # [S]
                optim=Optim(lr=2e-4, warmup_steps=100, weight_decay=0.01),
                parts={"vision_connector": FULL},
                mixture=(data("llava_pretrain"), data("grit")),  # ours: theirs is not public
                row_tokens=16384,
                accumulate=512,
                lessons={"balance": 0.5},
                checkpoint_activations=True,
            ),
            Stage(
                name="instructions",
                steps=22_000,  # [S]
                optim=Optim(lr=4e-5, warmup_steps=660, weight_decay=0.01),
                parts={"vision": FULL, "vision_connector": FULL, "language": FULL},
                mixture=(data("llava_instruct"), data("refcoco"), data("text_chat")),  # ours
                row_tokens=16384,
                accumulate=512,
                lessons={"balance": 0.5},
                checkpoint_activations=True,
            ),
        ),
    )
