"""weft's own model: Whisper tiny.en, EfficientNet-Lite0 and SmolLM2-135M-Instruct, and what weft teaches them.

Whisper's transcription reaches the language model as its own words (`encoders.transcript`), and so do the things of a
picture (`detector`). Connectors first learn what is seen where and heard when, which costs no language model. Then LoRA
learns to answer where there are media (`models.gate`): of text alone the model says what SmolLM2 says. A spoken prompt
is written down first, and answered as if it were typed (`generation.spoken`); what it says of one that it hears itself
is distilled (`teaching.keeping`).
"""

from __future__ import annotations

from pathlib import Path

from weft.models.sections import Connector, DialectSection
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

DATA = "bundled-data"  # benchmarks/bundled_data.py makes it, and "timed" in it bundled_times.py
EAR = f"{DATA}/ear"  # and benchmarks/bundled_ear.py, Whisper that knows its voices
LOOK, LISTEN, ANSWER = 6700, 600, 1200  # updates of 2,048 tokens, and of 1,024
CONNECTORS: tuple[PartName, ...] = ("audio_connector", "vision_connector")
BENT = PartTraining(
    train="lora", lora=Lora(r=32, alpha=64, targets=("q_proj", "k_proj", "v_proj", "o_proj")), tokens_lr_scale=10
)
ASKED = {
    **{"plain": 0.18, "voices": 0.06, "timed": 0.11, "talk": 0.02, "said": 0.04, "silent": 0.03, "heard": 0.1},
    **{"aloud": 0.06, "world": 0.11, "questions": 0.17, "pictures": 0.03, "photos": 0.07, "whole": 0.02},
}
OF_PACKAGES = ("photos", "whole")  # of Debian's
LISTEN_WELL = {"weight": 1.0, "sharpness": 5.0, "sides": 0.25}


def bundled() -> Recipe:
    """10 tokens a second of sound, and 15 for its transcription with times; 100 of a picture, from five depths of the
    eye: three early ones, which know colours and edges, 1/16 (places) and 1/32 (names); and 96 for what is written of
    it. The ear is the taught one where there is one."""
    taught = Path(EAR).is_dir()
    parts = {role: str(folder) for role, folder in sources().items()}
    # As long as text, by scale and sharpness; places are weaker, for they hide which word is nearest.
    joined = {"kind": "transformer", "norm": True, "attention_layers": 2, "scale": 0.2}
    heard = {**joined, "kind": "transcript", "vocab_size": 51864, "attention_layers": 1, "timed": True}
    seen = {**joined, "kind": "detector", "written": 96, "tally": True}
    model = ModelSpec(
        vision=TowerSource(
            source=parts["vision"],
            connector=Connector(merge=4, grid=True, places=0.3, hidden=320, heads=5, **seen),
            options={"stages": [1, 2, 3, 5, 7], "stage_grid": [20, 20], "size": [320, 320]},
        ),
        audio=TowerSource(
            source=EAR if taught else parts["audio"],
            kind="transcript",
            connector=Connector(merge=5, places=0.1, hidden=384, heads=6, **heard),
            options={"pad_to_window": not taught},
        ),
        language=LanguageSource(source=parts["language"]),
        dialect=DialectSection(
            name="chatml", switches={"language": "en", "box_bins": 100, "sort_boxes": True, "spoken": "written"}
        ),
        lora_for_media=True,
    )
    alone = {
        name: Stage(
            name=name,
            steps=steps,
            optim=Optim(lr=1e-3, min_lr=5e-5, warmup_steps=50, weight_decay=0.01),
            parts={part: FULL},
            mixture=_mixture({told: 1.0}),
            lessons={"listen": {**LISTEN_WELL, "first": steps, **more}, "near": 2.0},
            row_tokens=2048,
        )
        for name, steps, part, told, more in (
            ("look", LOOK, CONNECTORS[1], "scenes", {"detect": 1.0}),
            ("listen", LISTEN, CONNECTORS[0], "speech", {}),
        )
    }
    answer = Stage(
        name="answer",
        steps=ANSWER,
        optim=Optim(lr=6e-4, min_lr=3e-5, warmup_steps=20, weight_decay=0.01, betas=(0.9, 0.98)),
        parts={"audio_connector": PartTraining(train="full", lr_scale=0.2), "language": BENT},
        mixture=_mixture(ASKED),
        lessons={**LESSONS, "listen": {**LISTEN_WELL, "weight": 0.3}, "keep": 1.0},
        row_tokens=1024,
    )
    return Recipe(name="bundled", model=model, stages=(*alone.values(), answer), threads=1, checkpoint_every=50)


def _mixture(shares: dict[str, float]) -> tuple[Source, ...]:
    """Photographs only where there are some."""
    there = {name: share for name, share in shares.items() if name not in OF_PACKAGES or Path(DATA, name).is_dir()}
    return tuple(Source(path=f"{DATA}/{name}/train.jsonl", weight=share, name=name) for name, share in there.items())
