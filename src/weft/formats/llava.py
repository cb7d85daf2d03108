"""A published LLaVA-1.5 folder as a weft folder: as released, or as converted for `transformers`.

Facts and their sources: haotian-liu/LLaVA (`llava_arch.py`) and `transformers`' `LlavaForConditionalGeneration`. The
released folder (`llava_llama`) is a Llama with a projector in its configuration and most often without the CLIP tower,
which then comes from a folder of its own. Of CLIP the layer before the last is used, its class token left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Unpack

from tokenizers import Tokenizer
from transformers import LlavaConfig

from weft.formats.checkpoints import CheckpointError, Output, Tensors, check_out, read_folder, read_json
from weft.formats.folder import Imported, Writing, write_folder
from weft.formats.llama import NAMES, llama_config, llama_tokenizer
from weft.formats.llava_vision import converted_vision, released_vision
from weft.formats.mapping import Input, read, rules_beside, wanted_by
from weft.formats.tokenizers import add_specials
from weft.formats.transformers_folder import LANGUAGE
from weft.models.config import DialectSection, WeftConfig

IMAGE, SPECIALS = "<image>", ("<s>", "</s>")
TABLES = rules_beside(__file__)
RULES, TOWER = (*LANGUAGE, *TABLES["rules"]), TABLES["tower"]
# Computed; the half of CLIP that reads text; the norm of the pooled token. (And the tower's layers after the one used.)
UNUSED = ("*.rotary_emb.inv_freq", "*.position_ids", "*post_layernorm.*", "text_model.*", "logit_scale")
PROJECTIONS = ("text_projection.weight", "visual_projection.weight")  # of a whole CLIP
INSIDE = re.compile(r"(?:model\.)?vision_tower\..*")


def import_llava(
    checkpoint: Path,
    out: Path,
    dtype: str = "auto",
    *,
    vision: Path | None = None,
    template: str | None = None,
    **writing: Unpack[Writing],
) -> Imported:
    """Reads a published folder and writes ``out``; returns what was read. Raises `WeftError` where it does not fit.

    ``vision`` is the CLIP folder of a released checkpoint. ``template`` is the dialect's switch; without it, a folder
    is asked in the way of the program that reads it.
    """
    check_out(out, writing.get("force", False))
    raw, weights, tower = read_json(checkpoint / "config.json"), read_folder(checkpoint), None
    released = "mm_vision_tower" in raw
    text: Any
    if released:
        text = llama_config(checkpoint, ("llava_llama", "llava"), weights)
        section, image_id = released_vision(raw, checkpoint, vision), None
        if not any(INSIDE.fullmatch(name) for name in weights.shapes):
            if vision is None:
                raise CheckpointError(
                    f"{checkpoint}: holds no image encoder; give its folder with --vision ({raw['mm_vision_tower']})"
                )
            tower = read_folder(vision)
    else:
        kind = raw.get("model_type")
        if kind != "llava":
            raise CheckpointError(
                f"{checkpoint / 'config.json'}: model_type is {kind!r}, expected 'llava' or 'llava_llama'"
            )
        if vision is not None:
            raise CheckpointError(f"{checkpoint}: has its image encoder inside; leave --vision out")
        converted: Any = LlavaConfig.from_dict(raw)
        text, image_id = converted.text_config, converted.image_token_id
        section = converted_vision(converted, checkpoint)
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
    inputs, generation = (weights,) if tower is None else (weights, tower), {"max_new_tokens": 1024}
    outputs = plan(config, weights, tower)
    return write_folder(out, config, outputs, inputs, tokenizer, names, generation, notes, dtype=dtype, **writing)


def plan(config: WeftConfig, weights: Tensors, tower: Tensors | None) -> list[Output]:
    """Every tensor of the model. ``tower``: CLIP, where it is not among the ``weights``."""
    wanted = wanted_by(config)
    unused = [*UNUSED, *PROJECTIONS]
    if config.text_config.tie_word_embeddings:
        unused += ["lm_head.weight", "language_model.lm_head.weight"]
    layer = re.compile(r"(?:.*vision_\w+\.|vision\.tower\.)?encoder\.layers\.(\d+)\..*")
    last = max(int(m[1]) for name in wanted if (m := layer.fullmatch(name)))
    more = {int(m[1]) for t in (weights, tower) if t for name in t.shapes if (m := layer.fullmatch(name))}
    later = [f"*encoder.layers.{n}.*" for n in sorted(more) if n > last]
    if tower is None:
        return read(wanted, [Input(weights, (*RULES, *TOWER), unused + later)])
    return read(wanted, [Input(weights, RULES, unused), Input(tower, TOWER, unused + later)])


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
            names = NAMES | ({"pad": "<pad>"} if known["<pad>"] is not None else {})
            return tokenizer, {key: token for key, token in names.items() if known[token] is not None}
        placed = f"has {IMAGE} at {known[IMAGE]} and the model at {image_id}"
        problem = f"has a tokenizer without {lost[0]}, which LLaVA's prompt needs" if lost else placed
    notes.append(f"{folder} {problem}, so the model takes token ids only (no chat, no processor)")
    return None, {}
