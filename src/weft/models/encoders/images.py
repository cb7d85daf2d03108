"""Image towers of `transformers`: what they share, and EVA-CLIP-g (`Blip2VisionModel`); others are in `more_images`.

The tower's modules are transformers' own, so its weights have transformers' names under ``vision.tower.``; layers that
are never run (behind ``layer``), pooling heads and unused norms are not built.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import Blip2VisionConfig, Blip2VisionModel

from weft.conversation import WeftError
from weft.models.encoders.base import ImageKind


class ImageTower(nn.Module):
    """pixels [N, 3, H, W] -> features [N, T, D]; T patches in raster order (with a leading CLS where it is kept)."""

    def __init__(self, kind: TransformersKind) -> None:
        super().__init__()
        section, self.width = kind.section, kind.config.hidden_size
        self.tower = kind.source_class(kind.config)
        if not (section.final_norm and kind.norms_patches):
            setattr(self.tower, kind.last_norm, nn.Identity())
        self.extra_norm = nn.LayerNorm(self.width, eps=section.extra_norm) if section.extra_norm is not None else None
        self.first = int(kind.has_cls and section.drop_cls)
        self.arguments = {} if kind.own_size(section.config) == section.size else kind.other_size

    def forward(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        features_NTD = self.tower(pixel_values=pixels_NCHW.to(self.dtype), **self.arguments).last_hidden_state
        if self.extra_norm is not None:
            features_NTD = self.extra_norm(features_NTD)
        return features_NTD[:, self.first :]

    @property
    def dtype(self) -> torch.dtype:
        return next(self.tower.parameters()).dtype


class TransformersKind(ImageKind):
    """What image towers of `transformers` share; each below says its classes and what is its own."""

    tower = ImageTower
    has_cls = True
    last_norm: ClassVar[str] = "post_layernorm"
    norms_patches: ClassVar[bool] = True  # whether the last norm is over patches, not over a pooled token alone
    # What the tower is called with where an image's size is not the one it was made for.
    other_size: ClassVar[Mapping[str, Any]] = {"interpolate_pos_encoding": True}

    @classmethod
    def own_size(cls, config: Mapping[str, Any]) -> tuple[int, int]:
        return pair(config.get("image_size", cls.config_class().image_size))

    @cached_property
    def config(self) -> Any:
        """With only the layers that are used: ``layer`` counts hidden states.

        -1 is the last block's output, -2 the one before it (LLaVA), 0 the embeddings'.
        """
        config, layer = super().config, self.section.layer
        total = config.num_hidden_layers
        used = layer if layer >= 0 else total + 1 + layer
        if not 0 <= used <= total:
            raise WeftError(
                f"vision.layer {layer} does not exist: the encoder has {total} layers; take -1 for the last"
            )
        config.num_hidden_layers = used
        return config

    @cached_property
    def grid(self) -> tuple[int, int]:
        (height, width), (rows, columns) = self.section.size, pair(self.config.patch_size)
        if height % rows or width % columns:
            raise WeftError(
                f"vision.size {height}x{width} is not a multiple of the encoder's patch size {rows}; change vision.size"
            )
        return height // rows, width // columns


def pair(size: Any) -> tuple[int, int]:
    """Height and width of what may be one number for both."""
    return (size, size) if isinstance(size, int) else tuple(size)


class Eva(TransformersKind):
    sources: ClassVar = {"blip-2": "vision_config", "blip_2": "vision_config", "blip_2_vision_model": None}
    config_class, source_class = Blip2VisionConfig, Blip2VisionModel
    # A whole BLIP-2 holds the tower one level down, which transformers does not know of.
    renames: ClassVar = {r"^(model\.)?vision_model\.": ""}
