"""The classifier of an EfficientNet-Lite at each place of its last map, which without pooling says where, too.

(A class activation map, https://arxiv.org/abs/1512.04150.) The weights are the published ones and never train.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForImageClassification

from weft.conversation import WeftError
from weft.models import doors
from weft.models.encoders.efficientnet import EPSILON, EfficientNetLiteConfig


class Held(nn.Module):
    """Buffers, so that no training, LoRA or rounding takes them for weights of a layer."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))


class Classes(nn.Module):
    """Named as in the published model: its head, the head's norm, and the classifier of ``classes``."""

    def __init__(self, config: EfficientNetLiteConfig, classes: int) -> None:
        super().__init__()
        inner, self.channels = (config.head,), config.channels[-1]
        self.head: Any = Held(weight=(config.head, self.channels, 1, 1))
        self.head.norm = Held(weight=inner, bias=inner, running_mean=inner, running_var=inner)
        self.head.norm.register_buffer("num_batches_tracked", torch.tensor(0))
        self.classifier: Any = Held(weight=(classes, config.head), bias=(classes,))

    def forward(self, features_NTD: torch.Tensor) -> torch.Tensor:
        """Logits [N, T, K] of features whose last channels are the last map's; in float32."""
        norm, last_NTC = self.head.norm, features_NTD[..., -self.channels :].float()
        scale_H = norm.weight.float() / (norm.running_var.float() + EPSILON).sqrt()
        shift_H = norm.bias.float() - scale_H * norm.running_mean.float()
        head_NTH = F.relu6(F.linear(last_NTC, self.head.weight[..., 0, 0].float()) * scale_H + shift_H)
        return F.linear(head_NTH, self.classifier.weight.float(), self.classifier.bias.float())

    def learn(self, source: str) -> list[str]:
        """Takes the weights of the whole model in ``source``; gives the names of its classes."""
        model = doors.load(AutoModelForImageClassification, source, "its classifier could not be loaded")
        names = [model.config.id2label[number] for number in range(model.config.num_labels)]
        if len(names) != len(self.classifier.bias) or names[0] == "LABEL_0":
            raise WeftError(
                f"{source}: vision.connector.classes is {len(self.classifier.bias)}, and it names "
                f"{0 if names[0] == 'LABEL_0' else len(names)} classes; run `weft parts` again, or take classes 0"
            )
        found = model.state_dict()
        self.load_state_dict({name: found[name] for name in self.state_dict()})
        return names
