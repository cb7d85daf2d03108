"""What transformers' own test classes need to know of weft's model and processor; `__main__` runs it among them."""

from __future__ import annotations

import tempfile
import unittest
from typing import Any

import torch
from tests.generation.test_utils import GenerationTesterMixin
from tests.test_modeling_common import ModelTesterMixin
from tests.test_processing_common import ProcessorTesterMixin

from weft.models.compose import compose
from weft.models.config import AudioSection, VisionSection, WeftConfig
from weft.models.encoders import image_kind, sound_kind
from weft.models.modeling import WeftForConditionalGeneration
from weft.models.processing import WeftProcessor

IMAGE, AUDIO, VOCABULARY = 3, 4, 99  # low ids: some tests cut the table off at its end
TEXT = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = VisionSection(
    kind="siglip",
    config={
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 24,
        "patch_size": 8,
    },
    size=(24, 24),
)
WHISPER = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "num_mel_bins": 8,
    "max_source_positions": 20,
}
SOUND = AudioSection(kind="whisper", config=WHISPER, window_seconds=0.4, connector={"merge": 4})
FRAMES = 40


class WeftModelTester:
    """A row of the batch: a clip, a picture and words."""

    is_training = True
    batch_size = 7  # some tests fill up to it with random ids, placeholders among them
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4
    image_token_id, audio_token_id = IMAGE, AUDIO

    def __init__(self, parent: unittest.TestCase) -> None:
        self.parent = parent
        self.image_tokens = image_kind(VISION).view_tokens
        self.audio_tokens = sound_kind(SOUND).window(0, FRAMES * 160).tokens
        self.seq_length = self.image_tokens + self.audio_tokens + 12
        self.encoder_seq_length = self.seq_length

    def get_config(self) -> WeftConfig:
        return WeftConfig(
            text_config=dict(TEXT), vision=VISION, audio=SOUND, image_token_id=IMAGE, audio_token_id=AUDIO
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[WeftConfig, dict[str, torch.Tensor]]:
        words = torch.randint(5, 80, (self.batch_size, 12))
        media = torch.tensor([AUDIO] * self.audio_tokens + [IMAGE] * self.image_tokens).expand(self.batch_size, -1)
        ids = torch.cat([words[:, :4], media, words[:, 4:]], 1)
        return self.get_config(), {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": torch.rand(self.batch_size, 3, 24, 24),
            "input_features": torch.rand(self.batch_size, FRAMES, 8),
            "feature_lengths": torch.full((self.batch_size,), FRAMES),
        }


class WeftModelTest(ModelTesterMixin, GenerationTesterMixin, unittest.TestCase):
    all_model_classes = (WeftForConditionalGeneration,)
    _is_composite = True
    model_split_percents = [0.5, 0.8, 0.9]
    additional_model_inputs = ["pixel_values", "input_features", "feature_lengths"]

    def setUp(self) -> None:
        self.model_tester = WeftModelTester(self)

    def _prepare_for_class(self, inputs_dict: Any, model_class: Any, return_labels: bool = False) -> Any:
        """Labels are given by lists of transformers' own classes, which no other can enter."""
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels:
            inputs["labels"] = torch.zeros_like(inputs_dict["input_ids"])
        return inputs


class WeftProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = WeftProcessor

    @classmethod
    def setUpClass(cls) -> None:
        vision = {"kind": "siglip", "config": dict(VISION.config), "options": {"size": (24, 24)}}
        audio = {"kind": "whisper", "config": dict(WHISPER), "options": {"window_seconds": 0.4}}
        language: Any = {"config": {name: value for name, value in TEXT.items() if "token_id" not in name}}
        language["config"].pop("vocab_size")
        processor = compose(vision=vision, audio=audio, language=language, seed=0)[1]
        cls.tmpdirname, cls.full_tmpdirname, cls.config = tempfile.mkdtemp(), None, processor.to_dict()["config"]
        cls._setup_test_attributes(processor)
        processor.save_pretrained(cls.tmpdirname)

    @classmethod
    def prepare_processor_dict(cls) -> dict[str, Any]:  # type: ignore[override]
        return {"config": cls.config}
