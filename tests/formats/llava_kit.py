"""A small LLaVA-1.5 of `transformers`' own class with random weights, written in every layout that is published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from published_kits import sentencepiece_model
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from weft.formats.tokenizers import add_specials, save_tokenizer, sentencepiece_tokenizer

# chat_template.json of llava-hf/llava-1.5-7b-hf
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
LAYOUTS = ("converted", "converted, newer names", "released", "released, encoder inside")
SIDE, WIDTH, LAYERS = 28, 48, 3
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 7,
    "projection_dim": 24,
}


class LLaVA:
    """The model, its processor, and `write`, which gives the arguments of `import_llava` for one layout."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        sentencepiece_model(folder / "tokenizer.model")
        tokenizer = sentencepiece_tokenizer(folder / "tokenizer.model")
        self.base = tokenizer.get_vocab_size()
        add_specials(tokenizer, ("<image>", "<pad>"))
        save_tokenizer(tokenizer, folder, bos="<s>", eos="</s>", unk="<unk>", pad="<pad>")
        self.text = {
            "vocab_size": self.base + 6,  # the conversions fill their table up to a round number
            "hidden_size": WIDTH,
            "intermediate_size": 72,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "rms_norm_eps": 1e-5,
        }
        config = LlavaConfig(
            vision_config={"model_type": "clip_vision_model", **TOWER},
            text_config={"model_type": "llama", **self.text},
            image_token_index=self.base,
        )
        self.model: Any = LlavaForConditionalGeneration(config).eval()
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                spread = 0.1 if value.ndim == 1 else value[0].numel() ** -0.5
                value.copy_(torch.randn(value.shape, generator=draw) * spread + ("norm" in name and "weight" in name))
        self.processor = LlavaProcessor(
            CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
            AutoTokenizer.from_pretrained(folder),
            patch_size=7,
            vision_feature_select_strategy="default",
            chat_template=CHAT_TEMPLATE,
            num_additional_image_tokens=1,
        )

    def write(self, layout: str, folder: Path) -> dict[str, Any]:
        folder.mkdir(parents=True)
        weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        if layout.startswith("converted"):
            self.model.config.save_pretrained(folder)
            self.processor.save_pretrained(folder)
            if layout == "converted":  # as published: older names, CLIP with its own prefix
                new = {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head."}
                new |= {"model.vision_tower.": "vision_tower.vision_model.", "model.multi_modal": "multi_modal"}
                weights = renamed(weights, new)
                weights["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
            save_file(weights, folder / "model.safetensors")
            return {"checkpoint": folder}
        new = {"model.language_model.": "model.", "model.multi_modal_projector.linear_1.": "model.mm_projector.0."}
        new |= {"model.multi_modal_projector.linear_2.": "model.mm_projector.2.", "model.vision_tower.": "tower."}
        weights = renamed(weights, new)
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(6)
        tower = {n: weights.pop(n) for n in list(weights) if n.startswith("tower.")}
        clip = folder / "clip"
        clip.mkdir()
        inside = layout.endswith("inside")
        if inside:
            weights |= renamed(tower, {"tower.": "model.vision_tower.vision_tower.vision_model."})
        else:
            whole = renamed(tower, {"tower.": "vision_model."}) | {"logit_scale": torch.ones(1)}
            save_file(whole | {"text_model.final_layer_norm.bias": torch.ones(4)}, clip / "model.safetensors")
        (clip / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": TOWER}))
        config = self.text | {"model_type": "llava_llama", "mm_vision_tower": "openai/clip-vit-large-patch14-336"}
        config |= {"mm_projector_type": "mlp2x_gelu", "mm_hidden_size": 32, "mm_vision_select_layer": -2}
        config |= {"mm_vision_select_feature": "patch", "image_aspect_ratio": "pad", "mm_use_im_start_end": False}
        (folder / "config.json").write_text(json.dumps(config))
        torch.save(weights, folder / "pytorch_model.bin")
        (folder / "tokenizer.model").write_bytes((self.folder / "tokenizer.model").read_bytes())
        return {"checkpoint": folder, "vision": clip}


def renamed(weights: dict[str, Tensor], new: dict[str, str]) -> dict[str, Tensor]:
    out = {}
    for name, value in weights.items():
        old = next((prefix for prefix in new if name.startswith(prefix)), "")
        out[new.get(old, "") + name.removeprefix(old)] = value
    return out
