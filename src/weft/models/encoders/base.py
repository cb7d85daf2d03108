"""What every kind of encoder tells of itself, with the settings of one model: arithmetic alone, no weights.

The processor counts tokens and prepares media with the same object that builds the tower, so what is written and what
is spliced cannot differ. How many tokens an item gives belongs to the item: the kind is told its size.

Where the number of features is not a multiple of ``connector.merge``, the last group is filled up with zeros (for
"pool": is averaged over what is there), so the count is rounded *up*.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import nn

from weft.conversation import WeftError
from weft.media import log_mel, resize_normalize
from weft.media.mel import HOP
from weft.models import attention
from weft.models.config import AudioSection, VisionSection
from weft.models.connectors import Grid, connector_tokens
from weft.named import Named

Length = TypeVar("Length", int, torch.Tensor)

# Pictures that become several views by their shape (InternVL).
TILES = Named[Callable[..., Any]](
    {"grid": "weft.models.encoders.tiles:grid", "views": "weft.models.encoders.tiles:views"}
)
NOTES = ("dtype", "torch_dtype", "model_type", "architectures")  # in a config.json, and no settings of a tower


class Kind(ABC):
    """What kinds of either modality tell."""

    # Published model_types, and the section of their config.json that holds the tower (None: all of it).
    sources: ClassVar[Mapping[str, str | None]] = {}
    source_class: ClassVar[Any] = None  # transformers' class that loads a published tower,
    source_prefix: ClassVar[str] = ""  # where the tower lies in it,
    renames: ClassVar[Mapping[str, str] | None] = None  # names in whole models that it has to be told
    loading: ClassVar[Mapping[str, Any]] = {}  # and what else its ``from_pretrained`` has to be told
    starts_plain: ClassVar[str] = ""  # weights so named may be missing from a source: they start without an effect
    tower: ClassVar[Any]  # made of the kind; called with media, and telling the ``width`` D of its features
    config_class: ClassVar[Any]
    fixed: ClassVar[Mapping[str, Any]] = {"attn_implementation": attention.NAME}  # settings that are always so
    pooled: ClassVar[int] = 1  # features that become one behind the layers
    section: Any

    @cached_property
    def config(self) -> Any:
        """The tower's own configuration."""
        asked = {key: value for key, value in self.section.config.items() if key not in NOTES}
        return self.config_class(**{**asked, **self.fixed})

    def build(self) -> nn.Module:
        return self.tower(self)

    def introduce(self, model: Any, processor: Any, source: str) -> None:  # noqa: B027  most have nothing to do
        """Tells a new model what else it has to know of the ``source`` whose weights it has got."""


class ImageKind(Kind):
    """One kind of image encoder: pixels [N, 3, H, W] to features [N, T, D]."""

    has_cls: ClassVar[bool] = False  # a class token stands before the patches; `drop_cls` leaves it out
    staged: ClassVar[bool] = False  # gives several maps, from fine to coarse, of which ``stages`` chooses
    named: bool = False  # ends in a map whose classes have names

    def __init__(self, section: VisionSection) -> None:
        self.section = section
        if (section.stages or section.stage_grid) and not self.staged:
            raise WeftError(
                f"vision.stages and vision.stage_grid are a backbone's, and the kind is {section.kind}; take the kind "
                "backbone, or choose with vision.layer"
            )
        if section.connector.classes and not self.named:
            raise WeftError("vision.connector.classes needs an EfficientNet-Lite to its last stage; leave it out")

    @classmethod
    def own_size(cls, config: Mapping[str, Any]) -> tuple[int, int] | None:
        """Height and width that a tower of this configuration was made for, where it tells."""
        return None

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int]:
        """Rows and columns of features of one view."""

    @property
    def patches(self) -> Grid:
        """The grid, where nothing but it reaches the connector."""
        return self.grid if self.section.drop_cls or not self.has_cls else None

    @cached_property
    def view_tokens(self) -> int:
        """Embeddings of one view."""
        rows, columns = self.grid
        return connector_tokens(self.section.connector, rows * columns + (self.patches is None), self.patches)

    @property
    def by_size(self) -> bool:
        """Whether the number of a picture's embeddings depends on its size."""
        return self.section.tiles > 1

    def tiles(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of tiles that a picture of that size is cut into."""
        return TILES["grid"](self.section, width, height) if self.by_size else (1, 1)  # type: ignore[no-any-return]

    def tokens(self, width: int, height: int) -> int:
        """Embeddings of a picture of that size, start and end tokens not counted."""
        rows, columns = self.tiles(width, height)
        return self.view_tokens * (rows * columns + (rows * columns > 1))

    def pixels(self, image: Image.Image) -> np.ndarray:
        """The views of a picture as the encoder takes them, tiles in raster order before the whole: [V, 3, H, W]."""
        s = self.section
        whole = resize_normalize(image, s.size, s.mean, s.std, s.resample, s.fit)[None]
        return TILES["views"](s, image, whole) if self.by_size else whole  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of a clip that is encoded on its own.

    ``start``, ``end``: samples of the clip. ``frames``: feature frames fed (mel frames; samples where the encoder takes
    the waveform). ``tokens``: embeddings it gives, start and end tokens not counted. ``padded``: the number of samples
    the stretch is filled up to with silence before its features are computed.
    """

    start: int
    end: int
    frames: int
    tokens: int
    padded: int


class SoundKind(Kind):
    """One kind of sound encoder: log-mel [N, T, M] or samples [N, S], and lengths [N], to features and lengths.

    What lies beyond an item's own length is zero, and never reaches the item itself. Where a kind says nothing else,
    it takes Whisper's log-mel, one frame per 10 ms.
    """

    leaks: ClassVar[bool] = False  # knows `batch_leak`
    shortest: ClassVar[int] = 1  # frames: fewer give no token
    batch_frames: ClassVar[int] = 1  # a batch is filled up to a multiple of so many frames

    def __init__(self, section: AudioSection) -> None:
        self.section = section
        if section.batch_leak and not self.leaks:
            raise WeftError(
                f"audio.batch_leak is a quirk of qwen_audio's encoder, and the kind is {section.kind}; leave it out"
            )

    @staticmethod
    def published(config: Mapping[str, Any], prepared: Mapping[str, Any] | None) -> dict[str, Any]:
        """Fields of the section that a tower's configuration tells, and how its source prepares sound (None: random
        weights, which have heard nothing yet)."""
        return {}

    @property
    def bands(self) -> int | None:
        """Bands of the log-mel; None where the encoder takes the waveform."""
        return self.config.num_mel_bins

    @property
    def seconds(self) -> float | None:
        """Seconds of sound in one feature; None where features do not follow the sound."""
        return None

    @property
    def window_samples(self) -> int:
        return round(self.section.window_seconds * self.section.sample_rate)

    def timed(self, tokens: Length) -> Length:
        """How many of a window's embeddings follow the sound: all, or those that come first."""
        return tokens

    @abstractmethod
    def features(self, frames: int) -> int:
        """Features that so many frames give."""

    def tokens(self, frames: int) -> int:
        """Embeddings that so many frames give."""
        return connector_tokens(self.section.connector, self.features(frames))

    def frames(self, samples: int) -> int:
        """Frames that are fed of a stretch of so many samples."""
        return (self.window_samples if self.section.pad_to_window else max(samples, self.shortest * HOP)) // HOP

    def windows(self, samples: int) -> list[Window]:
        """The windows that a clip of so many samples (at the encoder's rate) is encoded in; all of it is covered.

        A rest too short to give a token is filled up with silence; a whole clip that is empty is an error.
        """
        if samples <= 0:
            raise WeftError("the audio clip is empty (0 samples); remove it or give a clip with sound in it")
        size = self.window_samples
        return [self.window(start, min(start + size, samples)) for start in range(0, samples, size)]

    def window(self, start: int, end: int) -> Window:
        frames, whole = self.frames(end - start), self.window_samples
        # A frame looks 200 samples to each side, so with 3 frames of silence behind it the last one equals that of the
        # clip padded to a whole window, as does the loudest frame, which the floor of the log-mel hangs on.
        padded = max(whole if frames * HOP >= whole else (frames + 3) * HOP, end - start)
        return Window(start, end, frames, self.tokens(frames), padded)

    def prepare(self, wave: np.ndarray, window: Window) -> np.ndarray:
        """One window of sound as the encoder takes it: log-mel float32 [T, M], or samples [S]."""
        assert self.bands is not None
        return log_mel(wave, self.bands, pad_to=window.padded)[: window.frames]


def halved(length: Length) -> Length:
    """Length after a convolution of width 3, stride 2, padding 1."""
    return (length + 1) // 2
