"""MiniGPT-v2's three published inputs as one weft folder.

EVA-CLIP-g (`eva`), a Llama-2 folder and `minigptv2_checkpoint.pth` (LoRA, projector). Facts and their sources:
Vision-CAIR/MiniGPT-4 @ d94738a, `eva_vit.py`, `base_model.py`, `minigpt_v2.py`. The training configuration inside the
checkpoint may give `image_size` and `lora_alpha` (MiniGPTBase.__init__: 16, of a rank of 64, so the scale is 0.25).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Unpack

import torch

from weft.dialects.minigpt_v2 import MiniGPTv2
from weft.formats.checkpoints import CheckpointError, Output, Tensors, check_out, read_file, read_folder
from weft.formats.eva import TOWER, eva_section
from weft.formats.folder import Imported, Writing, write_folder
from weft.formats.llama import NAMES, PREFIX, ROTARY, llama_config, llama_input, llama_tokenizer
from weft.formats.lora import Update, with_lora
from weft.formats.mapping import Input, Rule, read, wanted_by
from weft.models.config import DialectSection, WeftConfig
from weft.named import Named

KEPT = Named[Any]({"lora": "weft.formats.kept_lora:write_lora"})  # apart from the weights that it changes
PLACEHOLDER = MiniGPTv2.slots["image"][0]  # not in Llama's vocabulary; its id is the first one after the table
LLAMA = "llama_model.base_model.model."
RULES = (
    Rule("llama_proj.*", "vision_connector.proj.*"),
    Rule("ln_vision.*", "vision.extra_norm.*"),
    *(Rule(LLAMA + name, None) for name in ROTARY),
)


def import_minigpt_v2(
    vision: Path,
    llm: Path,
    checkpoint: Path,
    out: Path,
    dtype: str = "auto",
    *,
    image_size: int | None = None,
    heads: int | None = None,
    lora_alpha: float | None = None,
    keep_adapter: bool = False,
    **writing: Unpack[Writing],
) -> Imported:
    """Reads the published files and writes ``out``; returns what was read. Raises `WeftError` where they do not fit.

    With ``keep_adapter`` the LoRA is not folded in: ``out`` is an adapter with its base inside.
    """
    check_out(out, writing.get("force", False))
    tower, language = read_file(vision), read_folder(llm)
    text: Any = llama_config(llm, weights=language)
    trained = read_file(checkpoint, inside="model")
    settings = _training_settings(trained.extra)
    section, left = eva_section(tower, image_size or settings.get("image_size"), heads)
    tokenizer = llama_tokenizer(llm, (PLACEHOLDER,))
    placeholder = tokenizer.token_to_id(PLACEHOLDER)
    dialect = DialectSection(name=MiniGPTv2.name)
    config = WeftConfig(text_config=text, vision=section, dialect=dialect, image_token_id=placeholder)
    outputs, lora = plan(config, tower, left, language, trained, lora_alpha or settings.get("lora_alpha", 16))
    merged = with_lora(outputs, lora, language.label, PREFIX)  # checked also where it is kept apart
    notes = []
    if heads is None and section.config["hidden_size"] != 1408:
        count, width = section.config["num_attention_heads"], section.config["hidden_size"]
        notes.append(
            f"{vision} does not say how many attention heads its tower has; {count} are taken for its width of {width} "
            f"(--vision-heads says otherwise)"
        )
    inputs, generation = (language, tower, trained), {"max_new_tokens": 500}
    adapter = (lambda folder: KEPT["lora"](folder, lora, PREFIX)) if keep_adapter else None
    outputs = outputs if keep_adapter else merged
    return write_folder(
        out, config, outputs, inputs, tokenizer, NAMES, generation, notes, adapter, dtype=dtype, **writing
    )


def plan(
    config: WeftConfig, tower: Tensors, left: list[str], language: Tensors, trained: Tensors, alpha: float
) -> tuple[list[Output], dict[str, Update]]:
    """Every tensor of the model, LoRA not in it, and the LoRA. ``left``: patterns of the tower's blocks left out."""
    adapter = Input(trained, RULES)
    lora = _lora(adapter, alpha, config.text_config.num_hidden_layers)
    width = trained.shapes.get("llama_proj.weight", (0, 0))[1] // 4
    made = {"weight": torch.ones(width), "bias": torch.zeros(width)}  # frozen at its start, unless the file has it
    made = {f"vision.extra_norm.{part}": v for part, v in made.items() if f"ln_vision.{part}" not in trained}
    inputs = Input(tower, TOWER, left), llama_input(language, config.text_config), adapter
    return read(wanted_by(config), inputs, made), lora


def _training_settings(extra: dict[str, Any]) -> dict[str, Any]:
    """`image_size` and `lora_alpha` of the training configuration that the checkpoint carries, where it has them."""
    config = extra.get("config")
    model = config.get("model") if isinstance(config, dict) else None
    model = model if isinstance(model, dict) else {}
    kinds: dict[str, Any] = {"image_size": int, "lora_alpha": (int, float)}
    return {key: model[key] for key, kind in kinds.items() if isinstance(model.get(key), kind)}


def _lora(trained: Input, alpha: float, layers: int) -> dict[str, Update]:
    """The LoRA pairs in the naming of peft 0.2 (`lora_A.weight`) or a later one (`lora_A.default.weight`).

    Published for `q_proj` and `v_proj`; whatever one layer has, every layer must have.
    """
    named = re.compile(re.escape(LLAMA) + r"(.+)\.lora_A\.(default\.)?weight")
    tensors = trained.tensors
    found = {m[1] + ".weight": name for name in tensors.shapes if (m := named.fullmatch(name))}
    if not found:
        raise CheckpointError(f"{tensors.label}: holds no LoRA tensors ({LLAMA}...lora_A.weight)")
    rank, *others = sorted({tensors.shapes[name][0] for name in found.values()})
    if others:
        raise CheckpointError(f"{tensors.label}: LoRA ranks differ: {[rank, *others]}")
    pairs = {weight: (a, a.replace(".lora_A.", ".lora_B.")) for weight, a in found.items()}
    for a, b in pairs.values():
        trained.need(a, None)
        trained.need(b, (tensors.shapes[b][0], rank) if b in tensors else None)
    modules = {re.sub(r"^model\.layers\.\d+\.", "", weight) for weight in found}
    wanted = {f"model.layers.{n}.{module}" for n in range(layers) for module in modules}
    trained.missing += [f"LoRA tensors of {weight}" for weight in sorted(wanted - set(found))]
    return {weight: Update(tensors, a, b, alpha / rank) for weight, (a, b) in pairs.items()}
