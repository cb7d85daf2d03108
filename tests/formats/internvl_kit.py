"""A small InternVL of `transformers` with random weights, and its processor, as its conversions are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from weft.models.bytes_tokenizer import bytes_tokenizer

# chat_template.jinja of OpenGVLab/InternVL3-1B-hf
CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n'}}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "{{ '<IMG_CONTEXT>\\n' }}{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{{'<|im_end|>\\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\\n' }}{% endif %}"
)
SIDE = 28
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<ref>", "</ref>"]


class Processor(InternVLProcessor):
    """Without moving pictures, whose processor needs torchvision."""

    def __init__(self, image_processor: Any, tokenizer: Any, image_seq_length: int, chat_template: str) -> None:
        super().__init__(image_processor, tokenizer, None, image_seq_length, chat_template)


class InternVL:
    def __init__(self, folder: Path, *, tied: bool = False, pooled: bool = True, seed: int = 0, **vision: Any) -> None:
        self.folder = folder
        tokenizer = bytes_tokenizer()
        tokenizer.add_tokens([*TOKENS, "<box>", "</box>", "<video>"], special_tokens=True)
        tokenizer.chat_template = None
        tokenizer.save_pretrained(folder)
        names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
        tokenizer = AutoTokenizer.from_pretrained(
            folder, extra_special_tokens={**names, "video_token": "<video>"}, pad_token="<|endoftext|>"
        )
        config = InternVLConfig(
            vision_config={
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 40,
                "image_size": SIDE,
                "patch_size": 7,
                "attention_bias": True,
                "use_mean_pooling": pooled,
                **vision,
            },
            text_config={
                "model_type": "qwen2",
                "vocab_size": len(tokenizer) + 5,
                "hidden_size": 48,
                "intermediate_size": 72,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 2048,
                "tie_word_embeddings": tied,
            },
            image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
            image_seq_length=4,
            tie_word_embeddings=tied,
        )
        self.model: Any = InternVLForConditionalGeneration(config).eval()
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                spread = 0.1 if value.ndim == 1 else value[0].numel() ** -0.5
                value.copy_(torch.randn(value.shape, generator=draw) * spread + ("norm" in name and "weight" in name))
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        images = GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_mean=mean, image_std=std)
        self.processor = Processor(images, tokenizer, 4, CHAT_TEMPLATE)

    def write(self, layout: str = "newer") -> Path:
        """The folder, with the names of the first conversions where ``layout`` is "first"."""
        self.model.save_pretrained(self.folder)
        self.processor.save_pretrained(self.folder)
        if layout == "first":
            new = {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head."}
            weights = {}
            for name, value in self.model.state_dict().items():
                old = next((prefix for prefix in [*new, "model."] if name.startswith(prefix)), "")
                weights[new.get(old, "") + name.removeprefix(old)] = value.clone()
            save_file(weights, self.folder / "model.safetensors")
        return self.folder
