"""EfficientNet-Lite (Tan and others, the TensorFlow repository's `lite`), as a backbone of `transformers`.

Seven groups of inverted residual blocks behind a stem; without squeeze and excitation, and ReLU6 for swish. Stages are
counted as `AutoBackbone` counts them: 0 is the stem, 1 to 7 the groups, and at 224 pixels Lite0's stage 7 is a grid of
320 x 7 x 7, stage 5 one of 112 x 14 x 14, stage 3 one of 40 x 28 x 28. Padding is TensorFlow's SAME: where a stride
leaves an odd number of pixels over, one more stands behind than before.

Weights are trained with pixels of (value - 127) / 128, value in 0 to 255.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoBackbone, AutoConfig, AutoModelForImageClassification, PretrainedConfig, PreTrainedModel
from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
from transformers.modeling_outputs import BackboneOutput, ImageClassifierOutput

KERNELS, STRIDES, EXPANSIONS = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1), (1, 6, 6, 6, 6, 6, 6)
EPSILON = 1e-3  # of norms
MEAN, STD = [127 / 255] * 3, [128 / 255] * 3  # of pixels in 0 to 1


class EfficientNetLiteConfig(BackboneConfigMixin, PretrainedConfig):
    """``channels``: of the stem and the seven groups; ``depths``: blocks in each group; ``head``: channels before the
    classifier. The defaults are Lite0's."""

    model_type = "efficientnet_lite"

    def __init__(
        self,
        channels: tuple[int, ...] = (32, 16, 24, 40, 80, 112, 192, 320),
        depths: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1),
        head: int = 1280,
        out_features: list[str] | None = None,
        out_indices: list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**({} if "id2label" in kwargs else {"num_labels": 1000}) | kwargs)
        self.channels, self.depths, self.head = list(channels), list(depths), head
        self.stage_names = ["stem", *(f"stage{i}" for i in range(1, len(channels)))]
        self.set_output_features_output_indices(out_features, out_indices)


class Conv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding, [N, C, H, W] -> [N, C', ceil(H / stride), ceil(W / stride)], and
    its norm."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, after, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(after, eps=EPSILON)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        short = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x_NCHW.shape[:1:-1]]  # width first
        padded = F.pad(x_NCHW, [side for n in short for side in (n // 2, n - n // 2)])
        return self.norm(super().forward(padded))


class Block(nn.Module):
    """Widen, mix places within each channel, narrow; the input is added where it has the same shape."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.expand = Conv(before, inner, 1) if expansion > 1 else None
        self.depthwise = Conv(inner, inner, kernel, stride, groups=inner)
        self.project = Conv(inner, after, 1)
        self.adds = stride == 1 and before == after

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        wide = x_NCHW if self.expand is None else F.relu6(self.expand(x_NCHW))
        out = self.project(F.relu6(self.depthwise(wide)))
        return x_NCHW + out if self.adds else out


class Pretrained(PreTrainedModel):
    config_class = EfficientNetLiteConfig
    main_input_name = "pixel_values"
    base_model_prefix = "backbone"


class EfficientNetLite(BackboneMixin, Pretrained):
    """pixels [N, 3, H, W] -> the feature maps of the stages that ``config.out_indices`` names; no further ones are
    built."""

    has_attentions = False

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        channels = self.num_features = config.channels
        self.stem = Conv(3, channels[0], 3, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    Block(
                        channels[i + (n > 0)], channels[i + 1], KERNELS[i], STRIDES[i] if n == 0 else 1, EXPANSIONS[i]
                    )
                    for n in range(config.depths[i])
                )
            )
            for i in range(max(index % len(channels) for index in config.out_indices))
        )
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BackboneOutput:
        maps = [F.relu6(self.stem(pixel_values))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return BackboneOutput(feature_maps=tuple(maps[stage] for stage in self.config.out_indices))


class EfficientNetLiteForImageClassification(Pretrained):
    """pixels [N, 3, H, W] -> the logits of the classes [N, classes] (Lite0: ImageNet's thousand, in their order)."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        self.backbone = EfficientNetLite(config)
        self.head = Conv(config.channels[-1], config.head, 1)
        self.classifier = nn.Linear(config.head, config.num_labels)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> ImageClassifierOutput:
        features_NChw = F.relu6(self.head(self.backbone(pixel_values).feature_maps[-1]))
        return ImageClassifierOutput(logits=self.classifier(features_NChw.mean((2, 3))))


AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig, exist_ok=True)
AutoBackbone.register(EfficientNetLiteConfig, EfficientNetLite, exist_ok=True)
AutoModelForImageClassification.register(EfficientNetLiteConfig, EfficientNetLiteForImageClassification, exist_ok=True)
