"""What a recipe says: a model, and the stages that train it. One frozen value; nothing here runs anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from weft.conversation import WeftError
from weft.data.augment import Augment
from weft.frozen import Frozen
from weft.models.sections import Connector, DialectSection
from weft.named import Named

OLD = Named[Callable[[Any], Any]]({"stage": "weft.training.old:stage_now", "recipe": "weft.training.old:recipe_now"})
OLD_LESSONS = ("listen", "near", "balance", "ease", "converse")  # which 0.1.0 had among other fields
PartName = Literal["vision", "vision_connector", "audio", "audio_connector", "language"]
PART_NAMES: tuple[PartName, ...] = ("vision", "vision_connector", "audio", "audio_connector", "language")


# More than any run has, so that a slip of the keyboard is refused before anything is loaded or made.
MOST_STEPS, MOST = 10**8, 1 << 16
Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]
Count = Annotated[int, Field(ge=1, le=MOST)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
Share = Annotated[float, Field(ge=0, lt=1)]


class TowerSource(Frozen):
    """Where an encoder comes from: a folder or hub name (weights are loaded), or a small config (random weights)."""

    source: str | None = None
    kind: str | None = None  # None: found from the source's model_type
    config: dict[str, Any] | None = None
    connector: Connector = Connector()
    options: dict[str, Any] = Field(default_factory=dict)  # other fields of models.config.VisionSection / AudioSection


class LanguageSource(Frozen):
    source: str | None = None  # a folder or hub name
    config: dict[str, Any] | None = None  # or a transformers config with model_type (random weights)
    tokenizer: str | None = None  # folder or hub name; None: the source's own, or weft's byte-level one


class ModelSpec(Frozen):
    """A model composed of parts, or an existing weft checkpoint (``base``), never both."""

    base: str | None = None
    bits: Literal[4, 8] | None = None  # of the language model's layers in the base (`in_bits`): LoRA, one stage
    vision: TowerSource | None = None
    audio: TowerSource | None = None
    language: LanguageSource | None = None
    dialect: DialectSection = DialectSection()  # of a base: switches that are to be otherwise than it has them
    # LoRA of the language model for media alone (`WeftConfig.lora_for_media`); None: as the base has it, else not so.
    lora_for_media: bool | None = None
    seed: Seed = 0  # of random initial weights


class Lora(Frozen):
    r: Count = 16
    alpha: float = 32
    dropout: Share = 0.0
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"

    def targets_among(self, modules: Iterable[str], linear: Iterable[str]) -> list[str]:
        """The ends of the names of the layers that it adapts; ``linear``: those that it may adapt where none is named.

        Raises WeftError where none of ``modules`` is named so.
        """
        there = sorted({name.rsplit(".", 1)[-1] for name in linear})
        if self.targets == "all-linear":
            return there
        if not any(name == t or name.endswith(f".{t}") for name in modules for t in self.targets):
            raise WeftError(f"lora.targets {', '.join(self.targets)}: no such layer; there are {', '.join(there)}")
        return list(self.targets)


class PartTraining(Frozen):
    train: Literal["frozen", "lora", "full"] = "frozen"
    lr_scale: float = Field(1.0, ge=0)  # times the stage's learning rate
    lora: Lora = Lora()
    # With LoRA on the language model: also train the embeddings of the dialect's own tokens (turns, times, boxes),
    # which a language model that was composed from the hub does not know.
    dialect_tokens: bool = True
    tokens_lr_scale: float = Field(1.0, ge=0)  # those embeddings' rate, times the part's: new ones have far to go


FULL = PartTraining(train="full")


class Optim(Frozen):
    lr: float = Field(1e-4, gt=0)
    min_lr: float = Field(0.0, ge=0)
    warmup_steps: int = Field(100, ge=0, le=MOST_STEPS)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: float = Field(1e-8, ge=0)
    weight_decay: float = Field(0.05, ge=0)  # not on biases, norms and other 1-D tensors
    clip: float | None = Field(1.0, gt=0)  # global gradient norm


class Source(Frozen):
    """One named source of a mixture: a JSON Lines file, or shards (a folder, a file, an address)."""

    path: str
    weight: float = Field(1.0, gt=0)
    name: str | None = None  # None: the file's stem
    augment: Augment | None = None  # None: the stage's
    lessons: dict[str, Any] | None = None  # of its own; None: the stage's


class Evaluation(Frozen):
    data: str | None = None
    every: Steps = 500
    limit: int | None = Field(None, ge=1)  # first samples only
    metric: str | None = None  # "task.metric" that decides the best checkpoint; None: the loss
    patience: int | None = Field(None, ge=1)  # evaluations without improvement before the stage ends


class Stage(Frozen):
    name: str = "train"
    steps: Steps = 1000  # optimizer updates
    minutes: float | None = Field(None, gt=0, le=60 * 24 * 366)  # instead: as many steps as fit (`pace`)
    optim: Optim = Optim()
    parts: dict[PartName, PartTraining] = Field(default_factory=dict)  # a part not named here is frozen
    mixture: tuple[Source, ...] = ()
    augment: Augment = Augment()
    row_tokens: int = Field(2048, ge=16, le=1 << 24)  # length of a packed row
    rows: Count = 1  # packed rows per micro-step
    accumulate: int = Field(1, ge=1, le=4096)
    packing: bool = True
    even_rows: bool = True  # packed rows have like shares of pictures and sound, so that ranks need not wait
    label_smoothing: Share = 0.0
    lessons: dict[str, Any] = Field(default_factory=dict)  # beside answers, by name: see `lessons`
    checkpoint_activations: bool = False
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="before")
    @classmethod
    def _as_it_is_now(cls, given: Any) -> Any:
        places = (
            [p for p in (given, *given.get("mixture", ())) if isinstance(p, dict)] if isinstance(given, dict) else []
        )
        named = [each for place in places for each in (place, place.get("augment")) if isinstance(each, dict)]
        return OLD["stage"](given) if any(name in each for each in named for name in OLD_LESSONS) else given


class Parallel(Frozen):
    """How ranks share the work. It decides nothing of what is learned."""

    shard: bool = False  # each holds a slice of every weight (FSDP2), in place of all of them
    replicate: Count = 1  # groups of ranks that hold the sharded model once each, such as machines
    tensor: Count = 1  # neighbouring ranks that compute each layer together, and share out the model with the others


class Recipe(Frozen):
    name: str
    model: ModelSpec
    stages: tuple[Stage, ...] = Field(min_length=1)
    precision: Literal["float32", "bfloat16"] = "bfloat16"  # compute; weights stay float32
    compile: bool = False  # layers through torch.compile (`compiled`)
    seed: Seed = 0
    workers: int = Field(0, ge=0, le=1024)  # processes that decode samples
    threads: int | None = Field(None, ge=1, le=1024)
    on_bad_sample: Literal["fail", "skip"] = "fail"
    media_root: str | None = None  # the folder that media of samples lie in, links followed; None: anywhere
    checkpoint_every: Steps = 500
    keep_last: Count = 2
    keep_best: Count = 1
    features_gb: float = Field(20.0, ge=0)  # of frozen encoders' features, kept on disk for all runs (`features`)
    loggers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    parallel: Parallel = Parallel()
