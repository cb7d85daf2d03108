"""LLaSM (arXiv 2308.15930; LinkSoul-AI/LLaSM at 3443b79): speech in, text out, 64 tokens for any clip.

[C]: the released inference code. [P]: the paper. No rate, batch, number of steps or optimizer was ever published;
"ours" are those of LLaVA (arXiv 2304.08485), whose code LLaSM's was made from (its names are in it).
"""

from __future__ import annotations

from weft.models.sections import Connector, DialectSection
from weft.recipes.datasets import data
from weft.training.recipe import FULL, LanguageSource, ModelSpec, Optim, Recipe, Stage, TowerSource

# One linear layer, 1280 to 4096, on the states of Whisper's decoder [C].
ADAPTOR = Connector(kind="linear", merge=1)
# The paper's single system block; the released double one is for the published weights.
DIALECT = DialectSection(name="llasm", switches={"template": "plain"})

MODEL = ModelSpec(
    audio=TowerSource(
        source="openai/whisper-large-v2",  # [C]; encoder and decoder
        kind="whisper_decoder",
        connector=ADAPTOR,
        options={"decoder_tokens": 64},  # [C]
    ),
    language=LanguageSource(source="LinkSoul/Chinese-Llama-2-7b"),  # [P, C]
    dialect=DIALECT,
)


def llasm() -> Recipe:
    """Two stages: the adaptor alone on transcripts, then it and the language model on conversations; Whisper never [P].

    The released class would also free the embeddings of <au_start> and <au_end> in the first stage [C]; the paper names
    the adaptor only, and here the new rows stay at the mean of the old ones, where [C] starts them too.
    """
    return Recipe(
        name="llasm",
        model=MODEL,
        stages=(
            Stage(
                name="adaptation",
                steps=8000,  # ours: once through about a million clips
                # ours: 2e-3, batch 128, 3 % warm-up, cosine, no decay (LLaVA's first stage)
                optim=Optim(lr=2e-3, warmup_steps=240, weight_decay=0.0, betas=(0.9, 0.999)),
                parts={"audio_connector": FULL},
                # Sets [P]; the weights are ours: their hours, for clips are of like length.
                mixture=(
                    data("aishell", 170),
                    data("librispeech", 960),
                    data("magicdata", 755),
                    data("primewords", 100),
                ),
                row_tokens=2048,  # the language model's context [C]
                accumulate=16,  # 128 clips of about 250 tokens
                checkpoint_activations=True,
            ),
            Stage(
                name="instructions",
                steps=4700,  # ours: three times through 199k conversations [P]
                # ours: 2e-5, batch 128, 3 % warm-up, cosine, no decay (LLaVA's second stage)
                optim=Optim(lr=2e-5, warmup_steps=140, weight_decay=0.0, betas=(0.9, 0.999)),
                parts={"audio_connector": FULL, "language": FULL},
                # Thousands of conversations [P, table 1]: each is drawn as often as any other.
                mixture=(data("wizardlm_spoken", 80), data("sharegpt_spoken", 23), data("gpt4llm_spoken", 96)),
                row_tokens=2048,
                accumulate=64,  # 128 conversations of about 1,000 tokens
                checkpoint_activations=True,
            ),
        ),
    )
