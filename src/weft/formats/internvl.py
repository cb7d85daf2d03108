"""A published InternVL folder, as converted for `transformers` (InternVL3-1B-hf and its kin), as a weft folder.

Facts and their sources: `transformers`' `InternVLForConditionalGeneration` and its processor, which cuts pictures into
tiles whatever the file of the image processor says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from transformers import InternVLConfig

from weft.formats.checkpoints import CheckpointError
from weft.formats.folder import Imported, Writing
from weft.formats.transformers_folder import LANGUAGE, import_converted, part, tower_settings
from weft.models.config import Connector, DialectSection, VisionSection, WeftConfig
from weft.models.preparation import pictures, prepared

RULES = (
    *LANGUAGE,
    *part("vision_tower", "vision.tower"),
    *part("multi_modal_projector.layer_norm", "vision_connector.norm"),
    *part("multi_modal_projector.linear_1", "vision_connector.up"),
    *part("multi_modal_projector.linear_2", "vision_connector.down"),
)


def import_internvl(checkpoint: Path, out: Path, dtype: str = "auto", **writing: Unpack[Writing]) -> Imported:
    return import_converted(checkpoint, out, dtype, InternVLConfig, _config, "<IMG_CONTEXT>", RULES, **writing)


def _config(theirs: Any, folder: Path) -> WeftConfig:
    asked = prepared(str(folder), "image_processor")
    for key, got, want in (
        ("vision_feature_layer", theirs.vision_feature_layer, -1),
        ("projector_hidden_act", theirs.projector_hidden_act, "gelu"),
        ("min_patches of the image processor", asked.get("min_patches", 1), 1),
    ):
        if got != want:
            raise CheckpointError(f"{folder}: {key} is {got!r}, and InternVL was published with {want!r}")
    theirs.text_config.tie_word_embeddings = theirs.tie_word_embeddings  # the class ties by the outer one
    tower = theirs.vision_config
    fields = {"size": tower.image_size, "tiles": asked.get("max_patches", 12)}
    section = VisionSection(
        kind="internvit",
        config=tower_settings(tower),
        drop_cls=theirs.vision_feature_select_strategy == "default",
        connector=Connector(kind="mlp", merge=int(1 / theirs.downsample_ratio) ** 2, grid=True, norm=True),
        **{**pictures(asked, str(folder)), **fields},
    )
    dialect = DialectSection(name="internvl", switches={"system": None})
    return WeftConfig(
        text_config=theirs.text_config, vision=section, dialect=dialect, image_token_id=theirs.image_token_id
    )
