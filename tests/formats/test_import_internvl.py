"""InternVL as converted for `transformers`: its ids, pixels, logits and losses, or a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from internvl_kit import InternVL
from PIL import Image
from transformers import AutoModelForMultimodalLM, AutoProcessor

import weft
from weft.cli import run
from weft.dialects.internvl import SYSTEM
from weft.formats.checkpoints import CheckpointError
from weft.formats.internvl import import_internvl

OPTIONS: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
ASKED: dict[str, Any] = {**OPTIONS, "add_generation_prompt": True}


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> InternVL:
    made = InternVL(tmp_path_factory.mktemp("kit"))
    made.write()
    return made


@pytest.fixture(scope="module")
def imported(kit: InternVL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imported") / "out"
    import_internvl(kit.folder, out)
    return out


def loaded(folder: Path) -> tuple[Any, Any]:
    return AutoModelForMultimodalLM.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def picture(seed: int, width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def said(role: str, *parts: Any) -> dict:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]
    return {"role": role, "content": content}


CONVERSATIONS = {
    "one tile": [said("user", picture(1, 28, 28), "What is it?")],
    "a row of tiles": [said("user", picture(2, 200, 30), "What is it?")],
    "a column of tiles": [said("user", picture(3, 25, 300), "What is it?")],
    "a block of tiles": [said("user", "Look:", picture(4, 100, 101), "and say.")],
    "several pictures": [said("user", picture(5, 60, 28), picture(6, 28, 28), picture(7, 90, 60), "Which is larger?")],
    "words alone": [said("user", "Who are you?")],
    "turns": [
        said("system", "Be brief."),
        said("user", picture(8, 60, 90), "What?"),
        said("assistant", "A cup."),
        said("user", picture(9, 31, 28), "And this?"),
    ],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_ids_pixels_and_logits_equal_those_of_transformers(kit: InternVL, imported: Path, name: str) -> None:
    model, processor = loaded(imported)
    got = processor.apply_chat_template(CONVERSATIONS[name], **ASKED)
    want = kit.processor.apply_chat_template(CONVERSATIONS[name], **ASKED)
    assert got["input_ids"].tolist() == want["input_ids"].tolist()
    assert ("pixel_values" in got) == ("pixel_values" in want)
    if "pixel_values" in want:
        assert (got["pixel_values"] - want["pixel_values"]).abs().max() < 1e-5
    with torch.no_grad():
        mine, theirs = model(**got).logits, kit.model(**want).logits
    assert theirs.std() > 0.3 and (mine - theirs).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("first", {"tied": True, "pooled": False}),
        ("newer", {"tied": True, "use_qk_norm": True, "norm_type": "rms_norm", "attention_bias": False}),
    ],
)
def test_every_layout_and_tower_that_is_published(tmp_path: Path, layout: str, shape: dict) -> None:
    kit = InternVL(tmp_path / "kit", **shape)
    import_internvl(kit.write(layout), tmp_path / "out")
    model, processor = loaded(tmp_path / "out")
    inputs = processor.apply_chat_template(CONVERSATIONS["several pictures"], **ASKED)
    with torch.no_grad():
        assert (model(**inputs).logits - kit.model(**inputs).logits).abs().max() < 1e-5


def test_a_batch_equals_its_conversations_and_answers_those_of_transformers(kit: InternVL, imported: Path) -> None:
    model, processor = loaded(imported)
    asked = [CONVERSATIONS[name] for name in ("one tile", "several pictures", "words alone", "a row of tiles")]
    greedy = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    alone = []
    for conversation in asked:
        inputs = kit.processor.apply_chat_template(conversation, **ASKED)
        alone.append(kit.model.generate(**inputs, **greedy)[0, inputs["input_ids"].shape[1] :].tolist())
    together = processor.apply_chat_template(asked, **ASKED)
    out = model.generate(**together, **greedy)
    assert out[:, -6:].tolist() == alone


def test_training_with_labels_gives_the_loss_and_gradients_of_transformers(kit: InternVL, imported: Path) -> None:
    model, processor = loaded(imported)
    answered = [*CONVERSATIONS["several pictures"], said("assistant", "The last one.")]
    inputs = processor.apply_chat_template(answered, **OPTIONS, return_assistant_tokens_mask=True)
    mask = inputs.pop("assistant_masks").bool()
    labels = torch.where(mask, inputs["input_ids"], -100)
    assert processor.tokenizer.decode(inputs["input_ids"][mask]) == "The last one.<|im_end|>"
    mine, theirs = model(**inputs, labels=labels).loss, kit.model(**inputs, labels=labels).loss
    assert abs(float((mine - theirs).detach())) < 1e-5
    mine.backward()
    theirs.backward()
    for ours, others in (
        (model.vision_connector.up.weight, kit.model.model.multi_modal_projector.linear_1.weight),
        (model.vision.tower.encoder.layer[0].lambda_1, kit.model.model.vision_tower.encoder.layer[0].lambda_1),
    ):
        torch.testing.assert_close(ours.grad, others.grad, rtol=1e-4, atol=1e-6)
    kit.model.zero_grad()


def test_boxes_are_asked_for_and_read(imported: Path) -> None:
    processor = AutoProcessor.from_pretrained(imported)
    box = {"type": "box", "boxes": [[0.1, 0.2, 0.5, 0.625]], "label": "the cup", "image": 0}
    refer = {"type": "task", "task": "refer"}
    asked = [{"role": "user", "content": [{"type": "image", "image": picture(1, 50, 50)}, refer, "the cup"]}]
    asked[0]["content"][2] = {"type": "text", "text": "the cup"}
    written = processor.apply_chat_template([*asked, {"role": "assistant", "content": [box]}])
    question = "Please provide the bounding box coordinates of the region this sentence describes: <ref>the cup</ref>"
    answer = "<ref>the cup</ref><box>[[100, 200, 500, 625]]</box>"
    assert written.endswith(f"</img>\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n")
    assert processor.parse(answer, asked) == [box]
    assert processor.parse("<box>[[100, 200, 500, 625]]</box>", asked) == [box]
    odd = "<box>[[500, 200, 100, 625]]</box>"
    assert processor.parse(odd, asked) == [{"type": "text", "text": odd}]
    ids = processor.apply_chat_template([said("user", answer)], **OPTIONS)["input_ids"][0].tolist()
    assert processor.renderer.token_id("<box>") not in ids  # what a user writes stays text


def test_the_released_codes_system_message_is_a_switch(imported: Path) -> None:
    model = weft.load(imported, switches={"system": SYSTEM})
    text = model.processor.apply_chat_template(CONVERSATIONS["one tile"])
    assert text.startswith(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<img>")
    assert isinstance(model.chat(CONVERSATIONS["several pictures"], max_new_tokens=3).text, str)


def test_what_does_not_fit_is_said(kit: InternVL, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = InternVL(tmp_path / "kit").write()
    raw = json.loads((folder / "config.json").read_text())
    for changes, wrong in (
        ({"model_type": "internvl_chat"}, "its name may end in -hf"),
        ({"vision_feature_layer": -2}, "vision_feature_layer is -2"),
        ({"image_token_id": 3}, "and the model at 3; they differ"),
    ):
        (folder / "config.json").write_text(json.dumps(raw | changes))
        with pytest.raises(CheckpointError, match=wrong):
            import_internvl(folder, tmp_path / "out")
    (folder / "config.json").write_text(json.dumps(raw))
    assert run(["import", "internvl", "--checkpoint", str(folder), "-o", str(tmp_path / "out")]) == 0
    assert "tensors used" in capsys.readouterr().out
    (folder / "tokenizer.json").unlink()
    assert run(["import", "internvl", "--checkpoint", str(folder), "-o", str(tmp_path / "other")]) == 2
    assert "there is no tokenizer.json" in capsys.readouterr().err
