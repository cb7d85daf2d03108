"""CLIP, SigLIP, DINOv2 and InternViT, with the towers of `transformers` (`images`)."""

from __future__ import annotations

from typing import ClassVar

from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    InternVLVisionConfig,
    InternVLVisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from weft.models.encoders.base import ImageKind
from weft.models.encoders.images import TransformersKind


class Clip(TransformersKind):
    sources: ClassVar = {"clip": "vision_config", "clip_vision_model": None}
    config_class, source_class = CLIPVisionConfig, CLIPVisionModel
    norms_patches = False


class Siglip(TransformersKind):
    sources: ClassVar = {"siglip": "vision_config", "siglip_vision_model": None}
    config_class, source_class = SiglipVisionConfig, SiglipVisionModel
    has_cls = False
    fixed: ClassVar = {**ImageKind.fixed, "vision_use_head": False}


class Dinov2(TransformersKind):
    sources: ClassVar = {"dinov2": None}
    config_class, source_class = Dinov2Config, Dinov2Model
    fixed: ClassVar = {**ImageKind.fixed, "use_mask_token": False}
    last_norm = "layernorm"
    other_size: ClassVar = {}  # it interpolates its positions by itself


class InternViT(TransformersKind):
    sources: ClassVar = {"internvl": "vision_config", "internvl_vision": None}
    renames: ClassVar = {r"^(model\.)?vision_tower\.": ""}
    config_class, source_class = InternVLVisionConfig, InternVLVisionModel
    fixed: ClassVar = {**ImageKind.fixed, "use_mask_token": False}
    last_norm = "layernorm"
    other_size: ClassVar = {}  # it interpolates its positions by itself
