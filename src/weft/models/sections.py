"""What a configuration says of a model's encoders, connectors and dialect: frozen values that know no `transformers`.

`models.config` puts them beside the language model's own configuration. A recipe is made of them alone, so that to read
one imports neither transformers nor torch.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

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
