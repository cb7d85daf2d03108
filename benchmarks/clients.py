"""Programs that know nothing of weft, on a tiny model with random weights: which of those installed work.

    pip install trl lm-eval && python benchmarks/clients.py        (docs/clients.md)

One line a client; ends with 1 where one fails that is installed.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

import weft
from weft.models.compose import compose

LANGUAGE = {
    "config": {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
}
VISION = {
    "kind": "conv",
    "config": {"channels": [8, 16, 16, 16], "layers": 1, "heads": 2},
    "options": {"size": (32, 32)},
}
WHISPER = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "num_mel_bins": 16}
AUDIO = {"kind": "whisper", "config": WHISPER, "options": {"window_seconds": 2.0}}


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 50, 3), dtype=np.uint8))


def asked(*parts: dict[str, Any], text: str = "what is it?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


ANSWER = [{"role": "assistant", "content": [{"type": "text", "text": "a thing"}]}]


def learns(folder: Path, rows: list[dict[str, Any]], lora: bool = False, **more: Any) -> str:
    """Trains the folder, given by its name, with TRL's own collator; the loss must fall by a quarter (LoRA: at all)."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    options: Any = {"max_steps": 12, "per_device_train_batch_size": 2, "learning_rate": 1e-2, "use_cpu": True}
    config = SFTConfig(str(folder / "trl"), logging_steps=1, report_to=[], save_strategy="no", **options, **more)
    adapter = LoraConfig(r=4, target_modules=["q_proj", "v_proj"]) if lora else None
    trainer = SFTTrainer(str(folder), config, train_dataset=Dataset.from_list(rows), peft_config=adapter)
    if more.get("assistant_only_loss"):
        (labels,) = trainer.data_collator([trainer.train_dataset[0]])["labels"]
        kept = trainer.processing_class.tokenizer.decode(labels[labels >= 0])
        assert kept == "a thing<|im_end|>", kept
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < losses[0] * (1 if lora else 0.75), losses
    return f"loss {losses[0]:.1f} to {losses[-1]:.2f}"


def trl_pictures(folder: Path) -> str:
    rows = [{"images": [picture(i)], "messages": asked({"type": "image"}) + ANSWER} for i in range(4)]
    split = [{"images": r["images"], "prompt": r["messages"][:1], "completion": r["messages"][1:]} for r in rows]
    alone = f"answers alone: {learns(folder, split)}, {learns(folder, rows, assistant_only_loss=True)}"
    return "; ".join([learns(folder, rows), alone, f"LoRA: {learns(folder, rows, True)}"])


def trl_sound(folder: Path) -> str:
    clip = {"type": "audio", "audio": str(folder / "a.wav")}
    rows = [{"images": [], "messages": asked(clip, text=f"number {i}?") + ANSWER} for i in range(4)]
    alone = f"answers alone: {learns(folder, rows, assistant_only_loss=True)}"
    return "; ".join([learns(folder, rows), alone, f"LoRA: {learns(folder, rows, True)}"])


def lm_eval(folder: Path) -> str:
    from lm_eval.api.instance import Instance
    from lm_eval.models.hf_vlms import HFMultimodalLM

    model = HFMultimodalLM(pretrained=str(folder), max_images=2, device="cpu", batch_size=2, interleave=True)
    prompt: Any = model.apply_chat_template([{"role": "user", "content": "<image> what is it?"}])
    options = {"until": ["\n"], "max_gen_toks": 5}
    requests = [Instance("generate_until", {}, (prompt, options, {"visual": [picture(i)]}), i) for i in (1, 2)]
    ours = weft.load(folder)
    chats = [asked({"type": "image", "image": picture(i)}, text=" what is it?") for i in (1, 2)]
    expected = [ours.chat(chat, max_new_tokens=5).text for chat in chats]
    answers = model.generate_until(requests)
    assert answers == expected, (answers, expected)
    plain = HFMultimodalLM(pretrained=str(folder), max_images=2, device="cpu", batch_size=1)
    plain.generate_until([Instance("generate_until", {}, ("<image> what?", options, {"visual": [picture(1)]}), 0)])
    return "answers as weft's own"


def pipelines(folder: Path) -> str:
    from transformers import pipeline

    pipe = pipeline("image-text-to-text", model=str(folder), max_new_tokens=5)
    texts = ("what?", "and which of these is longer?")
    chats = [asked({"type": "image", "image": picture(i)}, text=t) for i, t in enumerate(texts)]
    alone = [pipe(text=chat, return_full_text=False)[0]["generated_text"] for chat in chats]
    together = [row[0]["generated_text"] for row in pipe(text=chats, batch_size=2, return_full_text=False)]
    assert alone == together, (alone, together)
    return "batches as one by one"


CLIENTS: dict[str, tuple[str, Callable[[Path], str]]] = {
    "TRL on pictures": ("trl", trl_pictures),
    "TRL on sound": ("trl", trl_sound),
    "lm-eval HFMultimodalLM": ("lm-eval", lm_eval),
    "pipelines": ("transformers", pipelines),
}


def main() -> int:
    failed = 0
    for name, (package, use) in CLIENTS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            model, processor = compose(vision=VISION, audio=AUDIO, language=LANGUAGE, seed=0)
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
            soundfile.write(folder / "a.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 16000)
            try:
                print(f"{name} ({package} {version(package)}): {use(folder)}")
            except PackageNotFoundError:
                print(f"{name}: {package} is not installed")
            except Exception as error:  # whatever a client raises is what there is to say of it
                failed += 1
                print(f"{name}: FAILED: {type(error).__name__}: {error}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
