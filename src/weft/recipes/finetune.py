"""What ``weft finetune`` does where nobody says otherwise: sizes, rates and changes from the model and the data."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Literal

import torch

from weft.conversation import Conversation, Task, WeftError
from weft.data.augment import Augment
from weft.data.clip_lengths import SPEECH
from weft.data.source import Source as Samples
from weft.data.source import open_source
from weft.generation.configuration import load_config
from weft.generation.spoken import spoken
from weft.models.adapters import FOLDER, is_adapter
from weft.models.config import WeftConfig
from weft.models.modeling import WeftForConditionalGeneration
from weft.models.sections import DialectSection
from weft.recipes.bundled import BENT, LISTEN_WELL
from weft.recipes.scratch import model_spec
from weft.recipes.small import BOTH, LESSONS, MIRRORED, UPDATES_ALONE, from_nothing
from weft.training.build import build_model
from weft.training.recipe import (
    PART_NAMES,
    Evaluation,
    Lora,
    ModelSpec,
    Optim,
    PartName,
    PartTraining,
    Recipe,
    Source,
    Stage,
)

LOOKED_AT = 200  # samples of each file that tell what a mixture is like
LISTENS = 100  # updates that a woven model listens and looks alone, which cost a tenth of the others
SMALL = 50_000_000  # parameters: below this a model trains in full, for it knows too little for LoRA to bend


def parameters(spec: ModelSpec) -> int:
    """How many parameters the model has, without reading weights."""
    if spec.base is None:
        return build_model(spec)[0].num_parameters()
    with torch.device("meta"):
        return WeftForConditionalGeneration(base_config(spec.base)).num_parameters()


def base_config(base: str) -> WeftConfig:
    """The configuration of a weft checkpoint that is to be trained."""
    if is_adapter(base):
        FOLDER["check_trainable"](base)
    return load_config(base)


def named_places(config: WeftConfig) -> bool:
    """Whether media carry the names of their places (`Connector.places`), as `bundled`'s do: such a model learns from
    what is heard when and seen where, beside its answers."""
    return config.image_place_ids is not None or config.audio_place_ids is not None


def writes_pictures(config: WeftConfig) -> bool:
    """Whether what is seen is written down too (a vision connector of kind detector), and learned so."""
    return config.vision_section is not None and config.vision_section.connector.written > 0


def _readable(source: Samples) -> list[Conversation]:
    """The first samples; what cannot be read is named, or left out, when the samples are measured."""
    found = []
    for i in range(min(len(source), LOOKED_AT)):
        with suppress(WeftError):
            found.append(source[i])
    return found


def finetune_recipe(
    model: str,
    data: list[Source],
    *,
    eval_data: str | None = None,
    full: bool | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    lr: float | None = None,
    bits: Literal[4, 8] | None = None,
    media_root: str | None = None,
) -> Recipe:
    """The recipe of a fine-tuning run. ``full`` None: LoRA for a trained model or one that is
    read in few ``bits``, everything for a small one."""
    if lr is not None and not 0 < lr < float("inf"):
        raise WeftError(f"nothing is learned at a rate of {lr:g} (--lr): give one above 0, such as 1e-4")
    spec = model_spec(model).model_copy(update={"bits": bits})
    sources = [open_source(s.path, media_root=media_root) for s in data]
    heads = [_readable(source) for source in sources]
    for file, head in zip(data, heads, strict=True):
        check_senses(spec, model, file.path, head)
    looked_at = [sample for head in heads for sample in head]
    if spec.base is None and (language := spoken_language(looked_at)):
        switches = {**spec.dialect.switches, "language": language}
        spec = spec.model_copy(update={"dialect": spec.dialect.model_copy(update={"switches": switches})})
    small = parameters(spec) < SMALL
    full = small and not bits if full is None else full
    told = full or not any(sample.images or sample.audios for sample in looked_at)  # to say other things of text alone
    if told and spec.base is not None and base_config(spec.base).lora_for_media:
        spec = spec.model_copy(update={"lora_for_media": False})
    written = spec.base is not None and (base_config(spec.base).dialect or {})["switches"].get("spoken") == "written"
    if written and any(spoken(message) for sample in looked_at for message in sample.messages):  # it learns to hear it
        spec = spec.model_copy(update={"dialect": DialectSection(switches={"spoken": "heard"})})
    samples = sum(map(len, sources))
    woven = not full and not small and spec.base is not None and named_places(base_config(spec.base))
    how, usual_rate = PartTraining(train="lora", lora=Lora(r=16, alpha=32)), 2e-4
    if full:
        how, usual_rate = PartTraining(train="full"), 2e-5
    elif woven:
        how, usual_rate = BENT, 8e-4
    parts: dict[PartName, PartTraining] = {"language": how}
    if full:
        parts |= {n: how for n in PART_NAMES if n in present(spec)}
    else:
        parts |= {n: PartTraining(train="full") for n in ("vision_connector", "audio_connector") if n in present(spec)}
    if steps is None:
        steps = default_steps(samples, small, any(sample.images for sample in looked_at))
    rate = lr if lr is not None else 1e-3 if small else usual_rate
    augment, lessons = BOTH, LESSONS if small else {}
    if spec.base is None:
        augment, lessons = MIRRORED, from_nothing(min(UPDATES_ALONE, steps // 10))
    elif woven:  # what frozen encoders give is kept where nothing changes what they are given
        listen = {**LISTEN_WELL, "first": min(LISTENS, steps // 3)}
        listen |= {"detect": 1.0} if writes_pictures(base_config(str(spec.base))) else {}
        augment, lessons = Augment(), {**LESSONS, "listen": listen}
    stage = Stage(
        name="finetune",
        steps=steps,
        minutes=minutes,
        optim=Optim(
            lr=rate,
            min_lr=rate / 50,
            warmup_steps=min(40, max(steps // 20, 5)),
            betas=(0.9, 0.98),
            weight_decay=0.05,
        ),
        parts=parts,
        mixture=tuple(data),
        augment=augment,
        lessons=lessons,
        row_tokens=1024 if small or woven else 4096,
        evaluation=Evaluation(data=eval_data, every=max(steps // 10, 1)),
    )
    every = max(50, min(500, steps // 10))
    return Recipe(name="finetune", model=spec, stages=(stage,), checkpoint_every=every)


def check_senses(spec: ModelSpec, model: str, file: str, samples: list[Conversation]) -> None:
    """Raises `WeftError` where the model can take none of a file's samples, before a run is begun that cannot go on."""
    parts = present(spec)
    for part, what, shown in (
        ("vision", "an image", [s.images for s in samples]),
        ("audio", "a clip", [s.audios for s in samples]),
    ):
        if samples and part not in parts and all(shown):
            encoder = "image encoder" if part == "vision" else "audio encoder"
            raise WeftError(f"{file}: every sample has {what}, and {model} has no {encoder}; take a model with one")


def default_steps(samples: int, small: bool, pictures: bool) -> int:
    """Updates for a number of samples: a small model starts from nothing, a trained one sees each three times.

    Measured on the small model from nothing: a thousand recordings of spoken digits take 2,000 to 3,000 updates, boxes
    in a few hundred pictures more than twice that.
    """
    if small:
        return int(min(max(6000 if pictures else 3000, 3 * samples), 10_000))
    return int(min(max(50, 3 * samples // 8), 5000))


def spoken_language(samples: Iterable[Conversation]) -> str | None:
    """The language that every speech task names, if it is one: a model that only ever learned "transcribe the English
    speech" is to be asked so, where a user leaves the language out."""
    tasks = [p for sample in samples for p in sample.parts() if isinstance(p, Task) and p.name in SPEECH]
    languages = {task.get("language") for task in tasks}
    return languages.pop() if len(languages) == 1 else None


def present(spec: ModelSpec) -> set[str]:
    """The parts that a model has."""
    config = spec if spec.base is None else base_config(spec.base)
    towers = [name for name in ("vision", "audio") if getattr(config, name)]
    return {"language", *towers, *(f"{name}_connector" for name in towers)}
