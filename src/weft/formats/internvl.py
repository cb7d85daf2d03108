"""A published InternVL folder, as converted for `transformers` (InternVL3-1B-hf and its kin), as a weft folder.

Facts and their sources: `transformers`' `InternVLForConditionalGeneration` and its processor, which cuts pictures into
tiles whatever the file of the image processor says; OpenGVLab/InternVL, `modeling_internvl_chat.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from transformers import InternVLConfig

from weft.formats.checkpoints import CheckpointError, check_out, read_folder, read_json
from weft.formats.folder import Imported, Writing, write_folder
from weft.formats.mapping import Input, Rule, read, wanted_by
from weft.formats.tokenizers import own_tokenizer
from weft.models.config import Connector, DialectSection, VisionSection, WeftConfig
from weft.models.preparation import pictures, prepared, tower_settings

# As newer transformers writes the class, and as the first conversions were written.
RULES = (
    Rule("model.language_model.*", "language_model.model.*"),
    Rule("language_model.model.*", "language_model.model.*"),
    Rule("lm_head.*", "language_model.lm_head.*"),
    Rule("language_model.lm_head.*", "language_model.lm_head.*"),
    *(
        Rule(f"{old}{theirs}.*", f"{ours}.*")
        for old in ("model.", "")
        for theirs, ours in (
            ("vision_tower", "vision.tower"),
            ("multi_modal_projector.layer_norm", "vision_connector.norm"),
            ("multi_modal_projector.linear_1", "vision_connector.up"),
            ("multi_modal_projector.linear_2", "vision_connector.down"),
        )
    ),
)
IMAGE, END, PADS = "<IMG_CONTEXT>", "<|im_end|>", ("<|endoftext|>", "</s>")


def import_internvl(checkpoint: Path, out: Path, dtype: str = "auto", **writing: Unpack[Writing]) -> Imported:
    """Reads the folder and writes ``out``; returns what was read. Raises `WeftError` where it does not fit."""
    check_out(out, writing.get("force", False))
    raw = read_json(checkpoint / "config.json")
    if raw.get("model_type") != "internvl":
        kind = f"model_type is {raw.get('model_type')!r}, expected 'internvl'"
        raise CheckpointError(f"{checkpoint / 'config.json'}: {kind}; of released folders take the one named -hf")
    theirs: Any = InternVLConfig.from_dict(raw)
    tokenizer = own_tokenizer(checkpoint, IMAGE, theirs.image_token_id)
    theirs.text_config.tie_word_embeddings = theirs.tie_word_embeddings  # the class ties by the outer one
    config = WeftConfig(
        text_config=theirs.text_config,
        vision=_vision(theirs, checkpoint),
        dialect=DialectSection(name="internvl", switches={"system": None}),
        image_token_id=theirs.image_token_id,
    )
    weights = read_folder(checkpoint)
    tied = ("lm_head.weight", "language_model.lm_head.weight") if theirs.tie_word_embeddings else ()
    outputs = read(wanted_by(config), [Input(weights, RULES, tied)])
    names = {"eos": END, "pad": next(token for token in (*PADS, END) if tokenizer.token_to_id(token) is not None)}
    return write_folder(
        out, config, outputs, [weights], tokenizer, names, {"max_new_tokens": 1024}, dtype=dtype, **writing
    )


def _vision(theirs: Any, folder: Path) -> VisionSection:
    asked = prepared(str(folder), "image_processor")
    for key, got, want in (
        ("vision_feature_layer", theirs.vision_feature_layer, -1),
        ("projector_hidden_act", theirs.projector_hidden_act, "gelu"),
        ("min_patches of the image processor", asked.get("min_patches", 1), 1),
    ):
        if got != want:
            raise CheckpointError(f"{folder}: {key} is {got!r}, and InternVL was published with {want!r}")
    fields = {"size": theirs.vision_config.image_size, **pictures(asked, str(folder))}
    return VisionSection(
        kind="internvit",
        config=tower_settings(theirs.vision_config),
        tiles=asked.get("max_patches", 12),
        drop_cls=theirs.vision_feature_select_strategy == "default",
        connector=Connector(kind="mlp", merge=int(1 / theirs.downsample_ratio) ** 2, grid=True, norm=True),
        **{key: value for key, value in fields.items() if key != "tiles"},
    )
