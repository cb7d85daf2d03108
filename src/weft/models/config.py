"""The configuration of a composed model: an ordinary `transformers` configuration with three small sections of ours.

``text_config`` is the language model's own configuration. ``vision`` and ``audio`` say which encoder, what it eats and
which of its features are used; each has a connector into the language model's space. ``dialect`` names the prompt
format and its switches. Sections are frozen pydantic models; on disk they are plain JSON inside ``config.json``.

Legend for shape suffixes: B rows, L tokens, N items, C channels, H height, W width, T time or patches, D features,
M mel bands, V vocabulary.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from transformers import AutoConfig, PretrainedConfig, Qwen2Config

from weft.frozen import Frozen

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Connector(Frozen):
    """Features to language-model embeddings.

    ``merge`` neighbours are concatenated (linear, mlp, transformer) or averaged (pool) into one token before
    projecting: neighbours in the order of the features, or with ``grid`` (images) square blocks of the patch grid. A
    "transformer" has ``attention_layers`` of ``heads`` heads in which an item's tokens attend to each other. Of kind
    "queries", ``queries`` learned ones attend to the features instead, giving exactly that many tokens, in
    cross-attention layers. A "transcript" is a transformer behind an encoder that also writes, ``vocab_size``
    tokens in all; a "detector" one that writes itself. "none" hands the features on as they are.
    """

    kind: Literal["linear", "mlp", "pool", "queries", "transformer", "transcript", "detector", "none"] = "linear"
    merge: int | None = Field(None, ge=1)  # None: `compose` takes the encoder's `usual`; else 1
    grid: bool = False  # merge blocks of side sqrt(merge) of an image's patches, not `merge` patches of one row
    # linear, mlp, transformer: a layer norm over what is concatenated, before it is projected (InternVL)
    norm: bool = False
    bias: bool = True
    hidden: int | None = None  # width of an MLP's hidden layer, or a transformer's; None: the language model's width
    # Embeddings are multiplied by this. A new connector's have a size of about 0.6 and text embeddings 0.02 to 0.05;
    # a constant makes them alike without small weights, which an optimizer of fixed step size would overwrite at once.
    scale: float = 1.0
    # Add to each embedding, so many times, those of the dialect's tokens that name its place (its moment; its column
    # and row), so that a time or box in an answer can be looked up in the medium, and copied from it.
    places: float = Field(0.0, ge=0)
    queries: int = Field(64, ge=1)
    attention_layers: int = Field(2, ge=1)
    heads: int = Field(8, ge=1)
    vocab_size: int = Field(0, ge=0)  # transcript: of the encoder's own tokenizer
    timed: bool = False  # transcript: each word stands between the moments at which it begins and ends
    events: int = Field(
        0, ge=0
    )  # transcript: sounds that are written among the words, of so many kinds (`sound_events`)
    written: int = Field(0, ge=0)  # detector: tokens that may be written of a picture
    tally: bool = False  # detector: among them how many things there are, and how many of each word (`tally`)
    classes: int = Field(0, ge=0)  # detector: those that the eye has names for, which are written too (`photographs`)

    @property
    def group(self) -> int:
        """How many neighbours become one token."""
        return self.merge or 1

    @model_validator(mode="after")
    def _norm_fits(self) -> Connector:
        written = bool(self.written)
        if (
            written != (self.kind == "detector")
            or (written and not self.places)
            or ((self.tally or self.classes) and not written)
        ):
            raise ValueError("connector.written goes with kind detector, and that with places above 0; give all three")
        if (self.timed and not (self.kind == "transcript" and self.places)) or (self.events and not self.timed):
            raise ValueError("connector.timed goes with kind transcript and places above 0, and events with it")
        if self.norm and self.kind in ("pool", "queries", "none"):
            raise ValueError(f"connector.norm: kind {self.kind} has none, as linear, mlp, transformer do; leave it out")
        return self


class VisionSection(Frozen):
    """An image encoder: pixels to features [T, D]."""

    kind: str  # one of encoders.IMAGES
    config: dict[str, Any]  # the tower's own transformers configuration ("conv": encoders.conv.ConvTowerConfig)
    size: tuple[int, int] = (224, 224)  # height, width every image is brought to
    # How: stretched (all is seen, the aspect is not kept), padded to a square first (LLaVA), or its middle (CLIP).
    fit: Literal["stretch", "pad", "crop"] = "stretch"
    # A picture becomes up to so many views of that size, by its shape, and a whole one (InternVL: 12); 1: whole only.
    tiles: int = Field(1, ge=1)
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    resample: Literal["bicubic", "bilinear", "lanczos"] = "bicubic"
    # A backbone's: which of its maps are used, 0 the stem, -1 the last stage (none named: that one). Several are
    # brought to one grid, and concatenated on their channels.
    stages: tuple[int, ...] = ()
    stage_grid: tuple[int, int] | None = None  # rows and columns of that grid; None: the finest of theirs
    layer: int = -1  # which hidden state is used (LLaVA: -2); -1 is the last block's output
    # Apply the tower's own last layer norm (SigLIP, DINOv2, EVA); MiniGPT-v2: False. CLIP has none over its patches
    # (its last norm is for the pooled token only), so there this changes nothing.
    final_norm: bool = True
    extra_norm: float | None = None  # eps of one more LayerNorm on the features (MiniGPT-v2's ln_vision: 1e-5)
    drop_cls: bool = True
    connector: Connector = Connector()


class AudioSection(Frozen):
    """A sound encoder: log-mel or waveform to features [T, D]."""

    kind: str  # one of encoders.SOUNDS
    config: dict[str, Any]  # the tower's own transformers configuration ("conv": encoders.conv_sound.ConvSoundConfig)
    sample_rate: int = 16000
    window_seconds: float = 30.0  # longer clips are split into windows of this length
    pad_to_window: bool = False  # fill every clip up with silence, whose tokens count too (LLaSM's released code)
    normalize: bool = False  # wav2vec2: zero mean and unit variance of each clip, as its feature extractor may ask
    decoder_tokens: int = 64  # whisper_decoder: how many start tokens the decoder is fed (LLaSM: 64)
    boundaries: bool = False  # learned embeddings replace the start and end tokens of a clip (Qwen-Audio)
    batch_leak: bool = False  # compatibility: let batch padding leak into short clips as Qwen-Audio's code does
    last_clip_only: bool = False  # compatibility: splice only a row's last clip (or window) as LLaSM's code does
    connector: Connector = Connector()


class DialectSection(Frozen):
    name: str = "chatml"
    switches: dict[str, Any] = Field(default_factory=dict)


class WeftQwenConfig(Qwen2Config):
    """Qwen-7B as a Qwen2 configuration, and when its rules for long text apply (`qwen_text`)."""

    model_type = "weft_qwen"

    num_key_value_heads: int | None = None  # as many as heads: the first Qwen groups none
    head_dim: int | None = None
    seq_length: int = 2048  # the length it was trained at
    use_dynamic_ntk: bool = True
    use_logn_attn: bool = True
    padded_positions: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        import weft.models.qwen_text  # noqa: F401  by which transformers knows the model of this configuration

        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        super().__post_init__(**kwargs)


class WeftConfig(PretrainedConfig):
    """Configuration of `WeftForConditionalGeneration`.

    ``image_token_id`` and ``audio_token_id`` are the ids repeated over a media span. ``audio_start_id`` and
    ``audio_end_id`` are set where the span's boundary embeddings come from the encoder (``audio.boundaries``).
    ``image_place_ids`` and ``audio_place_ids`` are set where a connector has ``places``: (first id, count) of the
    tokens that divide a picture's side or a window's seconds evenly, then of those that divide each such step again.
    ``lora_for_media``: LoRA of the language model, and rows that train beside it, apply to a conversation from its
    first picture or sound on, and stay beside the weights (`models.gate`).
    """

    model_type = "weft"
    sub_configs = {"text_config": AutoConfig}
    lora_for_media = False  # written where it is true
    auto_map: ClassVar[dict[str, str]] = {}  # no code comes with a folder; TRL asks, and takes an Auto class

    def __init__(
        self,
        text_config: dict[str, Any] | PretrainedConfig | None = None,
        vision: dict[str, Any] | VisionSection | None = None,
        audio: dict[str, Any] | AudioSection | None = None,
        dialect: dict[str, Any] | DialectSection | None = None,
        image_token_id: int | None = None,
        audio_token_id: int | None = None,
        audio_start_id: int | None = None,
        audio_end_id: int | None = None,
        image_place_ids: list[tuple[int, int]] | None = None,
        audio_place_ids: list[tuple[int, int]] | None = None,
        **kwargs: Any,
    ) -> None:
        import weft.models.modeling  # noqa: F401  by which transformers knows the model of this configuration

        if isinstance(text_config, dict):
            text_config = dict(text_config)
            text_config = AutoConfig.for_model(text_config.pop("model_type", "llama"), **text_config)
        text: Any = text_config if text_config is not None else AutoConfig.for_model("llama")
        self.text_config = text
        self.vision = _plain(VisionSection, vision)
        self.audio = _plain(AudioSection, audio)
        self.dialect = _plain(DialectSection, dialect or DialectSection())
        self.image_token_id, self.audio_token_id = image_token_id, audio_token_id
        self.audio_start_id, self.audio_end_id = audio_start_id, audio_end_id
        self.image_place_ids, self.audio_place_ids = image_place_ids, audio_place_ids
        kwargs.setdefault("tie_word_embeddings", text.tie_word_embeddings)
        attention = text._attn_implementation
        super().__init__(**kwargs)
        # transformers has just set None there too, which would mean no mask at all
        if self._attn_implementation is None:
            text._attn_implementation = attention

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As in transformers; beside it a model card, where there is none, that says what has to be imported."""
        super().save_pretrained(save_directory, *args, **kwargs)
        card = Path(save_directory) / "README.md"
        if not card.exists():
            towers = {"sees": self.vision, "hears": self.audio}
            verbs = [verb for verb, section in towers.items() if section]
            kinds = [section["kind"] for section in towers.values() if section]
            form = Path(__file__).with_name("card.md").read_text("utf-8")
            parts = ", ".join([self.text_config.model_type, *kinds])
            card.write_text(form.format(does=" and ".join([*verbs, "writes"]), parts=parts), encoding="utf-8")

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PretrainedConfig:
        return self.text_config

    @property
    def vision_section(self) -> VisionSection | None:
        return VisionSection.model_validate(self.vision) if self.vision else None

    @property
    def audio_section(self) -> AudioSection | None:
        return AudioSection.model_validate(self.audio) if self.audio else None

    @property
    def vision_config(self) -> Any:
        """The image encoder's own configuration, as many programs look for it; None where there is no encoder."""
        return self._tower_config(self.vision_section, "image_kind")

    @property
    def audio_config(self) -> Any:
        return self._tower_config(self.audio_section, "sound_kind")

    @staticmethod
    def _tower_config(section: Any, kind: str) -> Any:
        from weft.models import encoders  # which are made of the sections here

        return None if section is None else getattr(encoders, kind)(section).config

    @property
    def vocab_size(self) -> int:
        return int(self.text_config.vocab_size)

    @vocab_size.setter
    def vocab_size(self, value: int) -> None:
        self.text_config.vocab_size = value

    @property
    def audio_ids(self) -> tuple[int | None, int | None, int | None]:
        """Ids whose embeddings come from the audio encoder."""
        return self.audio_token_id, self.audio_start_id, self.audio_end_id


def _plain(section: type[Frozen], value: dict[str, Any] | Frozen | None) -> dict[str, Any] | None:
    """A validated section as JSON-ready data (what transformers saves)."""
    if value is None:
        return None
    checked = value if isinstance(value, section) else section.model_validate(value)
    return checked.model_dump(mode="json")


class WeftProcessor:
    """What transformers' list of processors has until it is used: weft's own then takes its place.

    transformers imports its list halfway into its models, which the processor has a use for itself.
    """

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        from weft.models import processing

        return processing.WeftProcessor.from_pretrained(*args, **kwargs)


def list_processor() -> None:
    """Adds it to the list, where transformers has brought that in."""
    auto = sys.modules.get("transformers.models.auto.processing_auto")
    if auto is not None and "weft.models.processing" not in sys.modules:
        auto.AutoProcessor.register(WeftConfig, WeftProcessor, exist_ok=True)


AutoConfig.register(WeftQwenConfig.model_type, WeftQwenConfig, exist_ok=True)
AutoConfig.register(WeftConfig.model_type, WeftConfig, exist_ok=True)
list_processor()
