"""The image section of a published LLaVA-1.5: CLIP, which of its layers is read, and how pictures are prepared.

Facts and their sources: haotian-liu/LLaVA (`clip_encoder.py`, `mm_utils.py`), and `transformers`' processors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import LlavaConfig

from weft.formats.checkpoints import CheckpointError, read_json
from weft.models.config import Connector, VisionSection
from weft.models.preparation import pictures, prepared

PUBLISHED_TOWER = "clip-vit-large-patch14-336"  # what LlavaConfig describes by default


def converted_vision(config: Any, folder: Path) -> VisionSection:
    """The tower of a `transformers` folder and how its processor prepares pictures."""
    layer, kind = config.vision_feature_layer, config.vision_config.model_type
    odd = {
        "vision_config.model_type": (kind, "clip_vision_model"),
        "projector_hidden_act": (config.projector_hidden_act, "gelu"),
    }
    odd |= {"vision_feature_layer": (layer, "one layer")} if not isinstance(layer, int) else {}
    for key, (got, want) in odd.items():
        if got != want:
            raise CheckpointError(f"{folder / 'config.json'}: {key} is {got!r}, and LLaVA-1.5 has {want!r}")
    asked = prepared(str(folder), "image_processor")
    return _section(
        config.vision_config.to_dict(),
        layer,
        asked,
        folder,
        "pad" if asked.get("do_pad") else "crop" if asked.get("do_center_crop", True) else "stretch",
        drop_cls=config.vision_feature_select_strategy == "default",
        bias=config.multimodal_projector_bias,
    )


def released_vision(raw: dict[str, Any], folder: Path, vision: Path | None) -> VisionSection:
    """The tower that a released folder names, prepared as its `image_aspect_ratio` says (published: padded)."""
    aspect, projector = raw.get("image_aspect_ratio") or "square", raw.get("mm_projector_type", "linear")
    feature = raw.get("mm_vision_select_feature", "patch")
    for key, got, known in (
        ("image_aspect_ratio", aspect, ("pad", "square")),
        ("mm_projector_type", projector, ("mlp2x_gelu",)),
        ("mm_vision_select_feature", feature, ("patch", "cls_patch")),
        ("mm_use_im_start_end", raw.get("mm_use_im_start_end", False), (False,)),
    ):
        if got not in known:
            want = " or ".join(map(repr, known))
            raise CheckpointError(f"{folder / 'config.json'}: {key} is {got!r}, and LLaVA-1.5 has {want}")
    if vision is None and not str(raw["mm_vision_tower"]).endswith(PUBLISHED_TOWER):
        raise CheckpointError(f"{folder}: built on {raw['mm_vision_tower']}; give that folder with --vision")
    published: Any = LlavaConfig().vision_config
    tower = published.to_dict() if vision is None else read_json(vision / "config.json")
    tower = tower.get("vision_config", tower) if tower.get("model_type") == "clip" else tower
    if tower.get("model_type", "clip_vision_model") != "clip_vision_model":
        raise CheckpointError(f"{vision}: model_type is {tower['model_type']!r}, expected 'clip' (LLaVA-1.5's encoder)")
    asked = prepared(str(vision), "image_processor") if vision is not None else {}
    fit, layer = "pad" if aspect == "pad" else "crop", raw.get("mm_vision_select_layer", -2)
    return _section(tower, layer, asked, vision or folder, fit, drop_cls=feature == "patch", bias=True)


def _section(
    tower: dict[str, Any], layer: int, asked: dict[str, Any], folder: Path, fit: str, *, drop_cls: bool, bias: bool
) -> VisionSection:
    side = tower.get("image_size", 224)
    fields: dict[str, Any] = {"size": (side, side)}
    if asked:  # padding is what ``fit`` says, and comes before the other steps
        usual = {"image_processor_type": "CLIPImageProcessor", "do_center_crop": fit != "stretch"}
        fields |= pictures({**usual, **asked, "do_pad": False}, str(folder), cropped=True)
        if (size := fields["size"]) != (side, side):
            raise CheckpointError(f"{folder}: its pictures are of {size}, and its encoder takes {side}x{side}")
    connector = Connector(kind="mlp", merge=1, bias=bias)
    return VisionSection(
        kind="clip", config=tower, layer=layer, fit=fit, drop_cls=drop_cls, connector=connector, **fields
    )
