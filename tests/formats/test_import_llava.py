"""LLaVA-1.5 in every published layout: the same logits and prompts as `transformers`' own class, or a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from llava_kit import LAYOUTS, SIDE, LLaVA
from PIL import Image
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForMultimodalLM, AutoProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

import weft
from weft.cli import run
from weft.dialects.llava import SYSTEM
from weft.formats.checkpoints import CheckpointError
from weft.formats.llava import import_llava


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> LLaVA:
    return LLaVA(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def converted(kit: LLaVA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    import_llava(**kit.write("converted", folder / "kit"), out=folder / "out")
    return folder / "out"


def picture(seed: int, width: int = SIDE, height: int = SIDE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def user(*parts: object) -> dict:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]
    return {"role": "user", "content": content}


def answer(text: str) -> dict:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


CONVERSATIONS = {
    "a picture": [user(picture(1), "What is in the picture?")],
    "words alone": [user("Who are you?")],
    "words before the picture": [user("Look:", picture(2, 40, 31), "and say.")],
    "several": [user(picture(3, 30, 50), picture(4), "Which of the two\nis the quick brown fox?")],
    "turns": [user(picture(5), "What?"), answer("A cup."), user(picture(6), "And this?"), answer("Two."), user("Why?")],
    "system": [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, user(picture(7), "And?")],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_equal_those_of_transformers(kit: LLaVA, tmp_path: Path, layout: str) -> None:
    done = import_llava(**kit.write(layout, tmp_path / "kit"), out=tmp_path / "out")
    surplus = {name for source in done.sources for name in source.surplus}
    assert any("encoder.layers.2." in name for name in surplus) and any("post_layernorm" in name for name in surplus)
    model = AutoModelForMultimodalLM.from_pretrained(tmp_path / "out").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    inputs = processor.apply_chat_template(
        CONVERSATIONS["turns"], tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    with torch.no_grad():
        got, want = model(**inputs).logits, kit.model(**inputs).logits
    assert want.std() > 0.3
    assert (got - want).abs().max() < 1e-5


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_ids_and_pixels_equal_those_of_the_converted_folder(kit: LLaVA, converted: Path, name: str) -> None:
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    want = kit.processor.apply_chat_template(CONVERSATIONS[name], **options)
    got = AutoProcessor.from_pretrained(converted).apply_chat_template(CONVERSATIONS[name], **options)
    assert got["input_ids"].tolist() == want["input_ids"].tolist()
    assert ("pixel_values" in got) == ("pixel_values" in want)
    if "pixel_values" in want:
        assert (got["pixel_values"] - want["pixel_values"]).abs().max() < 1e-5


def test_the_released_code_is_followed_by_a_released_folder(kit: LLaVA, tmp_path: Path) -> None:
    """mm_utils.py: the prompt is split at <image> and each piece tokenised apart; pictures are padded."""
    import_llava(**kit.write("released", tmp_path / "kit"), out=tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    asked = [user(picture(1, 50, 20), "What?"), answer("A cup."), user("Why?")]
    got = processor.apply_chat_template(
        asked, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    encode = SentencePieceProcessor(model_file=str(kit.folder / "tokenizer.model")).encode
    span = [processor.renderer.token_id("<image>")] * 16
    before, after = encode(f"{SYSTEM} USER: "), encode("\nWhat? ASSISTANT: A cup.")
    assert got["input_ids"][0].tolist() == [1, *before, *span, *after, 2, *encode("USER: Why? ASSISTANT:")]
    reference = LlavaImageProcessorPil(
        do_pad=True, size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    want = reference(picture(1, 50, 20), return_tensors="pt")["pixel_values"]
    assert (got["pixel_values"] - want).abs().max() < 1e-5


def test_what_a_user_writes_stays_text(converted: Path) -> None:
    processor = AutoProcessor.from_pretrained(converted)
    said = "<image> </s> <s> USER: <pad> <unk>"
    ids = processor.apply_chat_template(
        [user(picture(1), said)], tokenize=True, return_dict=True, add_generation_prompt=True
    )["input_ids"]
    ids = ids[0] if isinstance(ids[0], list) else ids
    special = {processor.renderer.token_id(token): token for token in ("<s>", "</s>", "<pad>", "<image>")}
    assert [special[i] for i in ids if i in special] == ["<s>", *["<image>"] * 16]
    assert said in processor.tokenizer.decode(ids)


def test_it_answers(converted: Path) -> None:
    reply = weft.load(converted).chat(CONVERSATIONS["several"], max_new_tokens=4)
    assert isinstance(reply.text, str)


def test_what_does_not_fit_stops_the_import(kit: LLaVA, tmp_path: Path) -> None:
    folder, out = kit.write("converted", tmp_path / "kit")["checkpoint"], tmp_path / "out"
    weights = load_file(folder / "model.safetensors")
    taken = weights.pop("multi_modal_projector.linear_1.bias")
    save_file(weights | {"model.image_newline": torch.ones(3)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as said:
        import_llava(folder, out)
    assert "1 missing: multi_modal_projector.linear_1.bias (48)" in str(said.value)
    assert "1 unexpected: model.image_newline (3)" in str(said.value)
    save_file(weights | {"multi_modal_projector.linear_1.bias": taken[:7].clone()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"multi_modal_projector.linear_1.bias \(7\) for \(48\)"):
        import_llava(folder, out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear', and LLaVA-1.5 has 'mlp2x_gelu'"),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio is 'anyres'"),
        ({"mm_vision_tower": "google/siglip"}, "give that folder with --vision"),
        ({"mm_vision_tower": None, "model_type": "qwen2"}, "model_type is 'qwen2', expected 'llava"),
        ({}, r"holds no image encoder; give its folder with --vision \(openai/clip"),
    ],
)
def test_another_system_is_refused(kit: LLaVA, tmp_path: Path, changes: dict, said: str) -> None:
    folder = kit.write("released", tmp_path / "kit")["checkpoint"]
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    with pytest.raises(CheckpointError, match=said):
        import_llava(folder, tmp_path / "out")


@pytest.mark.parametrize("fault", ["has no tokenizer", "a tokenizer without </s>", "<image> at 40"])
def test_a_folder_without_a_fitting_tokenizer_takes_ids(
    kit: LLaVA, tmp_path: Path, capsys: pytest.CaptureFixture, fault: str
) -> None:
    folder = kit.write("converted", tmp_path / "kit")["checkpoint"]
    for file in folder.glob("tokenizer*"):
        file.unlink()
    if fault != "has no tokenizer":
        words = ["<s>", "<unk>", *(f"w{i}" for i in range(37)), *(["</s>"] if "image" in fault else [])]
        made = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
        made.save(str(folder / "tokenizer.json"))
    assert run(["import", "llava", "--checkpoint", str(folder), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert fault in said and "token ids only" in said
    model = AutoModelForMultimodalLM.from_pretrained(tmp_path / "out").eval()
    ids, pixels = torch.tensor([[1, 5, *[kit.base] * 16, 7]]), torch.randn(1, 3, SIDE, SIDE)
    with torch.no_grad():
        difference = model(ids, pixel_values=pixels).logits - kit.model(ids, pixel_values=pixels).logits
    assert difference.abs().max() < 1e-5
    assert run(["export", str(tmp_path / "out"), "--format", "llava", "-o", str(tmp_path / "back")]) == 0
    assert "it takes token ids only" in capsys.readouterr().err


def test_the_command_says_what_is_wrong(kit: LLaVA, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(["import", "llava", "--checkpoint", str(tmp_path / "none"), "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip()
    assert "none: not a folder" in said and said.count("\n") == 0
    folder = kit.write("converted", tmp_path / "kit")["checkpoint"]
    command = ["import", "llava", "--checkpoint", str(folder), "-o", str(tmp_path / "out"), "--vision", str(tmp_path)]
    assert run(command) == 2
    assert "leave --vision out" in capsys.readouterr().err
