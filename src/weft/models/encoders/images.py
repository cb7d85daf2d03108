"""Image towers of `transformers`: CLIP, SigLIP, DINOv2 and EVA-CLIP-g (`Blip2VisionModel`).

The tower's modules are transformers' own, so its weights have transformers' names under ``vision.tower.``; layers that
are never run (behind ``layer``), pooling heads and unused norms are not built.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    Blip2VisionConfig,
    Blip2VisionModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from weft.conversation import WeftError
from weft.models import attention
from weft.models.config import VisionSection
from weft.models.layout import image_grid

TOWERS: dict[str, tuple[type, type]] = {
    "clip": (CLIPVisionConfig, CLIPVisionModel),
    "siglip": (SiglipVisionConfig, SiglipVisionModel),
    "dinov2": (Dinov2Config, Dinov2Model),
    "eva": (Blip2VisionConfig, Blip2VisionModel),
}
LAST_NORM = {"siglip": "post_layernorm", "dinov2": "layernorm", "eva": "post_layernorm"}


def tower_config(section: VisionSection) -> Any:
    """The tower's transformers configuration, with only the layers that are used.

    ``layer`` counts hidden states: -1 is the last block's output, -2 the one before it (LLaVA), 0 the embeddings'.
    """
    fields = {
        k: v for k, v in section.config.items() if k not in ("dtype", "torch_dtype", "model_type", "architectures")
    }
    config = TOWERS[section.kind][0](**fields)
    total = config.num_hidden_layers
    used = section.layer if section.layer >= 0 else total + 1 + section.layer
    if not 0 <= used <= total:
        raise WeftError(
            f"vision.layer {section.layer} does not exist: the encoder has {total} layers; take -1 for the last"
        )
    config.num_hidden_layers = used
    config._attn_implementation = attention.NAME
    if section.kind == "siglip":
        config.vision_use_head = False
    if section.kind == "dinov2":
        config.use_mask_token = False
    return config


class ImageTower(nn.Module):
    """pixels [N, 3, H, W] -> features [N, T, D]; T patches in raster order (with a leading CLS where it is kept)."""

    def __init__(self, section: VisionSection) -> None:
        super().__init__()
        config = tower_config(section)
        self.width: int = config.hidden_size
        self.grid = image_grid(section)
        self.tower = TOWERS[section.kind][1](config)
        if section.kind == "clip":
            self.tower.post_layernorm = nn.Identity()  # only the pooled token, which is not used, passes it
        elif not section.final_norm:
            setattr(self.tower, LAST_NORM[section.kind], nn.Identity())
        self.extra_norm = nn.LayerNorm(self.width, eps=section.extra_norm) if section.extra_norm is not None else None
        self.drop_cls = section.drop_cls and section.kind != "siglip"  # SigLIP has no CLS token
        # Positions are interpolated on the fly only where an image's size is not the tower's own.
        own = (config.image_size, config.image_size) if isinstance(config.image_size, int) else tuple(config.image_size)
        self.arguments = {"interpolate_pos_encoding": True} if own != section.size and section.kind != "dinov2" else {}

    def forward(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        features_NTD = self.tower(pixel_values=pixels_NCHW.to(self.dtype), **self.arguments).last_hidden_state
        if self.extra_norm is not None:
            features_NTD = self.extra_norm(features_NTD)
        return features_NTD[:, 1:] if self.drop_cls else features_NTD

    @property
    def dtype(self) -> torch.dtype:
        return next(self.tower.parameters()).dtype
