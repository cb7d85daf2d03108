"""A weft model in the layout of `transformers`' `Qwen2AudioForConditionalGeneration`: an averaging Whisper, one linear
layer, a language model.

Qwen-Audio itself fits, with two things to know. Its learned start and end of a clip become the rows of those tokens.
Its rules for long text (dynamic NTK, log-n) have no place, so the two are equal up to the length it was trained at.

Qwen2-Audio feeds a clip with silence up to the window and cuts the features off afterwards, as weft's kind
"qwen2_audio" does; "qwen_audio" feeds the clip alone: clips of a whole window are equal, in shorter ones the last
feature is made of a frame of silence more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, Qwen2Config

from weft.dialects.qwen2_audio import Qwen2Audio
from weft.dialects.qwen_audio import QwenAudio
from weft.formats.checkpoints import Output
from weft.formats.layouts import TABLES, Exporting, Layout, first_misfit, grown, rows_needed, template, with_template
from weft.formats.qwen2_audio import RULES
from weft.models.config import AudioSection, WeftQwenConfig

(TABLE, HEAD), BOUNDARIES = TABLES, "audio.boundaries.weight"


def qwen2_audio_layout(model: Exporting) -> Layout:
    """The model in Qwen2-Audio's class, for `export`. Raises `ExportError` where it does not fit."""
    audio = _fitting(model)
    notes: list[str] = []
    text = _text(model, notes)
    tied = text["tie_word_embeddings"]
    text |= {"vocab_size": rows_needed(model), "tie_word_embeddings": False, "architectures": None}
    bands, positions = audio.config.get("num_mel_bins", 80), audio.config.get("max_source_positions", 1500)
    tower = {key: value for key, value in audio.config.items() if key.startswith(("encoder_", "activation", "d_model"))}
    config: Any = Qwen2AudioConfig(
        audio_config=tower
        | {"model_type": "qwen2_audio_encoder", "num_mel_bins": bands, "max_source_positions": positions},
        text_config=text,
        audio_token_index=model.config.audio_token_id or 0,
    )
    made, folded = {}, set()
    shape = (config.text_config.vocab_size, config.text_config.hidden_size)
    if tied:  # the class has a head of its own
        made[HEAD] = Output(HEAD, shape, lambda: grown(model.weights, shape[0])[TABLE])
    if audio.boundaries:
        folded.add(BOUNDARIES)
        made[TABLE] = Output(TABLE, shape, _with_boundaries(model, shape[0]))
    texts = _processor_files(model, audio, bands, notes) if model.processor is not None else {}
    return Layout(Qwen2AudioForConditionalGeneration, config, RULES, made, folded, texts, notes)


def _fitting(model: Exporting) -> AudioSection:
    """The audio section, where all of the model has its place in Qwen2-Audio's class."""
    config = model.config
    if config.audio_section is None:
        first_misfit(model, "Qwen2-Audio", {"it has no audio encoder": False})
    audio: Any = config.audio_section
    connector, seconds = audio.connector, audio.window_seconds
    first_misfit(
        model,
        "Qwen2-Audio",
        {
            "its dialect has no place for sound": config.audio_token_id is not None,
            "it also has an image encoder": config.vision is None,
            f"its audio encoder is of the kind {audio.kind}, and Qwen2-Audio's averages pairs of features before its "
            f"last norm (qwen2_audio, qwen_audio)": audio.kind in ("qwen_audio", "qwen2_audio"),
            f"its audio connector is of the kind {connector.kind}, and Qwen2-Audio's is linear": connector.kind
            == "linear",
            f"its connector merges {connector.group} features into one token": connector.group == 1,
            "its connector has no bias": connector.bias,
            "its connector adds the tokens of places": not connector.places,
            f"its connector scales by {connector.scale:g}": connector.scale == 1,
            f"its window of {seconds:g} s is not that of its encoder's positions, in whole seconds": seconds
            == audio.config.get("max_source_positions", 1500) / 50
            and seconds == int(seconds),
        },
    )
    return audio


def _text(model: Exporting, notes: list[str]) -> dict[str, Any]:
    """The language model's configuration; Qwen-7B as the Qwen2 that it is for short text."""
    text = model.config.text_config
    if not isinstance(text, WeftQwenConfig):
        return text.to_dict()
    if text.use_dynamic_ntk or text.use_logn_attn:
        notes.append(
            f"equal up to {text.seq_length} tokens: beyond, this model stretches its positions (dynamic NTK, log-n), "
            f"which Qwen2-Audio's class does not"
        )
    keep = set(Qwen2Config().to_dict()) | {"head_dim"}
    kept = {key: value for key, value in text.to_dict().items() if key in keep}
    return kept | {"model_type": "qwen2", "max_position_embeddings": text.seq_length}


def _with_boundaries(model: Exporting, rows: int) -> Callable[[], Tensor]:
    """The embedding table with a clip's learned start and end in the rows of their tokens, which weft replaces."""

    def make() -> Tensor:
        table_VW = grown(model.weights, rows)[TABLE]
        ends = torch.tensor([model.config.audio_start_id, model.config.audio_end_id])
        return table_VW.index_copy(0, ends, model.weights[BOUNDARIES].to(table_VW.dtype))

    return make


def _processor_files(model: Exporting, audio: AudioSection, bands: int, notes: list[str]) -> dict[str, Any]:
    token, start, end = model.processor.dialect.slot_tokens("audio")
    sound = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "Qwen2AudioProcessor",
        "feature_size": bands,
        "sampling_rate": audio.sample_rate,
        "chunk_length": int(audio.window_seconds),
        "hop_length": 160,
        "n_fft": 400,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
    }
    names = {"audio_token": token, "audio_bos_token": start, "audio_eos_token": end}
    processor = {"processor_class": "Qwen2AudioProcessor", **names}
    files: dict[str, Any] = {"preprocessor_config.json": sound, "processor_config.json": processor}
    dialect, written = model.processor.dialect, model.processor.chat_template
    if isinstance(dialect, QwenAudio | Qwen2Audio):
        said = dialect.switches.system
        system = "''" if said is None else repr(f"<|im_start|>system\n{said}<|im_end|>\n")
        space = " " if getattr(dialect.switches, "space_after_number", True) else ""
        written = template("qwen_audio", SYSTEM=system, SPACE=space, CLIP=f"{start}{token}{end}")
    return with_template(files, written, model, notes)
