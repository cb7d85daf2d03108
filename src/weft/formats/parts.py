"""Pretrained parts that packages hold in layouts of other programs, as ordinary folders of `transformers`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from weft.files import write_json
from weft.formats.checkpoints import Shape, Tensors, read_file, write_weights
from weft.formats.mapping import How, Input, Rule, Stacked, read, rules_beside
from weft.formats.weight_files import read_ctranslate2, read_gguf
from weft.models import doors
from weft.models.encoders.efficientnet import MEAN, STD, EfficientNetLiteConfig, EfficientNetLiteForImageClassification


class Turned(How):
    """Rows of a head, which rotary positions take as two halves, stand in turn in GGUF: one of each half."""

    def __init__(self, width: int) -> None:
        self.width = width  # of a head

    def read(self, theirs: Sequence[Tensor], ours: Sequence[Shape]) -> Sequence[Tensor]:
        rows_HDI = theirs[0].reshape(-1, self.width // 2, 2, ours[0][1])
        return [rows_HDI.transpose(1, 2).reshape(ours[0])]


def both(theirs: str, ours: str, names: tuple[str, str] = ("weight", "bias")) -> list[Rule]:
    return [Rule(f"{theirs}/{t}", f"{ours}.{o}") for t, o in zip(names, ("weight", "bias"), strict=True)]


def norm(theirs: str, ours: str) -> list[Rule]:
    return both(f"{theirs}/layer_norm", ours, ("gamma", "beta"))


def _whisper() -> list[Rule]:
    rules = [
        *both("encoder/conv1", "model.encoder.conv1"),
        *both("encoder/conv2", "model.encoder.conv2"),
        Rule("decoder/embeddings/weight", "model.decoder.embed_tokens.weight"),
    ]
    for side in ("encoder", "decoder"):
        theirs, ours = f"{side}/layer_#", f"model.{side}.layers.#"
        rules += [
            *norm(side, f"model.{side}.layer_norm"),
            Rule(f"{side}/position_encodings/encodings", f"model.{side}.embed_positions.weight"),
            *_attention(f"{theirs}/self_attention", f"{ours}.self_attn", ("linear_0", "linear_1")),
            *norm(f"{theirs}/self_attention", f"{ours}.self_attn_layer_norm"),
            *both(f"{theirs}/ffn/linear_0", f"{ours}.fc1"),
            *both(f"{theirs}/ffn/linear_1", f"{ours}.fc2"),
            *norm(f"{theirs}/ffn", f"{ours}.final_layer_norm"),
        ]
    theirs, ours = "decoder/layer_#/attention", "model.decoder.layers.#.encoder_attn"
    rules += both(f"{theirs}/linear_0", f"{ours}.q_proj")
    rules += _stacked(f"{theirs}/linear_1", ours, ("k_proj", "v_proj"))
    rules += both(f"{theirs}/linear_2", f"{ours}.out_proj")
    return rules + norm(theirs, f"{ours}_layer_norm")


def _attention(theirs: str, ours: str, names: tuple[str, str]) -> list[Rule]:
    inside, out = names
    return [
        *_stacked(f"{theirs}/{inside}", ours, ("q_proj", "k_proj", "v_proj")),
        *both(f"{theirs}/{out}", f"{ours}.out_proj"),
    ]


class WithoutKeys(Stacked):
    """Biases of queries, keys and values in one, of which Whisper's keys have none: theirs are zeros."""

    def shapes(self, ours: Sequence[Shape]) -> Sequence[Shape]:
        return [((len(ours) + 1) * ours[0][0],)]

    def read(self, theirs: Sequence[Tensor], ours: Sequence[Shape]) -> Sequence[Tensor]:
        each = theirs[0].split(ours[0][0])
        return [each[0], each[-1]] if len(ours) > 1 else [each[-1]]


def _stacked(theirs: str, ours: str, parts: tuple[str, ...]) -> list[Rule]:
    biased = tuple(f"{ours}.{part}.bias" for part in parts if part != "k_proj")
    return [
        Rule(f"{theirs}/weight", tuple(f"{ours}.{part}.weight" for part in parts), Stacked()),
        Rule(f"{theirs}/bias", biased, WithoutKeys()),
    ]


WHISPER = _whisper()


def _norms(theirs: str, ours: str) -> list[Rule]:
    held = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return [Rule(f"{theirs}.{name}", f"{ours}.norm.{name}") for name in held]


def _efficientnet(depths: Sequence[int]) -> list[Rule]:
    def conv(theirs: str, norm: str, ours: str) -> list[Rule]:
        return [Rule(f"{theirs}.weight", f"{ours}.weight"), *_norms(norm, ours)]

    rules = [*conv("_conv_stem", "_bn0", "backbone.stem"), *conv("_conv_head", "_bn1", "head")]
    rules += [Rule(f"_fc.{name}", f"classifier.{name}") for name in ("weight", "bias")]
    places = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    for number, (stage, block) in enumerate(places):
        theirs, ours = f"_blocks.{number}", f"backbone.stages.{stage}.{block}"
        names = (("_expand_conv", "_bn0", "expand"),) if stage else ()  # the first group widens nothing
        for one, other, own in (*names, ("_depthwise_conv", "_bn1", "depthwise"), ("_project_conv", "_bn2", "project")):
            rules += conv(f"{theirs}.{one}", f"{theirs}.{other}", f"{ours}.{own}")
    return rules


def _llama(width: int) -> list[Rule]:
    ours = "model.layers.#.self_attn.{}_proj.weight"
    turned = [Rule(f"blk.#.attn_{name}.weight", ours.format(name), Turned(width)) for name in "qk"]
    return [*rules_beside(__file__)["llama"], *turned]


def _write(
    make: Any, config: PretrainedConfig, tensors: Tensors, rules: Sequence[Rule], out: Path, dtype: torch.dtype
) -> None:
    """Writes weights and configuration of the class ``make`` for ``config``; every tensor has its place."""
    with torch.device("meta"):
        model = make(config)
    tied = getattr(model, "all_tied_weights_keys", {})
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items() if name not in tied}
    write_weights(read(wanted, [Input(tensors, rules)]), out, dtype)
    config.architectures, config.dtype = [make.__name__], dtype
    config.save_pretrained(out)


def language_from_gguf(file: Path, out: Path, dtype: torch.dtype) -> None:
    """A Llama's weights, configuration and tokenizer."""
    config = doors.load(AutoConfig, file.parent, "its configuration could not be read", gguf_file=file.name)
    _write(LlamaForCausalLM, config, read_gguf(file), _llama(config.head_dim), out, dtype)
    tokenizer = doors.load(AutoTokenizer, file.parent, "its tokenizer could not be read", gguf_file=file.name)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(
        config.eos_token_id
    )  # up to transformers 5.17 it is bos_token
    tokenizer.save_pretrained(out)
    ends = {"eos_token_id": config.eos_token_id, "pad_token_id": config.pad_token_id}
    GenerationConfig(bos_token_id=config.bos_token_id, **ends).save_pretrained(out)


def whisper_from_ctranslate2(folder: Path, out: Path, config: WhisperConfig, dtype: torch.dtype) -> None:
    """A Whisper of ``config`` from the folder of its model.bin and tokenizer.json."""
    _write(WhisperForConditionalGeneration, config, read_ctranslate2(folder / "model.bin"), WHISPER, out, dtype)
    WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(out)
    shutil.copyfile(folder / "tokenizer.json", out / "tokenizer.json")


def efficientnet_from_pickle(file: Path, out: Path, config: EfficientNetLiteConfig, dtype: torch.dtype) -> None:
    """An EfficientNet-Lite with its head, as PyTorch reimplementations of it name their weights."""
    rules = _efficientnet(config.depths)
    _write(EfficientNetLiteForImageClassification, config, read_file(file), rules, out, dtype)
    before = {"size": {"height": 224, "width": 224}, "image_mean": MEAN, "image_std": STD, "resample": 3}
    before["image_processor_type"] = "ViTImageProcessor"
    write_json(out / "preprocessor_config.json", before, 2)
