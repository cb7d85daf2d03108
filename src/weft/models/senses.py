"""The senses of a model: towers, connectors, and how what they give enters the text's embeddings.

`Senses` is shared by the `transformers` model and by the plugin for vLLM, whose language models are of their own.

Shape suffixes: B rows, L tokens, N views of images or windows of sound, C channels, H height, W width (of a picture)
or the language model's width (of embeddings), T frames, M bands, t embeddings of an item, X embeddings in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from weft.conversation import WeftError
from weft.dialects import Modality
from weft.models.config import WeftConfig
from weft.models.connectors import PLACES, build_connector
from weft.models.encoders import ImageKind, SoundKind, image_kind, sound_kind
from weft.models.loss import sent
from weft.models.splice import among, before_last_run, end_to_end, splice
from weft.named import Named

BLANK = Named[Callable[..., torch.Tensor]]({"vision": "weft.models.blank:vision", "audio": "weft.models.blank:audio"})


class Senses:
    """Parts ``vision``, ``vision_connector``, ``audio``, ``audio_connector``; None where a model lacks the sense.

    Whoever inherits has what is named below. What `get_input_embeddings` gives can be called with ids: a connector with
    ``places`` adds embeddings of the language model's table.
    """

    config: Any
    device: torch.device
    get_input_embeddings: Callable[..., Any]

    def build_senses(
        self, config: WeftConfig, around: Callable[[Modality], AbstractContextManager] = lambda _: nullcontext()
    ) -> None:
        """Builds the parts, those of each modality within the context that ``around`` gives for it."""
        width, vision, audio = config.text_config.hidden_size, config.vision_section, config.audio_section
        self.vision: Any = None
        self.vision_connector: Any = None
        self.audio: Any = None
        self.audio_connector: Any = None
        self.always_encode: Sequence[str] = ()
        self.recall: Mapping[str, Any] = {}  # what is called in the place of the tower "vision" or "audio"
        placed = {"image": config.image_place_ids, "audio": config.audio_place_ids}
        self.places = {modality: PLACES[modality]() for modality, ids in placed.items() if ids is not None}
        self.image_kind: ImageKind | None = None
        self.sound_kind: SoundKind | None = None
        if vision is not None:
            with around("image"):
                self.image_kind = image_kind(vision)
                self.vision, grid = self.image_kind.build(), self.image_kind.patches
                self.vision_connector = build_connector(vision.connector, self.vision.width, width, grid)
        if audio is not None:
            with around("audio"):
                self.sound_kind = sound_kind(audio)
                self.audio = self.sound_kind.build()
                if audio.boundaries:
                    if config.audio_start_id is None or config.audio_end_id is None:
                        raise WeftError(
                            "audio.boundaries needs audio_start_id and audio_end_id; take a dialect that has both"
                        )
                    self.audio.boundaries = nn.Embedding(2, width)  # stand at the start and end tokens of a clip
                self.audio_connector = build_connector(audio.connector, self.audio.width, width)

    def image_features(self, pixels_NCHW: torch.Tensor, written: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [N, T, D] of the views of images, and their embeddings [N, t, W], those ``written`` of them too."""
        if self.image_kind is None:
            raise WeftError("this model has no image encoder; give text or audio only")
        height, width = self.image_kind.section.size
        if tuple(pixels_NCHW.shape[1:]) != (3, height, width):
            shape = "x".join(map(str, pixels_NCHW.shape[1:]))
            raise WeftError(f"pixel_values are {shape} an image, and this model's encoder takes 3x{height}x{width}")
        features_NTD = self.recall.get("vision", self.vision)(pixels_NCHW)
        embedded_NtW = self.vision_connector(features_NTD)[0]
        if "image" in self.places:
            embedded_NtW = embedded_NtW + self.places["image"].embeddings(self, embedded_NtW.shape[1])
        if written and hasattr(self.vision_connector, "read"):
            embedded_NtW = torch.cat([embedded_NtW, self.vision_connector.read(features_NTD, self)], 1)
        return features_NTD, embedded_NtW

    def embed_images(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        """Embeddings [X, W] of the views of images, one after the other."""
        return self.image_features(pixels_NCHW)[1].flatten(0, 1)

    def audio_features(
        self, features: torch.Tensor, lengths_N: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features [N, T', D] of windows, their embeddings [N, t, W] and how many of these each has [N], from log-mel
        [N, T, M] or samples [N, S] and lengths."""
        if self.sound_kind is None:
            raise WeftError("this model has no audio encoder; give text or images only")
        if lengths_N is None:
            lengths_N = torch.full((len(features),), features.shape[1])
        features_NTD, lengths_N = self.recall.get("audio", self.audio)(features, lengths_N.cpu())
        embedded_NtW, tokens_N = self.audio_connector(features_NTD, lengths_N)
        if "audio" in self.places:
            embedded_NtW = embedded_NtW + self.places["audio"].embeddings(self, embedded_NtW.shape[1], tokens_N)
        if hasattr(self.audio_connector, "read"):
            embedded_NtW = embedded_NtW + self.audio_connector.read(features_NTD, self)
        return features_NTD, embedded_NtW, tokens_N

    def embed_audio(
        self, features: torch.Tensor, lengths_N: torch.Tensor | None = None, ends: bool = False
    ) -> torch.Tensor:
        """Embeddings [X, W] of windows, one after the other.

        ``ends``: with the learned start and end of each window around it, where the encoder has them.
        """
        _, embedded_NtW, tokens_N = self.audio_features(features, lengths_N)
        if ends and self.sound_kind is not None and self.sound_kind.section.boundaries:
            embedded_NtW, tokens_N = F.pad(embedded_NtW, (0, 0, 1, 1)), tokens_N + 2
            start_W, end_W = self.audio.boundaries.weight
            place_t = torch.arange(embedded_NtW.shape[1], device=embedded_NtW.device)
            last_N1 = sent(tokens_N[:, None] - 1, embedded_NtW.device)
            embedded_NtW = torch.where((place_t == 0)[:, None], start_W, embedded_NtW)
            embedded_NtW = torch.where((place_t == last_N1)[..., None], end_W, embedded_NtW)
        return end_to_end(embedded_NtW, tokens_N)

    def embed(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        feature_lengths: torch.Tensor | None = None,
        segment_lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Text embeddings with the media's at their placeholders, [B, L, W].

        Ids may lie on the CPU beside a model on a GPU: then nobody waits for the GPU to count them.
        """
        images_XW = sounds_XW = None
        nothing: list[torch.Tensor] = []  # made in the order of what it stands for, as sharded encoders need it
        if pixel_values is not None and len(pixel_values):
            images_XW = self.embed_images(pixel_values)
        elif "vision" in self.always_encode:
            nothing.append(BLANK["vision"](self))
        if input_features is not None and len(input_features):
            sounds_XW = self.embed_audio(input_features, feature_lengths, ends=True)
        elif "audio" in self.always_encode:
            nothing.append(BLANK["audio"](self))
        mixed_BLW = self.weave(input_ids, images_XW, sounds_XW, segment_lengths)
        return mixed_BLW + torch.stack(nothing).sum().to(mixed_BLW.dtype) if nothing else mixed_BLW

    def weave(
        self,
        input_ids: torch.Tensor,
        images_XW: torch.Tensor | None = None,
        sounds_XW: torch.Tensor | None = None,
        segment_lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Text embeddings with embeddings of media at their placeholders, [B, L, W]: those of `embed_images`, and of
        `embed_audio` with ``ends``, in order of appearance over the rows."""
        config, device = self.config, self.device
        image_BL, audio_BL = among(input_ids, (config.image_token_id,)), among(input_ids, config.audio_ids)
        # A placeholder may lie beyond the table: an imported model's rows are all of real words.
        beyond_BL = (image_BL | audio_BL) & (input_ids >= config.text_config.vocab_size)
        text_BLW = self.get_input_embeddings()(sent(input_ids.masked_fill(beyond_BL, 0), device))
        mixed_BLW = splice(text_BLW, image_BL, images_XW, "image")
        mixed_BLW = splice(mixed_BLW, audio_BL, sounds_XW, "audio")
        if sounds_XW is not None and self.sound_kind is not None and self.sound_kind.section.last_clip_only:
            unheard_BL = sent(before_last_run(audio_BL, segment_lengths), device)
            mixed_BLW = torch.where(unheard_BL[..., None], text_BLW, mixed_BLW)
        return mixed_BLW
