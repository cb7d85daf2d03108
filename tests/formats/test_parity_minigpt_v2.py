"""MiniGPT-v2's released code against an import of its kit: pixels, tower, image tokens, logits, greedy ids, losses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMultimodalLM, AutoProcessor

import weft  # noqa: F401  registers with transformers
from weft.conversation import parse_messages
from weft.formats.minigpt_v2 import import_minigpt_v2
from weft.models.processing import WeftProcessor


class Kit:
    def __init__(self, folder: Path, out: Path) -> None:
        self.folder = folder
        self.tensors = load_file(folder / "expected.safetensors")
        self.facts = json.loads((folder / "expected.json").read_text())
        self.done = import_minigpt_v2(
            folder / "eva_vit_g.pth", folder / "llama", folder / "minigptv2_checkpoint.pth", out, "float32"
        )
        self.model = AutoModelForMultimodalLM.from_pretrained(out).eval()
        self.processor = AutoProcessor.from_pretrained(out)

    def image(self, index: int) -> dict:
        return {"type": "image", "image": str(self.folder / f"image_{index}.png")}

    def prompt(self, *parts: dict) -> dict:
        messages = [{"role": "user", "content": list(parts)}]
        return self.processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )

    def trained_as_published(self) -> WeftProcessor:
        """The processor as the kit's run trained: answers end in a line end, and the instructions, which do not come
        from the released data sets, have no space added."""
        data = self.processor.to_dict()["config"]
        switches = {"end_symbol": self.facts["train"]["end_sym"], "training_space": False}
        return WeftProcessor(
            self.processor.tokenizer, {**data, "dialect": {"name": "minigpt_v2", "switches": switches}}
        )


@pytest.fixture(scope="module")
def kit(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    folder = shared / "parity" / "minigpt_v2"
    return Kit(folder, tmp_path_factory.mktemp("minigpt_v2") / "model")


def question(text: str) -> str:
    return text.split("</Img> ")[-1].removesuffix(" [/INST]")


def close(got: torch.Tensor, want: torch.Tensor, limit: float = 2e-3) -> None:
    difference = (got.detach().float() - want).abs()
    assert difference.max() <= limit
    assert difference.mean() <= 1e-3 * want.std()


def test_every_tensor_is_used_or_known_to_be_surplus(kit: Kit) -> None:
    language, tower, trained = kit.done.sources
    assert (tower.used, len(tower.surplus)) == (4 + 2 * 13, 13 + 4)
    assert (language.used, len(language.surplus)) == (2 * 9 + 3, 2)
    assert (trained.used, len(trained.surplus)) == (2 * 4 + 2, 2)


def test_pixels_and_tower(kit: Kit) -> None:
    pixels = torch.cat([kit.prompt(kit.image(i), {"type": "text", "text": "x"})["pixel_values"] for i in (0, 1)])
    close(pixels, kit.tensors["pixel_values"], 1e-4)
    with torch.no_grad():
        whole = kit.model.vision.tower(pixel_values=pixels).last_hidden_state
        tokens = kit.model.embed_images(pixels)
    # The released tower's output before ln_vision; its class token is dropped later.
    features = kit.tensors["vision.features"]
    normed = torch.nn.functional.layer_norm(whole, (whole.shape[-1],), eps=1e-5)
    assert min((whole - features).abs().max(), (normed - features).abs().max()) <= 1e-4
    close(tokens, kit.tensors["vision.tokens"].flatten(0, 1), 1e-4)


@pytest.mark.parametrize("index", [0, 1])
def test_prompt_ids_logits_and_greedy_ids(kit: Kit, index: int) -> None:
    expected = kit.facts["prompts"][index]
    text = question(expected["text"])
    inputs = kit.prompt(kit.image(expected["image"]), {"type": "text", "text": text})
    before, after = expected["segment_ids"]
    tokens = kit.tensors["vision.tokens"].shape[1]
    media = [kit.model.config.image_token_id] * tokens
    assert inputs["input_ids"][0].tolist() == before + media + after
    want = kit.tensors[f"prompt{index}.logits"]
    with torch.no_grad():
        close(kit.model(**inputs).logits[0], want)
        out = kit.model.generate(**inputs, max_new_tokens=24, do_sample=False)
    greedy = expected["greedy_ids"][1:]
    assert out[0].tolist()[-len(greedy) :] == greedy
    task, rest = text[1:].split("] ", 1)
    same = kit.prompt(kit.image(expected["image"]), {"type": "task", "task": task}, {"type": "text", "text": rest})
    assert same["input_ids"].tolist() == inputs["input_ids"].tolist()


def test_two_images_in_one_prompt(kit: Kit) -> None:
    facts = kit.facts["two_images"]
    parts = [*map(kit.image, facts["images"]), {"type": "text", "text": question(facts["text"])}]
    with torch.no_grad():
        close(kit.model(**kit.prompt(*parts)).logits[0], kit.tensors["two_images.logits"])


def loss(kit: Kit, *conversations: list[dict]) -> float:
    processor = kit.trained_as_published()
    batch = processor.collate([processor.encode(parse_messages(c)) for c in conversations])
    with torch.no_grad():
        return float(kit.model(**batch).loss)


def test_training_losses(kit: Kit) -> None:
    train = kit.facts["train"]
    samples = [
        [
            {"role": "user", "content": [kit.image(i), {"type": "text", "text": question(instruction)}]},
            {"role": "assistant", "content": answer},
        ]
        for i, (instruction, answer) in enumerate(zip(train["instruction"], train["answer"], strict=True))
    ]
    for sample, want in zip(samples, train["losses"], strict=True):
        assert loss(kit, sample) == pytest.approx(want, abs=1e-4)
    assert loss(kit, *samples) == pytest.approx(train["batch_loss"], abs=1e-4)


def test_two_turn_training_loss(kit: Kit) -> None:
    facts = kit.facts["conversation"]
    questions = question(facts["conv_q"]).split(facts["connect_sym"])
    answers = facts["conv_a"].split(facts["connect_sym"])
    messages = []
    for turn, (q, a) in enumerate(zip(questions, answers, strict=True)):
        image = [kit.image(0)] if turn == 0 else []
        messages.append({"role": "user", "content": [*image, {"type": "text", "text": q}]})
        messages.append({"role": "assistant", "content": a})
    assert loss(kit, messages) == pytest.approx(facts["loss"], abs=1e-4)
