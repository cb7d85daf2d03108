"""A published LLaVA-1.5 folder as a weft folder: as released, or as converted for `transformers`.

Facts and their sources: haotian-liu/LLaVA (`llava_arch.py`, `clip_encoder.py`, `mm_utils.py`) and `transformers`'
`LlavaForConditionalGeneration`. The released folder (`llava_llama`) is a Llama with a projector in its configuration
and most often without the CLIP tower, which then comes from a folder of its own. Of CLIP the layer before the last is
used, its class token left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import LlavaConfig

from weft.formats.checkpoints import CheckpointError, Claims, Output, Tensors, check_out, copy, read_folder, read_json
from weft.formats.folder import Imported, write_folder
from weft.formats.llama import llama_config, llama_tokenizer, stored_dtype
from weft.formats.tokenizers import add_specials
from weft.models.config import Connector, DialectSection, VisionSection, WeftConfig
from weft.models.preparation import pictures, prepared

IMAGE, SPECIALS = "<image>", ("<s>", "</s>")
PUBLISHED_TOWER = "clip-vit-large-patch14-336"  # what LlavaConfig describes by default
# weft's names and what stands for them: in the conversions (older, newer), in the released folder, in a CLIP folder.
NAMES: dict[str, tuple[str, ...]] = {
    "language_model.model.": ("language_model.model.", "model.language_model.", "model."),
    "language_model.lm_head.": ("language_model.lm_head.", "lm_head."),
    "vision_connector.up.": (
        *("multi_modal_projector.linear_1.", "model.multi_modal_projector.linear_1."),
        "model.mm_projector.0.",
    ),
    "vision_connector.down.": (
        *("multi_modal_projector.linear_2.", "model.multi_modal_projector.linear_2."),
        "model.mm_projector.2.",
    ),
    "vision.tower.": (
        *("vision_tower.vision_model.", "model.vision_tower.vision_model.", "vision_tower.", "model.vision_tower."),
        *("model.vision_tower.vision_tower.vision_model.", "vision_model.", ""),
    ),
}
INSIDE = re.compile(r"(?:model\.)?vision_tower\..*")
LAYER = re.compile(r"(?:.*vision_\w+\.)?encoder\.layers\.(\d+)\..*")
# Computed; the half of CLIP that reads text; the norm of the pooled token. (And the tower's layers after the one used.)
UNUSED = (
    *(r".*\.rotary_emb\.inv_freq", r".*\.position_ids", r"(?:.*\.)?post_layernorm\..*"),
    *(r"text_model\..*", r"logit_scale", r"(?:text|visual)_projection\.weight"),
)


def import_llava(
    checkpoint: Path,
    out: Path,
    dtype: str = "auto",
    *,
    vision: Path | None = None,
    template: str | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Reads a published folder and writes ``out``; returns what was read. Raises `WeftError` where it does not fit.

    ``vision`` is the CLIP folder of a released checkpoint. ``template`` is the dialect's switch; without it, a folder
    is asked in the way of the program that reads it.
    """
    check_out(out, force)
    raw, weights, tower = read_json(checkpoint / "config.json"), read_folder(checkpoint), None
    released = "mm_vision_tower" in raw
    if released:
        text = llama_config(checkpoint, ("llava_llama", "llava"), weights)
        section = _released_vision(raw, checkpoint, vision)
        image_id = None
        if not any(INSIDE.fullmatch(name) for name in weights.shapes):
            if vision is None:
                raise CheckpointError(
                    f"{checkpoint}: holds no image encoder; give its folder with --vision ({raw['mm_vision_tower']})"
                )
            tower = read_folder(vision)
    else:
        if raw.get("model_type") != "llava":
            kind = repr(raw.get("model_type"))
            raise CheckpointError(
                f"{checkpoint / 'config.json'}: model_type is {kind}, expected 'llava' or 'llava_llama'"
            )
        if vision is not None:
            raise CheckpointError(f"{checkpoint}: has its image encoder inside; leave --vision out")
        converted: Any = LlavaConfig.from_dict(raw)
        text, section, image_id = (
            converted.text_config,
            _converted_vision(converted, checkpoint),
            converted.image_token_id,
        )
    notes: list[str] = []
    tokenizer, names = _tokenizer(checkpoint, image_id, notes)
    if tokenizer is not None:
        image_id = tokenizer.token_to_id(IMAGE)
    config = WeftConfig(
        text_config=text,
        vision=section,
        dialect=DialectSection(name="llava", switches={"template": template or ("vicuna_v1" if released else "hf")}),
        image_token_id=text.vocab_size if image_id is None else image_id,
    )
    outputs = _outputs(config, weights, tower)
    generation: dict[str, Any] = {"max_new_tokens": 1024, "do_sample": False}  # greedy, as in the published evaluation
    for key, token in (("bos", 0), ("eos", 1), ("pad", 1)):
        known = tokenizer.token_to_id(names.get(key, SPECIALS[token])) if tokenizer is not None else None
        generation[f"{key}_token_id"] = known if known is not None else getattr(text, f"{key}_token_id", None)
    return write_folder(
        out,
        config,
        outputs,
        inputs=(weights,) if tower is None else (weights, tower),
        dtype=stored_dtype(dtype, weights),
        tokenizer=tokenizer,
        names=names,
        generation=generation,
        notes=notes,
        force=force,
        progress=progress,
    )


def _outputs(config: WeftConfig, weights: Tensors, tower: Tensors | None) -> list[Output]:
    """The names and shapes of the model that the configuration makes decide what the inputs must hold."""
    from weft.models.modeling import WeftForConditionalGeneration

    with torch.device("meta"):
        wanted = {n: tuple(v.shape) for n, v in WeftForConditionalGeneration(config).state_dict().items()}
    if config.text_config.tie_word_embeddings:
        wanted.pop("language_model.lm_head.weight")
    claims = {"": Claims(weights), "vision.tower.": Claims(tower or weights)}
    claims[""] = claims["vision.tower."] if tower is None else claims[""]
    outputs = []
    for name, shape in wanted.items():
        mine = next(prefix for prefix in NAMES if name.startswith(prefix))
        source = claims.get(mine, claims[""])
        there = [p + name.removeprefix(mine) for p in NAMES[mine]]
        found = source.need(next((n for n in there if n in source.tensors), there[0]), shape)
        if found in source.tensors:
            outputs.append(copy(source.tensors, found, name))
    used = {int(m[1]) for n in wanted if (m := re.match(r"vision\.tower\.encoder\.layers\.(\d+)\.", n))}
    for source in claims.values():
        layers = {int(m[1]) for n in source.tensors.shapes if (m := LAYER.fullmatch(n))}
        source.surplus(*UNUSED, *(rf"(?:.*vision_\w+\.)?encoder\.layers\.{n}\..*" for n in sorted(layers - used)))
        if config.text_config.tie_word_embeddings:
            source.surplus(r"(?:language_model\.)?lm_head\.weight")
    for source in claims.values():
        source.settle()
    return outputs


def _converted_vision(config: Any, folder: Path) -> VisionSection:
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


def _released_vision(raw: dict[str, Any], folder: Path, vision: Path | None) -> VisionSection:
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
    connector = Connector(kind="mlp", bias=bias)
    return VisionSection(
        kind="clip", config=tower, layer=layer, fit=fit, drop_cls=drop_cls, connector=connector, **fields
    )


def _tokenizer(folder: Path, image_id: int | None, notes: list[str]) -> tuple[Tokenizer | None, dict[str, str]]:
    """The folder's tokenizer with `<image>` after its own tokens, and the names of its special ones.

    A `tokenizer.model` is read by the rule that the weights were trained with (see `tokenizers`), a `tokenizer.json`
    as it is. Where it cannot write LLaVA's prompt, or places `<image>` elsewhere than ``image_id``, a note says so.
    """
    tokenizer, problem = None, "has no tokenizer"
    if (folder / "tokenizer.model").exists():
        tokenizer = llama_tokenizer(folder)
    elif (folder / "tokenizer.json").exists():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if tokenizer is not None:
        listed = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
        for number, token in sorted((listed.get("added_tokens_decoder") or {}).items(), key=lambda item: int(item[0])):
            if tokenizer.token_to_id(token["content"]) is None and int(number) == tokenizer.get_vocab_size():
                add_specials(tokenizer, [token["content"]])
        add_specials(tokenizer, [IMAGE])
        known = {token: tokenizer.token_to_id(token) for token in (*SPECIALS, IMAGE, "<pad>", "<unk>")}
        lost = [token for token in SPECIALS if known[token] is None]
        if not lost and image_id in (None, known[IMAGE]):
            pad = "<pad>" if known["<pad>"] is not None else SPECIALS[1]
            names = {"bos": SPECIALS[0], "eos": SPECIALS[1], "pad": pad}
            return tokenizer, names | ({"unk": "<unk>"} if known["<unk>"] is not None else {})
        placed = f"has {IMAGE} at {known[IMAGE]} and the model at {image_id}"
        problem = f"has a tokenizer without {lost[0]}, which LLaVA's prompt needs" if lost else placed
    notes.append(f"{folder} {problem}, so the model takes token ids only (no chat, no processor)")
    return None, {}
