"""Small configurations that the tests of models share."""

from __future__ import annotations

from typing import Any

import torch

from weft.models.config import AudioSection, Connector, VisionSection, WeftConfig
from weft.models.encoders import image_kind, sound_kind
from weft.models.modeling import WeftForConditionalGeneration

IMAGE, AUDIO, START, END, VOCABULARY = 300, 301, 302, 303, 320

TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "initializer_range": 0.2,  # large enough that attention, not the mean, decides the outputs
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 5},
    "qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen3": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "gemma": {},
    "gemma2": {"sliding_window": 5, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0},
    "gemma3_text": {
        "sliding_window": 5,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "weft_qwen": {"num_key_value_heads": 4, "seq_length": 8},
}

VISION: dict[str, dict[str, Any]] = {
    kind: {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 24,
        "patch_size": 8,
    }
    for kind in ("clip", "siglip", "dinov2", "eva", "internvit")
}
VISION["backbone"] = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1]}
VISION["conv"] = {"channels": [8, 12, 16], "layers": 1, "heads": 2}

WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 24,
    "num_mel_bins": 8,
    "max_source_positions": 50,
    "max_target_positions": 12,
    "vocab_size": 20,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}
WAV2VEC2 = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8, 8],
    "conv_kernel": [10, 3],
    "conv_stride": [5, 4],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 2,
}


def text(family: str = "llama", **changes: Any) -> dict[str, Any]:
    return {"model_type": family, **TEXT, **FAMILIES[family], **changes}


def vision(kind: str = "conv", connector: dict[str, Any] | None = None, **fields: Any) -> VisionSection:
    return VisionSection(
        kind=kind, config=VISION[kind], size=fields.pop("size", (24, 24)), connector=connector or {}, **fields
    )


def audio(kind: str = "whisper", connector: dict[str, Any] | None = None, **fields: Any) -> AudioSection:
    config = {**(WAV2VEC2 if kind == "wav2vec2" else WHISPER), **fields.pop("config", {})}
    if kind == "whisper_decoder":
        fields.setdefault("decoder_tokens", 6)
    return AudioSection(kind=kind, config=config, window_seconds=1.0, connector=connector or {}, **fields)


def connector(**fields: Any) -> Connector:
    return Connector(**fields)


def model(
    family: str = "llama",
    vision: VisionSection | None = None,
    audio: AudioSection | None = None,
    seed: int = 0,
    **changes: Any,
) -> WeftForConditionalGeneration:
    """A tiny model in float32 with random weights, in eval mode."""
    torch.manual_seed(seed)
    boundaries = audio is not None and audio.boundaries
    config = WeftConfig(
        text_config=text(family, **changes),
        vision=vision,
        audio=audio,
        image_token_id=IMAGE if vision else None,
        audio_token_id=AUDIO if audio else None,
        audio_start_id=START if boundaries else None,
        audio_end_id=END if boundaries else None,
    )
    return WeftForConditionalGeneration(config).eval()


def words(n: int, seed: int = 0) -> list[int]:
    return torch.randint(0, 290, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


def image_ids(vision: VisionSection) -> list[int]:
    return [IMAGE] * image_kind(vision).view_tokens


def clip(audio: AudioSection, n_samples: int, seed: int = 0) -> tuple[torch.Tensor, list[int], list[int]]:
    """Features of one clip [T, M] or [S], their length, and the ids of its span; the clip fits one window."""
    (window,) = sound_kind(audio).windows(n_samples)
    generator = torch.Generator().manual_seed(seed)
    shape = (window.frames,) if audio.kind == "wav2vec2" else (window.frames, WHISPER["num_mel_bins"])
    span = [AUDIO] * window.tokens
    return torch.randn(shape, generator=generator), [window.frames], [START, *span, END] if audio.boundaries else span


def batch(rows: list[list[int]], left: bool = False) -> dict[str, torch.Tensor]:
    """Rows of ids of different lengths, padded."""
    width = max(map(len, rows))
    ids = [[0] * (width - len(r)) + r if left else r + [0] * (width - len(r)) for r in rows]
    mask = [[0] * (width - len(r)) + [1] * len(r) if left else [1] * len(r) + [0] * (width - len(r)) for r in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def pad(features: list[torch.Tensor], value: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of clips as a batch [N, T, ...], what is beyond a clip filled with ``value``, and lengths [N]."""
    longest = max(map(len, features))
    out = torch.full((len(features), longest, *features[0].shape[1:]), value)
    for row, feature in zip(out, features, strict=True):
        row[: len(feature)] = feature
    return out, torch.tensor([len(f) for f in features])
