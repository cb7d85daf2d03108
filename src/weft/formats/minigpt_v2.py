"""MiniGPT-v2's three published inputs as one weft folder.

EVA-CLIP-g (`eva_vit_g.pth`), a Llama-2 folder and `minigptv2_checkpoint.pth` (LoRA, projector). Facts and their
sources: Vision-CAIR/MiniGPT-4 @ d94738a, `eva_vit.py`, `base_model.py`, `minigpt_v2.py`.

What the files do not say is taken from the released code, by rules that hold at published size and at others:

- *blocks*: the released code builds 39 of EVA-CLIP-g's 40 blocks and no final norm. A file that holds a final norm or a
  head is a whole tower, so its last block is left out; a file without them is one already cut, and is used whole.
- *image side*: twice the side that the position embeddings were made for (224 -> 448), unless the training
  configuration inside the checkpoint gives `image_size`.
- *heads*: see `vision_heads`.
- *LoRA scale*: alpha / r, r from the tensors and alpha 16 unless the training configuration gives `lora_alpha`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from weft.formats.adapters import write_lora
from weft.formats.checkpoints import CheckpointError, Claims, Output, Tensors, check_out, copy, read_file, read_folder
from weft.formats.folder import Imported, write_folder
from weft.formats.llama import ROTARY_BUFFERS, Lora, llama_config, llama_outputs, llama_tokenizer, stored_dtype
from weft.models.config import Connector, DialectSection, VisionSection, WeftConfig

PLACEHOLDER = "<ImageHere>"  # not in Llama's vocabulary; its id is the first one after the table
LLAMA = "llama_model.base_model.model."


def import_minigpt_v2(
    vision: Path,
    llm: Path,
    checkpoint: Path,
    out: Path,
    dtype: str = "auto",
    *,
    force: bool = False,
    image_size: int | None = None,
    heads: int | None = None,
    lora_alpha: float | None = None,
    keep_adapter: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Reads the published files and writes ``out``; returns what was read. Raises `WeftError` where they do not fit.

    With ``keep_adapter`` the LoRA is not folded in: ``out`` is an adapter with its base inside.
    """
    check_out(out, force)
    tower, language = read_file(vision), read_folder(llm)
    text = llama_config(llm, weights=language)
    trained = read_file(checkpoint, inside="model")
    settings = _training_settings(trained.extra)

    adapter = Claims(trained)
    lora = _lora(adapter, settings, lora_alpha, text.num_hidden_layers)
    side = image_size or settings.get("image_size")
    section, outputs = _tower(Claims(tower), side, heads)
    outputs += _projector(adapter, section, text.hidden_size)
    merged = llama_outputs(language_claims := Claims(language), text, lora=lora)
    if keep_adapter:  # checked as if it were folded in
        merged = [copy(language, o.name.removeprefix("language_model."), o.name) for o in merged]
    outputs += merged
    adapter.surplus(re.escape(LLAMA) + ROTARY_BUFFERS)
    for claims in (language_claims, adapter):
        claims.settle()

    tokenizer = llama_tokenizer(llm, (PLACEHOLDER,))
    config = WeftConfig(
        text_config=text,
        vision=section,
        dialect=DialectSection(name="minigpt_v2"),
        image_token_id=tokenizer.token_to_id(PLACEHOLDER),
    )
    notes = []
    if heads is None and section.config["hidden_size"] != 1408:
        count, width = section.config["num_attention_heads"], section.config["hidden_size"]
        notes.append(
            f"{vision} does not say how many attention heads its tower has; {count} are taken for its width of {width} "
            f"(--vision-heads says otherwise)"
        )
    # Greedy decoding is what the published figures were made with (eval_scripts); the demo samples.
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "max_new_tokens": 500, "do_sample": False}
    return write_folder(
        out,
        config,
        outputs,
        inputs=(tower, language, trained),
        dtype=stored_dtype(dtype, language),
        tokenizer=tokenizer,
        names={"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "</s>"},
        generation=generation,
        notes=notes,
        adapter=(lambda folder: write_lora(folder, lora)) if keep_adapter else None,
        force=force,
        progress=progress,
    )


def _training_settings(extra: dict[str, Any]) -> dict[str, Any]:
    """`image_size` and `lora_alpha` of the training configuration that the checkpoint carries, where it has them."""
    config = extra.get("config")
    model = config.get("model") if isinstance(config, dict) else None
    model = model if isinstance(model, dict) else {}
    kinds: dict[str, Any] = {"image_size": int, "lora_alpha": (int, float)}
    return {key: model[key] for key, kind in kinds.items() if isinstance(model.get(key), kind)}


def _lora(claims: Claims, settings: dict[str, Any], alpha: float | None, layers: int) -> Lora:
    """The LoRA pairs in the naming of peft 0.2 (`lora_A.weight`) or a later one (`lora_A.default.weight`).

    Published for `q_proj` and `v_proj`; whatever one layer has, every layer must have.
    """
    named = re.compile(re.escape(LLAMA) + r"(.+)\.lora_A\.(default\.)?weight")
    shapes = claims.tensors.shapes
    found = {m[1] + ".weight": name for name in shapes if (m := named.fullmatch(name))}
    if not found:
        raise CheckpointError(f"{claims.tensors.label}: holds no LoRA tensors ({LLAMA}...lora_A.weight)")
    ranks = {shapes[name][0] for name in found.values()}
    if len(ranks) > 1:
        raise CheckpointError(f"{claims.tensors.label}: LoRA ranks differ: {sorted(ranks)}")
    rank = ranks.pop()
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for weight, name in found.items():
        other = name.replace(".lora_A.", ".lora_B.")
        claims.need(name, shapes[name])
        if other in shapes:
            claims.need(other, (shapes[other][0], rank))
            pairs[weight] = (claims.tensors[name], claims.tensors[other])
        else:
            claims.missing.append(other)
    modules = {re.sub(r"^model\.layers\.\d+\.", "", weight) for weight in found}
    wanted = {f"model.layers.{n}.{module}" for n in range(layers) for module in modules}
    claims.missing += [f"LoRA tensors of {weight}" for weight in sorted(wanted - set(found))]
    # MiniGPTBase.__init__: lora_r=64, lora_alpha=16, so the published scale is 0.25.
    return Lora(pairs, float(alpha or settings.get("lora_alpha", 16)) / rank)


def vision_heads(width: int) -> int:
    """The number of attention heads of an EVA tower, which its weights do not show.

    Heads are 88 wide in the released code (`num_heads=1408//88`). Widths that 88 does not divide are not published;
    their heads are taken as 16 wide, or as near to it as divides the width evenly.
    """
    if width % 88 == 0:
        return width // 88
    divisors = [n for n in range(1, width + 1) if width % n == 0]
    return min(divisors, key=lambda n: (abs(width / n - 16), n))


def _tower(claims: Claims, side: int | None, heads: int | None) -> tuple[VisionSection, list[Output]]:
    """EVA's tensors under the names of `transformers`' Blip2VisionModel, which is the same tower."""
    t = claims.tensors
    width, grid, patch, inner = _tower_sizes(t)
    whole = any(name in t for name in ("norm.weight", "head.weight", "fc_norm.weight"))
    blocks = 1 + max(int(m[1]) for name in t.shapes if (m := re.match(r"blocks\.(\d+)\.", name)))
    layers = blocks - 1 if whole else blocks
    if width == 1408:
        layers = min(39, blocks)
    if layers < 1:
        raise CheckpointError(f"{t.label}: holds {blocks} block and a final norm; the last block is never used")
    heads = heads or vision_heads(width)
    if width % heads:
        raise CheckpointError(f"{t.label}: the width {width} is not a multiple of {heads} heads")
    side = side or 2 * grid * patch
    if side % patch:
        raise CheckpointError(f"{t.label}: an image side of {side} is not a multiple of the patch size {patch}")

    outputs = []

    def take(name: str, shape: tuple[int, ...], to: str) -> None:
        if claims.need(name, shape) in t:
            outputs.append(copy(t, name, f"vision.tower.{to}"))

    take("cls_token", (1, 1, width), "embeddings.class_embedding")
    take("patch_embed.proj.weight", (width, 3, patch, patch), "embeddings.patch_embedding.weight")
    take("patch_embed.proj.bias", (width,), "embeddings.patch_embedding.bias")
    claims.need("pos_embed", (1, 1 + grid * grid, width))
    new = side // patch
    positions = Output(
        "vision.tower.embeddings.position_embedding",
        (1, 1 + new * new, width),
        lambda: interpolate_positions(t["pos_embed"], new),
    )
    outputs.append(positions)
    for layer in range(layers):
        at, to = f"blocks.{layer}.", f"encoder.layers.{layer}."
        for norm, renamed in (("norm1", "layer_norm1"), ("norm2", "layer_norm2")):
            take(f"{at}{norm}.weight", (width,), f"{to}{renamed}.weight")
            take(f"{at}{norm}.bias", (width,), f"{to}{renamed}.bias")
        take(f"{at}attn.qkv.weight", (3 * width, width), f"{to}self_attn.qkv.weight")
        q, v = claims.need(f"{at}attn.q_bias", (width,)), claims.need(f"{at}attn.v_bias", (width,))
        outputs.append(Output(f"vision.tower.{to}self_attn.qkv.bias", (3 * width,), _qkv_bias(t, q, v)))
        take(f"{at}attn.proj.weight", (width, width), f"{to}self_attn.projection.weight")
        take(f"{at}attn.proj.bias", (width,), f"{to}self_attn.projection.bias")
        take(f"{at}mlp.fc1.weight", (inner, width), f"{to}mlp.fc1.weight")
        take(f"{at}mlp.fc1.bias", (inner,), f"{to}mlp.fc1.bias")
        take(f"{at}mlp.fc2.weight", (width, inner), f"{to}mlp.fc2.weight")
        take(f"{at}mlp.fc2.bias", (width,), f"{to}mlp.fc2.bias")
    claims.surplus(r"(?:norm|fc_norm|head)\.(?:weight|bias)", *(rf"blocks\.{n}\..+" for n in range(layers, blocks)))
    claims.settle()

    tower = {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": side,
        "patch_size": patch,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
    }
    section = VisionSection(
        kind="eva",
        config=tower,
        size=(side, side),
        resample="bicubic",
        final_norm=False,
        extra_norm=1e-5,
        drop_cls=True,
        connector=Connector(kind="linear", merge=4, bias=True),
    )
    return section, outputs


def _tower_sizes(t: Tensors) -> tuple[int, int, int, int]:
    """Width, side of the position grid, patch size and width of the MLP, from the tensors' shapes."""
    anchors = {"pos_embed": 3, "patch_embed.proj.weight": 4, "blocks.0.mlp.fc1.weight": 2}
    for name, dimensions in anchors.items():
        if len(t.shapes.get(name, ())) != dimensions:
            got = t.shapes.get(name, "nothing")
            raise CheckpointError(f"{t.label}: not an EVA tower: expected {name} of {dimensions} dimensions, got {got}")
    _, count, width = t.shapes["pos_embed"]
    grid = round((count - 1) ** 0.5)
    if grid * grid != count - 1:
        raise CheckpointError(f"{t.label}: pos_embed has {count} rows, not a square and one")
    return width, grid, t.shapes["patch_embed.proj.weight"][-1], t.shapes["blocks.0.mlp.fc1.weight"][0]


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


def _qkv_bias(t: Tensors, q: str, v: str) -> Callable[[], Tensor]:
    """EVA's keys have no bias: one vector of query bias, zeros, value bias."""
    return lambda: torch.cat([t[q], torch.zeros_like(t[q]), t[v]])


def _projector(claims: Claims, section: VisionSection, width: int) -> list[Output]:
    """`llama_proj` and `ln_vision`. The latter is frozen at its start (weight 1, bias 0) unless the file holds it."""
    features = section.config["hidden_size"]
    merged = features * section.connector.merge
    weight = claims.need("llama_proj.weight", (width, merged))
    bias = claims.need("llama_proj.bias", (width,))
    outputs = [
        Output("vision_connector.proj.weight", (width, merged), lambda: claims.tensors[weight]),
        Output("vision_connector.proj.bias", (width,), lambda: claims.tensors[bias]),
    ]
    start = {"weight": torch.ones(features), "bias": torch.zeros(features)}
    for part, value in start.items():
        name = f"ln_vision.{part}"
        if name in claims.tensors:
            outputs.append(copy(claims.tensors, claims.need(name, (features,)), f"vision.extra_norm.{part}"))
        else:
            outputs.append(Output(f"vision.extra_norm.{part}", (features,), lambda value=value: value))  # type: ignore[misc]
    return outputs
