"""The configuration of a composed model: an ordinary `transformers` configuration with three small sections of ours.

``text_config`` is the language model's own configuration. ``vision`` and ``audio`` say which encoder, what it eats and
which of its features are used; each has a connector into the language model's space. ``dialect`` names the prompt
format and its switches. Sections are frozen pydantic models; on disk they are plain JSON inside ``config.json``.

Legend for shape suffixes: B rows, L tokens, N items, C channels, H height, W width, T time or patches, D features,
M mel bands, V vocabulary.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

from transformers import AutoConfig, PretrainedConfig, Qwen2Config

from weft.frozen import Frozen
from weft.models.sections import AudioSection, Connector, DialectSection, VisionSection

__all__ = ["AudioSection", "Connector", "DialectSection", "VisionSection", "WeftConfig", "WeftQwenConfig"]


class WeftQwenConfig(Qwen2Config):
    """Qwen-7B as a Qwen2 configuration, and when its rules for long text apply (`qwen_text`)."""

    model_type = "weft_qwen"

    num_key_value_heads: int | None = None  # as many as heads: the first Qwen groups none
    head_dim: int | None = None
    seq_length: int = 2048  # the length it was trained at
    use_dynamic_ntk: bool = True
    use_logn_attn: bool = True
    padded_positions: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        import weft.models.qwen_text  # noqa: F401  by which transformers knows the model of this configuration

        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        super().__post_init__(**kwargs)


class WeftConfig(PretrainedConfig):
    """Configuration of `WeftForConditionalGeneration`.

    ``image_token_id`` and ``audio_token_id`` are the ids repeated over a media span. ``audio_start_id`` and
    ``audio_end_id`` are set where the span's boundary embeddings come from the encoder (``audio.boundaries``).
    ``image_place_ids`` and ``audio_place_ids`` are set where a connector has ``places``: (first id, count) of the
    tokens that divide a picture's side or a window's seconds evenly, then of those that divide each such step again.
    ``lora_for_media``: LoRA of the language model, and rows that train beside it, apply to a conversation from its
    first picture or sound on, and stay beside the weights (`models.gate`).
    """

    model_type = "weft"
    sub_configs = {"text_config": AutoConfig}
    lora_for_media = False  # written where it is true
    auto_map: ClassVar[dict[str, str]] = {}  # no code comes with a folder; TRL asks, and takes an Auto class

    def __init__(
        self,
        text_config: dict[str, Any] | PretrainedConfig | None = None,
        vision: dict[str, Any] | VisionSection | None = None,
        audio: dict[str, Any] | AudioSection | None = None,
        dialect: dict[str, Any] | DialectSection | None = None,
        image_token_id: int | None = None,
        audio_token_id: int | None = None,
        audio_start_id: int | None = None,
        audio_end_id: int | None = None,
        image_place_ids: list[tuple[int, int]] | None = None,
        audio_place_ids: list[tuple[int, int]] | None = None,
        **kwargs: Any,
    ) -> None:
        import weft.models.modeling  # noqa: F401  by which transformers knows the model of this configuration

        if isinstance(text_config, dict):
            text_config = dict(text_config)
            text_config = AutoConfig.for_model(text_config.pop("model_type", "llama"), **text_config)
        text: Any = text_config if text_config is not None else AutoConfig.for_model("llama")
        self.text_config = text
        self.vision = _plain(VisionSection, vision)
        self.audio = _plain(AudioSection, audio)
        self.dialect = _plain(DialectSection, dialect or DialectSection())
        self.image_token_id, self.audio_token_id = image_token_id, audio_token_id
        self.audio_start_id, self.audio_end_id = audio_start_id, audio_end_id
        self.image_place_ids, self.audio_place_ids = image_place_ids, audio_place_ids
        kwargs.setdefault("tie_word_embeddings", text.tie_word_embeddings)
        attention = text._attn_implementation
        super().__init__(**kwargs)
        # transformers has just set None there too, which would mean no mask at all
        if self._attn_implementation is None:
            text._attn_implementation = attention

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As in transformers; beside it a model card, where there is none, that says what has to be imported."""
        super().save_pretrained(save_directory, *args, **kwargs)
        card = Path(save_directory) / "README.md"
        if not card.exists():
            towers = {"sees": self.vision, "hears": self.audio}
            verbs = [verb for verb, section in towers.items() if section]
            kinds = [section["kind"] for section in towers.values() if section]
            form = Path(__file__).with_name("card.md").read_text("utf-8")
            parts = ", ".join([self.text_config.model_type, *kinds])
            card.write_text(form.format(does=" and ".join([*verbs, "writes"]), parts=parts), encoding="utf-8")

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PretrainedConfig:
        return self.text_config

    @property
    def vision_section(self) -> VisionSection | None:
        return VisionSection.model_validate(self.vision) if self.vision else None

    @property
    def audio_section(self) -> AudioSection | None:
        return AudioSection.model_validate(self.audio) if self.audio else None

    @property
    def vision_config(self) -> Any:
        """The image encoder's own configuration, as many programs look for it; None where there is no encoder."""
        return self._tower_config(self.vision_section, "image_kind")

    @property
    def audio_config(self) -> Any:
        return self._tower_config(self.audio_section, "sound_kind")

    @staticmethod
    def _tower_config(section: Any, kind: str) -> Any:
        from weft.models import encoders  # which are made of the sections here

        return None if section is None else getattr(encoders, kind)(section).config

    @property
    def vocab_size(self) -> int:
        return int(self.text_config.vocab_size)

    @vocab_size.setter
    def vocab_size(self, value: int) -> None:
        self.text_config.vocab_size = value

    @property
    def audio_ids(self) -> tuple[int | None, int | None, int | None]:
        """Ids whose embeddings come from the audio encoder."""
        return self.audio_token_id, self.audio_start_id, self.audio_end_id


def _plain(section: type[Frozen], value: dict[str, Any] | Frozen | None) -> dict[str, Any] | None:
    """A validated section as JSON-ready data (what transformers saves)."""
    if value is None:
        return None
    checked = value if isinstance(value, section) else section.model_validate(value)
    return checked.model_dump(mode="json")


class WeftProcessor:
    """What transformers' list of processors has until it is used: weft's own then takes its place.

    transformers imports its list halfway into its models, which the processor has a use for itself.
    """

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        from weft.models import processing

        return processing.WeftProcessor.from_pretrained(*args, **kwargs)


def list_processor() -> None:
    """Adds it to the list, where transformers has brought that in."""
    auto = sys.modules.get("transformers.models.auto.processing_auto")
    if auto is not None and "weft.models.processing" not in sys.modules:
        auto.AutoProcessor.register(WeftConfig, WeftProcessor, exist_ok=True)


AutoConfig.register(WeftQwenConfig.model_type, WeftQwenConfig, exist_ok=True)
AutoConfig.register(WeftConfig.model_type, WeftConfig, exist_ok=True)
list_processor()
