"""Small models from nothing, on a user's own recordings or pictures: minutes on two cores."""

from __future__ import annotations

from typing import Any

from weft.data.augment import Augment
from weft.recipes.scratch import scratch
from weft.training.recipe import PART_NAMES, Optim, PartTraining, Recipe, Source, Stage

# Changes that keep the meaning of any sample: boxes and word times follow.
SOUND = Augment(
    gain_db=8,
    noise_db=(5, 40),
    speed=0.12,
    pad_seconds=0.5,
    cut=0.5,
    join=0.5,
    untimed=0.2,
    time_masks=2,
    time_mask_frames=10,
    freq_masks=2,
    freq_mask_bands=12,
)
UPDATES_ALONE = 300
PICTURES = Augment(color=0.3, shift=0.15, scale=0.25)
BOTH = Augment(**{**SOUND.model_dump(), **PICTURES.model_dump(include={"color", "shift", "scale"})})
# A model that knows nothing of pictures learns places twice as well from mirrored ones too, and reads no letters yet.
MIRRORED = BOTH.model_copy(update={"flip": True})
# Coordinates as bells two hundredths of a side wide, and answers weighed by the root of their length: else the eight
# boxes of a detection drown a count.
LESSONS: dict[str, Any] = {"balance": 0.5, "near": 2.0}


def from_nothing(alone: int = UPDATES_ALONE) -> dict[str, Any]:
    """Lessons of a model that knows nothing. Where answers tell what is heard when or seen where, its encoders learn
    that first, ``alone``, then beside the answers, and the language model is told where to look while it writes. It
    sees pictures more often where all that is asked about one stands in one conversation."""
    return {**LESSONS, "listen": {"weight": 1.0, "first": alone, "guide": 1.0}, "converse": 0.75}


def from_scratch(name: str, sources: tuple[Source, ...], steps: int, augment: Augment = MIRRORED) -> Recipe:
    """Everything in the model `scratch` trains at once."""
    stage = Stage(
        steps=steps,
        optim=Optim(lr=1e-3, min_lr=2e-5, warmup_steps=40, betas=(0.9, 0.98), weight_decay=0.05),
        parts={part: PartTraining(train="full") for part in PART_NAMES},
        mixture=sources,
        augment=augment,
        lessons=from_nothing(),
        row_tokens=1024,
    )
    return Recipe(name=name, model=scratch(), stages=(stage,))


def digits() -> Recipe:
    """Spoken digits with word times."""
    return from_scratch("digits", (Source(path="digits/train.jsonl", name="digits"),), 3000)


def cells() -> Recipe:
    """Blood cells under a microscope: where, and how many."""
    return from_scratch("cells", (Source(path="cells/train.jsonl", name="cells"),), 6000)


def digits_cells() -> Recipe:
    """Both in one model."""
    sources = Source(path="digits/train.jsonl", name="digits"), Source(path="cells/train.jsonl", name="cells")
    return from_scratch("digits_cells", sources, 8000)
