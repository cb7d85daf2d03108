"""Backbones of `transformers` (`AutoBackbone`): ResNet, ConvNeXt, Swin, DINOv2, ... and weft's EfficientNet-Lite.

A backbone gives a map of features for each of its stages, early ones fine and late ones coarse. ``stages`` chooses
which; several are brought to one grid (``stage_grid``, or the finest of theirs) and concatenated on their channels.

Batch norms never leave eval mode, not even where the tower trains: statistics of a batch would let one picture change
what another gives, and weft packs whatever pictures come.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING, MODEL_FOR_BACKBONE_MAPPING_NAMES

from weft.conversation import WeftError
from weft.models.config import VisionSection
from weft.models.encoders.base import ImageKind
from weft.models.encoders.classes import Classes
from weft.models.encoders.efficientnet import EfficientNetLiteConfig


class BackboneTower(nn.Module):
    """pixels [N, 3, H, W] -> features [N, T, D]: T places in raster order, D channels of all the chosen stages."""

    def __init__(self, kind: Backbone) -> None:
        super().__init__()
        self.tower, self.grid, self.width = kind.source_class(kind.config), kind.grid, kind.channels
        eps = kind.section.extra_norm
        self.extra_norm = None if eps is None else nn.LayerNorm(self.width, eps=eps)
        classes = kind.section.connector.classes
        self.classes = Classes(kind.config, classes) if classes else None

    def forward(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        maps = self.tower(pixels_NCHW.to(next(self.parameters()).dtype)).feature_maps
        features_NDhw = torch.cat([resampled(map_NChw, self.grid) for map_NChw in maps], 1)
        features_NTD = features_NDhw.flatten(2).transpose(1, 2)
        return features_NTD if self.extra_norm is None else self.extra_norm(features_NTD)

    def train(self, mode: bool = True) -> BackboneTower:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def resampled(map_NChw: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """A map brought to another grid: interpolated between the middles of its cells, and averaged where it is finer."""
    if tuple(map_NChw.shape[2:]) == grid:
        return map_NChw
    # in float32: torch 2.13 has it for no bfloat16 on a CPU
    return F.interpolate(map_NChw.float(), grid, mode="bilinear", antialias=True).to(map_NChw.dtype)


class Backbone(ImageKind):
    staged = True
    # `timm` is no part of weft's world, and needs torchvision.
    sources: ClassVar = dict.fromkeys(
        [*sorted(MODEL_FOR_BACKBONE_MAPPING_NAMES.keys() - {"timm_backbone"}), EfficientNetLiteConfig.model_type]
    )
    tower = BackboneTower
    # Norms of single stages that a backbone has for whoever stands behind it, and a whole model's weights do not hold.
    starts_plain = "hidden_states_norms."

    def __init__(self, section: VisionSection) -> None:
        super().__init__(section)
        if section.layer != -1 or not section.final_norm:
            raise WeftError(
                "vision.layer and vision.final_norm are for transformers of patches; choose a backbone's stages with "
                "vision.options.stages"
            )

    @cached_property
    def config(self) -> Any:
        raw = {k: v for k, v in self.section.config.items() if k not in ("out_features", "out_indices")}
        name = raw.pop("model_type", None)
        if name not in self.sources:
            raise WeftError(
                f"vision.config: model_type {name!r} is no backbone that weft knows; it knows {', '.join(self.sources)}"
            )
        stages = self.section.stages or (-1,)
        try:
            return AutoConfig.for_model(name, **raw, out_indices=list(stages))
        except (ValueError, IndexError, TypeError, StrictDataclassError) as error:
            raise WeftError(
                f"vision: no {name} of this config has the stages {list(stages)} ({' '.join(str(error).split())})"
            ) from error

    @property
    def source_class(self) -> Any:  # type: ignore[override]  # each model_type has its own
        return MODEL_FOR_BACKBONE_MAPPING[type(self.config)]

    @property
    def loading(self) -> dict[str, Any]:  # type: ignore[override]  # that of each model
        return {"config": self.config}

    @cached_property
    def named(self) -> bool:  # type: ignore[override]
        config, own = self.config, isinstance(self.config, EfficientNetLiteConfig)
        return (
            own
            and self.section.extra_norm is None
            and config.out_indices[-1] % len(config.stage_names) == (len(config.stage_names) - 1)
        )

    def introduce(self, model: Any, processor: Any, source: str) -> None:
        if model.vision.classes is not None:
            names = model.vision.classes.learn(source)
            model.vision_connector.photographs.learn(names, processor.renderer.encode_text)

    @cached_property
    def maps(self) -> list[tuple[int, ...]]:
        """Channels, rows and columns of each chosen stage: what the module says of pictures without a pixel."""
        with torch.device("meta"):
            blank = torch.zeros(1, 3, *self.section.size, device="meta")
            try:
                return [tuple(found.shape[1:]) for found in self.source_class(self.config).eval()(blank).feature_maps]
            except (ValueError, RuntimeError, TypeError, ImportError) as error:
                name, (height, width) = self.config.model_type, self.section.size
                raise WeftError(
                    f"vision.size {height}x{width}: {name} takes no such pictures ({' '.join(str(error).split())}); "
                    "change vision.size"
                ) from error

    @property
    def channels(self) -> int:
        return sum(channels for channels, _, _ in self.maps)

    @property
    def grid(self) -> tuple[int, int]:
        return self.section.stage_grid or max((rows, columns) for _, rows, columns in self.maps)

    @classmethod
    def own_size(cls, config: Any) -> tuple[int, int] | None:
        size = config.get("image_size")
        return (size, size) if isinstance(size, int) else size and tuple(size)
