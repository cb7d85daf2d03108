"""The experiments: a claim of a paper, the arms that differ in one thing, and what is measured on unseen samples."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from weft.models.config import Connector, DialectSection
from weft.training.recipe import LanguageSource, ModelSpec, TowerSource

WIDTH = 64
CLIP_SECONDS = 10.0  # the longest; what the encoder hears at once, and what times are counted in


@dataclass(frozen=True)
class Phase:
    """A stage: its part of all updates, its samples with weights, and whether media are taught directly."""

    share: float
    mixture: dict[str, float]
    listen: bool = False


@dataclass(frozen=True)
class Arm:
    model: ModelSpec
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class Figure:
    """One number: ``metric`` on samples of ``kind`` (in some arms asked in the form ``kinds[arm]``)."""

    name: str
    kind: str
    metric: str
    kinds: dict[str, str | None] | None = None  # None for an arm: it cannot be asked this

    def kind_of(self, arm: str) -> str | None:
        return (self.kinds or {}).get(arm, self.kind)


@dataclass(frozen=True)
class Experiment:
    claim: str
    arms: dict[str, Arm]  # the first is what the others are compared with
    figures: tuple[Figure, ...]


def model(sense: Literal["vision", "audio"], **connector: Any) -> ModelSpec:
    """The composition of `scratch` at a third of its width, with one sense: about a quarter of a million weights."""
    towers: dict[str, Any] = {
        "vision": TowerSource(
            kind="conv",
            config={"channels": [16, 32, WIDTH], "layers": 1, "heads": 4},  # 8x8 patches
            connector=Connector(places=True, scale=0.1, **connector),
            options={"size": [64, 64], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
        ),
        "audio": TowerSource(
            kind="conv",
            config={"num_mel_bins": 40, "channels": [8, 16], "width": WIDTH, "conv_layers": 2, "layers": 0, "heads": 4},
            connector=Connector(merge=2, places=True, scale=0.1),
            options={"window_seconds": CLIP_SECONDS},
        ),
    }
    return ModelSpec(
        **{sense: towers[sense]},
        language=LanguageSource(
            config={
                "model_type": "llama",
                "hidden_size": WIDTH,
                "intermediate_size": 3 * WIDTH,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "max_position_embeddings": 1024,
                "initializer_range": 0.05,
                "tie_word_embeddings": True,
            }
        ),
        dialect=DialectSection(
            name="chatml", switches={"box_bins": 100, "sort_boxes": True, "window_seconds": CLIP_SECONDS}
        ),
    )


def union(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """One stage in which every kind of sample is drawn as often as in the stages together."""
    total: Counter[str] = Counter()
    for phase in phases:
        for kind, weight in phase.mixture.items():
            total[kind] += phase.share * weight / sum(phase.mixture.values())  # type: ignore[assignment]
    return (Phase(1.0, dict(total), any(phase.listen for phase in phases)),)


SEEN = {"refer": 2.0, "vqa": 1.0, "caption": 1.0}
# MiniGPT-v2: weak and exact samples, then exact ones, then those with several turns too.
THREE = (
    Phase(0.5, {"weak_caption": 1, "weak_refer": 1, "refer": 1, "vqa": 1}, listen=True),
    Phase(0.25, {"refer": 2, "vqa": 1, "caption": 1}, listen=True),
    Phase(0.25, {"refer": 1, "vqa": 1, "caption": 1, "conversation": 1}, listen=True),
)
ASKED = ("refer", "color", "count", "caption")
TAGGED = "identifier and words"


def _of_wordings() -> tuple[Figure, ...]:
    metric = {"refer": "box_accuracy_50", "color": "exact", "count": "exact", "caption": "exact"}
    return tuple(
        Figure(f"{task}{ending}", f"ask {task}{ending}", metric[task], {TAGGED: f"ask {task}{ending}, identifier"})
        for ending in ("", ", new words")
        for task in ASKED
    )


EXPERIMENTS: dict[str, Experiment] = {
    "merge": Experiment(
        "MiniGPT-v2 joins four neighbouring patches into one token: a quarter of the tokens, for what quality?",
        {
            "each patch a token": Arm(model("vision"), (Phase(1, SEEN, listen=True),)),
            "four of a row": Arm(model("vision", merge=4), (Phase(1, SEEN, listen=True),)),
            "blocks of 2x2": Arm(model("vision", merge=4, grid=True), (Phase(1, SEEN, listen=True),)),
        },
        (
            Figure("box accuracy", "refer", "box_accuracy_50"),
            Figure("questions, exact", "vqa", "exact"),
            Figure("captions, BLEU", "caption", "bleu"),
        ),
    ),
    "identifiers": Experiment(
        "MiniGPT-v2 writes [task] before a request, so that tasks are not taken for one another.",
        {
            "words": Arm(model("vision"), (Phase(1, {f"ask {task}": 1 for task in ASKED}, listen=True),)),
            TAGGED: Arm(model("vision"), (Phase(1, {f"ask {task}, identifier": 1 for task in ASKED}, listen=True),)),
        },
        _of_wordings(),
    ),
    "timestamps": Experiment(
        "Qwen-Audio trains on word times too, and says that transcripts and questions about moments gain from it.",
        {
            "no times": Arm(model("audio"), (Phase(1, {"said": 1, "said too": 1, "heard_at": 1}),)),
            "half with times": Arm(model("audio"), (Phase(1, {"said": 1, "said too, with times": 1, "heard_at": 1}),)),
            "and heard directly": Arm(
                model("audio"), (Phase(1, {"said": 1, "said too, with times": 1, "heard_at": 1}, listen=True),)
            ),
        },
        (
            Figure("WER, plain transcripts", "said", "wer"),
            Figure("questions about a moment, exact", "heard_at", "exact"),
            Figure("word time error, ms", "said too, with times", "word_time_ms", {"no times": None}),
            Figure("words matched", "said too, with times", "word_time_coverage", {"no times": None}),
        ),
    ),
    "stages": Experiment(
        "MiniGPT-v2 trains in three stages, weak samples first; is one stage on all of them as good?",
        {"one stage": Arm(model("vision"), union(THREE)), "three stages": Arm(model("vision"), THREE)},
        (
            Figure("box accuracy", "refer", "box_accuracy_50"),
            Figure("questions, exact", "vqa", "exact"),
            Figure("captions, BLEU", "caption", "bleu"),
            Figure("second turns, exact", "conversation", "exact"),
        ),
    ),
}
