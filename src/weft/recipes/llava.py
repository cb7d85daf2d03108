"""LLaVA-1.5 (arXiv 2310.03744; haotian-liu/LLaVA, scripts/v1_5): pictures into Vicuna, through two layers.

[S]: the released scripts. [P]: the paper, table 9. "ours": not as there, with the reason. Not as in the original: the
first stage writes its captions as answers of the same prompt (theirs: picture, caption, line end, and no prompt), and
samples are packed into rows.
"""

from __future__ import annotations

from weft.models.sections import Connector, DialectSection
from weft.recipes.datasets import data
from weft.training.recipe import FULL, LanguageSource, ModelSpec, Optim, Recipe, Stage, TowerSource

PROJECTOR = Connector(kind="mlp", merge=1)  # mlp2x_gelu [S]: 1024 to 4096 to 4096
# The layer before the last, padded pictures [S].
TOWER = {"layer": -2, "fit": "pad"}

MODEL = ModelSpec(
    vision=TowerSource(source="openai/clip-vit-large-patch14-336", connector=PROJECTOR, options=TOWER),  # [S]
    language=LanguageSource(source="lmsys/vicuna-7b-v1.5"),  # [S]
    dialect=DialectSection(name="llava"),
)


def llava() -> Recipe:
    """Two stages: the projector alone on captions, then it and the language model on instructions; CLIP never [S].

    AdamW, cosine to zero, 3 % warm-up, no decay [S, P], betas 0.9 and 0.999 and a norm clipped at 1 (the Trainer's).
    """
    return Recipe(
        name="llava",
        model=MODEL,
        stages=(
            Stage(
                name="pretrain",
                steps=2180,  # once through 558,128 pairs, 256 at a time [S]
                optim=Optim(lr=1e-3, warmup_steps=66, weight_decay=0.0),
                parts={"vision_connector": FULL},
                mixture=(data("llava_pretrain"),),
                row_tokens=2048,  # model_max_length [S]
                accumulate=85,  # 256 samples, three of about 660 tokens a row
                checkpoint_activations=True,
            ),
            Stage(
                name="instructions",
                steps=5197,  # once through 665,298 conversations, 128 at a time [S]
                optim=Optim(lr=2e-5, warmup_steps=156, weight_decay=0.0),
                parts={"vision_connector": FULL, "language": FULL},
                mixture=(data("llava_instruct"),),
                row_tokens=2048,
                accumulate=64,  # 128 conversations of about 1,000 tokens
                checkpoint_activations=True,
            ),
        ),
    )
