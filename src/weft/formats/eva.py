"""EVA-CLIP-g (`eva_vit_g.pth`), the image tower of MiniGPT-v2, as `transformers`' Blip2VisionModel has it.

What the file does not say is taken from MiniGPT-4's released code (`eva_vit.py`), by rules for all sizes:

- *blocks*: it builds 39 of the 40 blocks and no final norm. A file that holds a final norm or a head is a whole tower,
  so its last block is left out; a file without them is one already cut, and is used whole.
- *image side*: twice the side that the position embeddings were made for (224 -> 448).
- *heads*: see `vision_heads`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from weft.formats.checkpoints import CheckpointError, Shape, Tensors
from weft.formats.mapping import How, Rule, rules_beside
from weft.models.config import Connector, VisionSection
from weft.models.encoders.images import Eva

BLOCK = "vision.tower.encoder.layers.#."


class NoKeyBias(How):
    """EVA's keys have no bias: one vector of query bias, zeros, value bias."""

    def shapes(self, ours: Sequence[Shape]) -> Sequence[Shape]:
        return [(ours[0][0] // 3,)] * 2

    def read(self, theirs: Sequence[Tensor], ours: Sequence[Shape]) -> Sequence[Tensor]:
        return [torch.cat([theirs[0], torch.zeros_like(theirs[0]), theirs[1]])]

    def write(self, ours: Sequence[Tensor]) -> Sequence[Tensor]:
        return ours[0].chunk(3)[::2]


class Interpolated(How):
    """Positions of a grid of another side; not to be undone where the side is another."""

    def shapes(self, ours: Sequence[Shape]) -> Sequence[Shape | None]:
        return [None]  # `eva_section` has looked at it

    def read(self, theirs: Sequence[Tensor], ours: Sequence[Shape]) -> Sequence[Tensor]:
        return [interpolate_positions(theirs[0], round((ours[0][1] - 1) ** 0.5))]


TOWER = (
    *rules_beside(__file__)["tower"],
    Rule("pos_embed", "vision.tower.embeddings.position_embedding", Interpolated()),
    Rule(("blocks.#.attn.q_bias", "blocks.#.attn.v_bias"), f"{BLOCK}self_attn.qkv.bias", NoKeyBias()),
)


def eva_section(t: Tensors, side: int | None, heads: int | None) -> tuple[VisionSection, list[str]]:
    """The tower that a file holds, from its shapes; the patterns of the blocks that the released code leaves out."""
    anchors = {"pos_embed": 3, "patch_embed.proj.weight": 4, "blocks.0.mlp.fc1.weight": 2}
    for name, dimensions in anchors.items():
        if len(t.shapes.get(name, ())) != dimensions:
            got = t.shapes.get(name, "nothing")
            raise CheckpointError(f"{t.label}: not an EVA tower: expected {name} of {dimensions} dimensions, got {got}")
    _, count, width = t.shapes["pos_embed"]
    grid, patch = round((count - 1) ** 0.5), t.shapes["patch_embed.proj.weight"][-1]
    if grid * grid != count - 1:
        raise CheckpointError(f"{t.label}: pos_embed has {count} rows, not a square and one")
    whole = any(name in t for name in ("norm.weight", "head.weight", "fc_norm.weight"))
    blocks = 1 + max(int(m[1]) for name in t.shapes if (m := re.match(r"blocks\.(\d+)\.", name)))
    layers = min(39, blocks) if width == 1408 else blocks - whole
    heads, side = heads or vision_heads(width), side or 2 * grid * patch
    for wrong, said in (
        (layers < 1, f"holds {blocks} block and a final norm; the last block is never used"),
        (width % heads, f"the width {width} is not a multiple of {heads} heads"),
        (side % patch, f"an image side of {side} is not a multiple of the patch size {patch}"),
    ):
        if wrong:
            raise CheckpointError(f"{t.label}: {said}")
    tower = {"hidden_size": width, "intermediate_size": t.shapes["blocks.0.mlp.fc1.weight"][0], "image_size": side}
    tower |= {"num_hidden_layers": layers, "num_attention_heads": heads, "patch_size": patch, "qkv_bias": True}
    tower |= {"hidden_act": "gelu", "layer_norm_eps": 1e-6}
    section = VisionSection(
        kind="eva",
        config=tower,
        size=Eva.own_size(tower),
        resample="bicubic",
        final_norm=False,
        extra_norm=1e-5,
        drop_cls=True,
        connector=Connector(kind="linear", merge=4, bias=True),
    )
    return section, [f"blocks.{n}.*" for n in range(layers, blocks)]


def vision_heads(width: int) -> int:
    """The number of attention heads of an EVA tower, which its weights do not show.

    Heads are 88 wide in the released code (`num_heads=1408//88`). Widths that 88 does not divide are not published;
    their heads are taken as 16 wide, or as near to it as divides the width evenly.
    """
    if width % 88 == 0:
        return width // 88
    divisors = [n for n in range(1, width + 1) if width % n == 0]
    return min(divisors, key=lambda n: (abs(width / n - 16), n))


def interpolate_positions(table_1TD: Tensor, side: int) -> Tensor:
    """Position embeddings [1, 1 + g*g, D] for a grid of ``side``; the class token's row is kept to the bit.

    As `interpolate_pos_embed` of the released code: bicubic in float32, `align_corners=False`.
    """
    table_1TD = table_1TD.float()
    first, rest = table_1TD[:, :1], table_1TD[:, 1:]
    old = round(rest.shape[1] ** 0.5)
    if old == side:
        return table_1TD
    grid_1DHW = rest.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid_1DHW = F.interpolate(grid_1DHW, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([first, grid_1DHW.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
