"""`compose`: a model from parts. Encoders and a language model from the hub or a folder, or small random ones.

What comes from a source keeps its weights and its preprocessing; connectors, and the embeddings of tokens the tokenizer
did not have, are new.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

from weft.conversation import WeftError
from weft.models import doors
from weft.models.config import AudioSection, DialectSection, VisionSection, WeftConfig
from weft.models.encoders import IMAGES, SOUNDS, image_kind, known, sound_kind
from weft.models.modeling import WeftForConditionalGeneration, own_attention
from weft.models.preparation import check_sound, pictures, prepared
from weft.models.processing import WeftProcessor
from weft.named import Named

Source = str | Mapping[str, Any] | Any
# Of connectors, where nobody says how many features become one.
USUAL = Named[Callable[[Any], dict[str, Any]]](
    {"vision": "weft.models.usual:of_images", "audio": "weft.models.usual:of_sound"}
)
TOKENIZERS = Named[Callable[[], Any]]({"bytes": "weft.models.bytes_tokenizer:bytes_tokenizer"})  # of weft's own
LABELS = ("id2label", "label2id")  # a classifier's, which no tower keeps


def compose(
    vision: Source | None = None,
    audio: Source | None = None,
    language: Source | None = None,
    tokenizer: str | None = None,
    dialect: str | DialectSection | Mapping[str, Any] = "chatml",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[WeftForConditionalGeneration, WeftProcessor]:
    """A new model and its processor.

    ``vision`` and ``audio`` are a folder or hub name, or a mapping with ``source`` (the same) or ``config`` (a small
    configuration, random weights), ``kind``, ``connector``, and ``options``: other fields of the part's section in
    `models.config`. A ``connector`` that says no ``merge`` has one chosen from the encoder's rate or grid: 10 to 13
    tokens a second of sound and 64 to 144 a picture, where there are as many features. ``language`` is given likewise:
    ``source``, or ``config`` (a transformers configuration with ``model_type``), and ``tokenizer``; without a tokenizer
    of its own it gets weft's byte-level one. ``seed`` decides all random weights; all are of ``dtype``. Raises
    WeftError where a source cannot be read or parts do not fit.
    """
    words, processor, own = parts_of(vision, audio, language, tokenizer, dialect)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        language_model, text_config = language_of(words, processor, dtype)
        model: Any = WeftForConditionalGeneration(config_of(text_config, processor), language_model=language_model)
        model.to(dtype)
        if language_model is not None:
            start_rows(model, slice(own, len(processor.tokenizer)))
            start_placeholders(model, processor, own)
        ids = processor.tokenizer.convert_tokens_to_ids
        scales = [ids(scale) for scale in processor.dialect.ordered_tokens()]
        for encoder in (model.vision, model.audio):
            if hasattr(encoder, "start_well"):
                encoder.start_well()
        start_scales(model, scales if language_model is None else [s for s in scales if min(s) >= own])
    for encoder, kind, asked in ((model.vision, model.image_kind, vision), (model.audio, model.sound_kind, audio)):
        if source := _mapping(asked, "encoder").get("source"):
            _load_tower(encoder.tower, kind, source)
            kind.introduce(model, processor, source)
    if hasattr(model.vision_connector, "introduce"):
        model.vision_connector.introduce(processor)
    model.generation_config = GenerationConfig(eos_token_id=processor.stop_ids, pad_token_id=processor.pad_id)
    return model.eval(), processor


# -- what was asked for ------------------------------------------------------------------------------------------------


def parts_of(
    vision: Source | None,
    audio: Source | None,
    language: Source | None,
    tokenizer: str | None,
    dialect: str | DialectSection | Mapping[str, Any],
) -> tuple[dict[str, Any], WeftProcessor, int]:
    """What is asked of the language model, the processor, and how many tokens the tokenizer had before."""
    words = _mapping(language, "language")
    if not words.get("source") and not words.get("config"):
        raise WeftError("compose: give a language model: language='hub/name', or language={'config': {...}}")
    sections = _vision_section(_mapping(vision, "vision")), _audio_section(_mapping(audio, "audio"))
    form = DialectSection(name=dialect) if isinstance(dialect, str) else DialectSection.model_validate(dialect)
    wanted = tokenizer or words.get("tokenizer") or words.get("source")
    if wanted:
        text_tokenizer = doors.load(AutoTokenizer, wanted, "no tokenizer could be loaded")
    else:
        text_tokenizer = TOKENIZERS["bytes"]()
    own = len(text_tokenizer)
    return words, WeftProcessor.build(text_tokenizer, sections[0], sections[1], form), own


def config_of(text: Any, processor: WeftProcessor) -> WeftConfig:
    parts: dict[str, Any] = {"vision": processor.vision, "audio": processor.audio, "dialect": processor.section}
    return WeftConfig(text_config=text, **parts, **processor.token_ids)


def _mapping(source: Source | None, name: str) -> dict[str, Any]:
    if source is None:
        return {}
    if isinstance(source, str):
        return {"source": source}
    fields = source.model_dump() if hasattr(source, "model_dump") else dict(source)
    allowed = {"source", "config"} | ({"tokenizer"} if name == "language" else {"kind", "connector", "options"})
    odd = sorted(fields.keys() - allowed)
    if odd:
        raise WeftError(f"{name}: unknown field {odd[0]!r}; there are {', '.join(sorted(allowed))}")
    if fields.get("source") and fields.get("config"):
        raise WeftError(f"{name}: give either source (weights are loaded) or config (random weights), not both")
    if not fields.get("source") and not fields.get("config"):
        raise WeftError(f"{name}: give a source (a folder or hub name) or a config")
    return {key: value for key, value in fields.items() if value is not None}


# -- encoders ----------------------------------------------------------------------------------------------------------


def _vision_section(asked: dict[str, Any]) -> VisionSection | None:
    if not asked:
        return None
    if source := asked.get("source"):
        kind, config = _published(source, IMAGES, "image", asked.get("kind"))
        fields = pictures(prepared(source, "image_processor"), source, asked.get("options", ()))
    else:
        kind, config, fields = asked.get("kind", "conv"), asked["config"], {}
    if "size" not in fields and (size := known(IMAGES, kind, "vision").own_size(config)) is not None:
        fields["size"] = size
    return _section(VisionSection, {"kind": kind, "config": config, **fields}, asked, "vision")


def _published(source: str, kinds: Mapping[str, Any], what: str, asked: str | None) -> tuple[str, dict[str, Any]]:
    """The kind of a source's encoder, unless another that reads its weights is ``asked`` for, and its configuration."""
    raw = doors.read_json(source, "config.json")
    model_types = {name: (kind, inner) for kind, k in kinds.items() for name, inner in k.sources.items()}
    kind, inner = model_types.get(raw.get("model_type", ""), (asked, None))
    if kind is None:
        raise WeftError(
            f"{source}: model_type {raw.get('model_type')!r} is no {what} encoder that weft knows; "
            f"it knows {', '.join(sorted(model_types))}"
        )
    if asked is not None and known(kinds, asked, what).source_class is None:
        raise WeftError(f"{source}: kind {asked!r} is weft's own, for which there are no published weights")
    config = raw.get(inner, {}) if inner is not None else raw
    return asked or kind, {key: value for key, value in config.items() if key not in LABELS}


def _audio_section(asked: dict[str, Any]) -> AudioSection | None:
    if not asked:
        return None
    extractor = None
    if source := asked.get("source"):
        kind, config = _published(source, SOUNDS, "sound", asked.get("kind"))
        extractor = prepared(source, "feature_extractor")
        check_sound(extractor, config, source, asked.get("options", ()))
    else:
        kind, config = asked.get("kind", "whisper"), asked["config"]
    fields = known(SOUNDS, kind, "audio").published(config, extractor)
    return _section(AudioSection, {"kind": kind, "config": config, **fields}, asked, "audio")


def _section(kind: Any, fields: dict[str, Any], asked: dict[str, Any], name: str) -> Any:
    odd = sorted(set(asked.get("options", {})) - set(kind.model_fields))
    if odd:
        raise WeftError(f"{name}.options: unknown field {odd[0]!r}; there are {', '.join(kind.model_fields)}")
    fields |= asked.get("options", {})
    if "connector" in asked:
        fields["connector"] = asked["connector"]
    try:
        section = kind.model_validate(fields)
    except ValueError as error:
        raise WeftError(
            f"{name}: {str(error).splitlines()[1].strip()}: {str(error).splitlines()[2].strip()}"
        ) from error
    if section.connector.merge is not None or section.connector.kind in ("none", "queries"):
        return section
    usual = USUAL[name]((image_kind if name == "vision" else sound_kind)(section))
    return section.model_copy(update={"connector": section.connector.model_copy(update=usual)})


def _load_tower(tower: Any, kind: Any, source: str) -> None:
    """Copy a source's weights into the tower; every weight that it has must be there, with its shape."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # else it lists all the weights of the source that are no part of the tower
    options: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True, "key_mapping": kind.renames}
    options |= kind.loading
    try:
        loaded, report = doors.load(kind.source_class, source, "its weights could not be loaded", **options)
    finally:
        logging.set_verbosity(verbosity)
    part = kind.source_prefix
    found, lost = loaded.state_dict(), set(report["missing_keys"])
    if kind.starts_plain:
        lost = {key for key in lost if kind.starts_plain not in key}
    own = tower.state_dict()
    wrong = [k for k in own if part + k in lost or found.get(part + k, k) is k or found[part + k].shape != own[k].shape]
    if wrong:
        raise WeftError(
            f"{source}: {len(wrong)} weights of the encoder are missing or of another shape: {wrong[0]}, ..."
        )
    tower.load_state_dict({k: found[part + k] for k in own})


# -- language model ----------------------------------------------------------------------------------------------------


def language_of(asked: dict[str, Any], processor: WeftProcessor, dtype: torch.dtype) -> tuple[Any, Any]:
    """The loaded language model (None: random weights) and its configuration."""
    tokens = len(processor.tokenizer)
    if asked.get("source"):
        lost = "no language model could be loaded"
        attention = own_attention(doors.load(AutoConfig, asked["source"], lost))
        loaded: Any = doors.load(AutoModelForCausalLM, asked["source"], lost, dtype=dtype, **attention)
        if (known := loaded.get_input_embeddings().num_embeddings) < tokens:
            loaded.resize_token_embeddings(tokens, pad_to_multiple_of=64, mean_resizing=False)
            start_rows(loaded, slice(known, None))
        if doors.resolve(asked["source"]) == "folder":
            loaded.config._name_or_path = ""  # a path of this machine, which saved folders would carry to others
        return loaded, loaded.config
    fields = dict(asked["config"])
    kind = fields.pop("model_type", "llama")
    fields.setdefault("vocab_size", -(-tokens // 64) * 64)
    if fields["vocab_size"] < tokens:
        raise WeftError(
            f"language.config.vocab_size is {fields['vocab_size']}, and the tokenizer with the dialect's tokens has "
            f"{tokens}; leave vocab_size out"
        )
    fields |= {"pad_token_id": None, "bos_token_id": None, "eos_token_id": processor.stop_ids}
    try:
        return None, AutoConfig.for_model(kind, **fields)
    except (ValueError, TypeError) as error:
        raise WeftError(f"language.config: {str(error).splitlines()[0]}") from error


# -- embeddings of new tokens ------------------------------------------------------------------------------------------


def tables(model: Any) -> list[torch.Tensor]:
    """The input and, where it is another, the output embedding [V, W]."""
    rows, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    return [rows] if head is None or head.weight is rows else [rows, head.weight]


@torch.no_grad()
def start_rows(model: WeftForConditionalGeneration, new: slice) -> None:
    """New rows of a trained model start at the mean of those before: as likely as any, never the likeliest of all.

    Those, too, that no token has and that only fill the table up: at random, one was SmolLM2's answer within a text.
    """
    for table in tables(model):
        table[new] = table[: new.start].float().mean(0).to(table.dtype)


@torch.no_grad()
def start_placeholders(model: WeftForConditionalGeneration, processor: WeftProcessor, own: int) -> None:
    """New placeholders of media start as an ellipsis, where the language model has one.

    They stand for silence and for "nothing that was asked for" where media themselves are learned (`teaching.media`):
    a row in the middle of all others is the likeliest of none, so a mean can never be told.
    """
    ellipsis = processor.renderer.encode_text(" ...")
    if len(ellipsis) == 1 and ellipsis[0] < own:
        ids = [processor.token_ids[name] for name in ("image_token_id", "audio_token_id")]
        for table in tables(model):
            table[[i for i in ids if i is not None and i >= own]] = table[ellipsis[0]].clone()


@torch.no_grad()
def start_scales(model: WeftForConditionalGeneration, scales: list[list[int]]) -> None:
    """Tokens of a scale (times, coordinates) start with waves along it, so that neighbours start alike.

    Half the random start stays; the waves, each entry's mean over the scale taken off, bring the rest of its size.
    """
    for table in tables(model):
        spread = float(table.float().std())
        for ids in scales:
            if len(ids) > 1:
                waves = scale_waves(len(ids), table.shape[1]).to(table.device)
                table[ids] = (0.5 * table[ids].float() + 0.85 * spread * waves).to(table.dtype)


def scale_waves(steps: int, width: int) -> torch.Tensor:
    """[steps, width] sines and cosines from one period of 2 pi steps up to the whole scale; mean 0 along it, std 1."""
    half = -(-width // 2)
    rate = torch.exp(-math.log(max(steps, 10)) * torch.arange(half) / max(half - 1, 1))
    angle = torch.arange(steps)[:, None] * rate
    waves = torch.cat([angle.sin(), angle.cos()], 1)[:, :width]
    waves = waves - waves.mean(0)
    return waves / waves.std()
