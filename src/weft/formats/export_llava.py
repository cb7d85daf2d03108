"""A weft model in the layout of `transformers`' `LlavaForConditionalGeneration`: CLIP, an MLP, a language model.

Names and files are those of the published conversions (llava-hf), which vLLM, llama.cpp's converter and other programs
read. weft keeps only the layers of the tower that are used, so the exported tower's last layer is the one that is read.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from weft.dialects.llava import SYSTEM, LLaVA
from weft.formats.checkpoints import Output
from weft.formats.layouts import Exporting, Layout, first_misfit, rows_needed, template, with_template
from weft.formats.llava import RULES, TOWER
from weft.models.config import VisionSection
from weft.models.preparation import RESAMPLE


def llava_layout(model: Exporting) -> Layout:
    """The model in LLaVA's class, for `export`. Raises `ExportError` where it does not fit."""
    vision = _fitting(model)
    from weft.models.encoders.more_images import Clip  # brings in transformers' towers

    tower = Clip(vision).config
    side = vision.size[0]
    text = model.config.text_config.to_dict() | {"vocab_size": rows_needed(model)}
    text.pop("architectures", None)
    strategy: Any = "default" if vision.drop_cls else "full"
    assert model.config.image_token_id is not None  # `_fitting` has said so
    config: Any = LlavaConfig(
        vision_config=tower.to_dict(),
        text_config=text,
        image_token_index=model.config.image_token_id,
        image_seq_length=(side // tower.patch_size) ** 2 + (not vision.drop_cls),
        vision_feature_layer=-1,
        vision_feature_select_strategy=strategy,
        multimodal_projector_bias=vision.connector.bias,
        projector_hidden_act="gelu",
        tie_word_embeddings=model.config.text_config.tie_word_embeddings,
    )
    width = (tower.hidden_size,)  # a norm over the pooled token, which is never used, but has its place
    unused = {"weight": torch.ones(width), "bias": torch.zeros(width)}
    made = {
        f"vision_tower.vision_model.post_layernorm.{part}": Output(
            f"vision_tower.vision_model.post_layernorm.{part}",
            width,
            lambda value=value: value,  # type: ignore[misc]
        )
        for part, value in unused.items()
    }
    notes: list[str] = []
    texts = _processor_files(model, vision, tower.patch_size, strategy, notes)
    return Layout(LlavaForConditionalGeneration, config, (*RULES, *TOWER), made, texts=texts, notes=notes)


def _fitting(model: Exporting) -> VisionSection:
    """The image section, where all of the model has its place in LLaVA's class."""
    config = model.config
    if config.vision_section is None:
        first_misfit(model, "LLaVA", {"it has no image encoder": False})
    vision: Any = config.vision_section
    connector, text = vision.connector, config.text_config
    height, width = vision.size
    own = vision.config.get("image_size", 224)
    first_misfit(
        model,
        "LLaVA",
        {
            "its dialect has no place for pictures": config.image_token_id is not None,
            "it also has an audio encoder": config.audio is None,
            f"its image encoder is of the kind {vision.kind}, and LLaVA's is CLIP": vision.kind == "clip",
            f"its image connector is of the kind {connector.kind}, and LLaVA's is mlp": connector.kind == "mlp",
            f"its connector merges {connector.group} patches into one token": connector.group == 1,
            "its connector adds the tokens of places": not connector.places,
            f"its connector scales by {connector.scale:g}": connector.scale == 1,
            f"its connector is {connector.hidden} wide inside": connector.hidden in (None, text.hidden_size),
            "a further norm follows its image encoder": vision.extra_norm is None,
            f"its pictures are {height}x{width}, and its encoder was made for {own}x{own}": height == width == own,
            f"its language model is weft's own {text.model_type}": text.model_type != "weft_qwen",
        },
    )
    return vision


def _processor_files(
    model: Exporting, vision: VisionSection, patch: int, strategy: str, notes: list[str]
) -> dict[str, Any]:
    side = vision.size[0]
    size: dict[str, int] = {"height": side, "width": side} if vision.fit == "stretch" else {"shortest_edge": side}
    images: dict[str, Any] = {
        # Both classes resize, crop and normalise alike; LLaVA's own also pads.
        "image_processor_type": "LlavaImageProcessor" if vision.fit == "pad" else "CLIPImageProcessor",
        "processor_class": "LlavaProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": size,
        "resample": next(number for number, name in RESAMPLE.items() if name == vision.resample),
        "do_center_crop": vision.fit != "stretch",
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(vision.mean),
        "image_std": list(vision.std),
    }
    if vision.fit == "pad":
        images["do_pad"] = True
    if model.processor is None:
        return {}
    processor = {
        "processor_class": "LlavaProcessor",
        "image_token": model.processor.dialect.slot_tokens("image")[0],
        "patch_size": patch,
        "num_additional_image_tokens": 1,  # CLIP's class token
        "vision_feature_select_strategy": strategy,
    }
    files: dict[str, Any] = {"preprocessor_config.json": images, "processor_config.json": processor}
    return with_template(files, chat_template(model.processor), model, notes)


def chat_template(processor: Any) -> str | None:
    """What the model's dialect writes, as a Jinja template; None for dialects that have none."""
    dialect = processor.dialect
    if not isinstance(dialect, LLaVA):
        return processor.chat_template
    released = dialect.switches.template == "vicuna_v1"
    return template("llava", BEGIN=repr(f"{SYSTEM} ") if released else "''", END="'</s>'" if released else "' '")
