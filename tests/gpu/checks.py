"""Models, training and answers on a GPU, beside the same on a CPU."""

from __future__ import annotations

import json
import shutil
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch

from marks import nightly
from tiny_model import questions
from tiny_model import tiny as tiny_chat
from training_world import picture, speech, text, tiny_recipe, tiny_spec, write
from weft.data.loader import SourceSpec, TrainingData
from weft.models import attention
from weft.models.attention import TESTED_FAMILIES
from weft.models.config import Connector, DialectSection
from weft.models.encoders import IMAGES, SOUNDS
from weft.teaching import teach
from weft.training.build import build_model
from weft.training.optim import step_where_finite
from weft.training.parallel import clip_gradients
from weft.training.ranks import Ranks
from weft.training.recipe import Evaluation, Lora, PartTraining, Stage, TowerSource
from weft.training.run import train
from weft.training.update import NextTokens, backward, read

LENGTHS = (9, 1, 14, 3)


def packed(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    ids = [i for row in rows for i in row]
    return {
        "input_ids": torch.tensor([ids]),
        "labels": torch.tensor([ids]),
        "position_ids": torch.tensor([[i for row in rows for i in range(len(row))]]),
        "segment_lengths": torch.tensor([len(row) for row in rows]),
    }


def trained(model: Any, inputs: dict[str, torch.Tensor], device: str) -> dict[str, torch.Tensor]:
    """Loss and gradients, brought back."""
    model.zero_grad()
    loss = model.to(device)(**{k: v.to(device) for k, v in inputs.items()}).loss
    loss.backward()
    found = {n: p.grad.cpu().float() for n, p in model.named_parameters() if p.grad is not None}
    return found | {"loss": loss.detach().cpu().float()}


def assert_close(there: dict[str, torch.Tensor], here: dict[str, torch.Tensor]) -> None:
    assert there.keys() == here.keys()
    off = {n: float((there[n] - here[n]).norm() / (here[n].norm() + 1e-2)) for n in here}
    assert max(off.values()) < 1e-3, {n: x for n, x in off.items() if x >= 1e-3}


@pytest.mark.parametrize("family", [f if f in ("llama", "gemma2") else nightly(f) for f in TESTED_FAMILIES])
def test_packed_rows(family, gpu):
    inputs = packed([tiny.words(n, n) for n in LENGTHS])
    there, here = trained(tiny.model(family), inputs, gpu), trained(tiny.model(family), inputs, "cpu")
    assert_close(there, here)


@pytest.mark.parametrize("window", [None, 4])
def test_packed_rows_in_half_precision(window, gpu):
    """The kernel that a GPU runs for these, beside what is computed sample by sample in float32."""
    torch.manual_seed(0)
    ours = [torch.randn(1, heads, sum(LENGTHS), 32, dtype=torch.bfloat16) for heads in (4, 2, 2)]
    there = [x.to(gpu).requires_grad_() for x in ours]
    here = [x.float().requires_grad_() for x in ours]
    assert attention.takes_varlen(there[2]) and not attention.takes_varlen(here[2])
    asking, mask = SimpleNamespace(), attention.segment_mask(torch.tensor(LENGTHS))
    out, wanted = (
        attention.weft_attention(asking, *row, mask, scaling=0.3, sliding_window=window)[0] for row in (there, here)
    )
    weight = torch.randn(wanted.shape)
    (out.float() * weight.to(gpu)).sum().backward()
    (wanted * weight).sum().backward()
    near = {"rtol": 3e-2, "atol": 3e-2}
    torch.testing.assert_close(out.detach().cpu().float(), wanted.detach(), **near)
    for x, y in zip(there, here, strict=True):
        torch.testing.assert_close(x.grad.cpu().float(), y.grad, **near)


@pytest.mark.parametrize("kind", [k if k in ("clip", "conv", "backbone") else nightly(k) for k in tiny.VISION])
def test_pictures(kind, gpu):
    section = tiny.vision(kind, {"kind": "queries", "queries": 3, "heads": 4} if kind == "clip" else {"merge": 2})
    rows = [tiny.image_ids(section) + tiny.words(4), tiny.words(3), tiny.words(2) + tiny.image_ids(section)]
    inputs = packed(rows) | {"pixel_values": torch.randn(2, 3, 24, 24)}
    assert_close(trained(tiny.model(vision=section), inputs, gpu), trained(tiny.model(vision=section), inputs, "cpu"))


@pytest.mark.parametrize("kind", ["whisper", "qwen_audio", "qwen2_audio", "whisper_decoder", "wav2vec2"])
def test_sounds(kind, gpu):
    section = tiny.audio(kind, {"kind": "pool", "merge": 2} if kind == "whisper" else {"merge": 2})
    clips = [tiny.clip(section, n, n) for n in (4000, 9000)]
    features, lengths = tiny.pad([c[0] for c in clips])
    inputs = packed([tiny.words(3) + clips[0][2], clips[1][2] + tiny.words(5)])
    inputs |= {"input_features": features, "feature_lengths": lengths}
    assert_close(trained(tiny.model(audio=section), inputs, gpu), trained(tiny.model(audio=section), inputs, "cpu"))


@pytest.mark.parametrize(
    "options", [{}, nightly({"do_sample": True, "seed": 3}), {"num_beams": 3}, nightly({"repetition_penalty": 1.3})]
)
def test_answers(options, gpu):
    here, there = tiny_chat(), tiny_chat()
    there.model.to(gpu)
    wanted = [reply.text for reply in here.chat_batch(questions(), max_new_tokens=4, **options)]
    assert [reply.text for reply in there.chat_batch(questions(), max_new_tokens=4, **options)] == wanted
    assert "".join(there.stream(questions()[1], max_new_tokens=4)) == here.chat(questions()[1], max_new_tokens=4).text


def test_scores_of_answers(gpu):
    here, there = tiny_chat(), tiny_chat()
    there.model.to(gpu)
    told = [[*q, {"role": "assistant", "content": "yes"}] for q in questions()]
    assert [*map(there.score, told)] == pytest.approx([*map(here.score, told)], rel=1e-4)


LORA = {"language": PartTraining(train="lora", lora=Lora(r=2)), "vision_connector": PartTraining(train="full")}


@pytest.mark.parametrize(
    "stage",
    [
        {"lessons": {"listen": {"weight": 1, "first": 1, "guide": 1}, "near": 0.5, "balance": 0.5}, "accumulate": 2},
        nightly({"packing": False, "rows": 3}),
        nightly({"parts": LORA, "checkpoint_activations": True}),
    ],
    ids=["listening", "unpacked", "lora"],
)
def test_training(stage, gpu, tmp_path, monkeypatch):
    """Every update, an evaluation, a checkpoint and going on from it; the log is a CPU's."""
    data = write(tmp_path / "data", 24, (speech, picture, text, speech))
    judged = Evaluation(data=str(data), every=1, limit=4)
    recipe = tiny_recipe(data, steps=2, evaluation=judged, recipe={"checkpoint_every": 1}, **stage)
    there, here = tmp_path / "there", tmp_path / "here"
    for run, device in ((there, gpu), (here, "cpu")):
        on(device, monkeypatch)
        train(recipe, run, teach=teach)
    wanted = steps(here)
    assert len(wanted) == 2 and ("guide" in wanted[-1]) == ("lessons" in stage)
    assert alike(steps(there), wanted)

    on(gpu, monkeypatch)
    shutil.rmtree(there / "final")
    shutil.rmtree(there / "checkpoints" / "step-00000002")
    train(None, there, resume=True, teach=teach)
    assert alike(steps(there), wanted)


# A kind of picture beside each kind of sound; lessons with the first, whose embeddings have places. An ear that writes
# waits by its nature: what it writes next hangs on what it has written, and it stops when all clips have ended.
WITHOUT = sorted({*SOUNDS} - {"whisper", "transcript"})
PAIRS = [("whisper", "conv"), *zip(WITHOUT, cycle(sorted({*IMAGES} - {"conv"})), strict=False)]


@pytest.mark.parametrize(("kind", "image"), [*PAIRS[:2], *(nightly(*pair) for pair in PAIRS[2:])])
def test_an_update_waits_for_nothing_before_it_reads(kind, image, gpu, without_waiting, tmp_path):
    spec, taught, packing = tiny_spec(), kind == "whisper", kind != "conv"
    places = {"places": True} if taught else {}
    config = {"num_mel_bins": 20, "width": 24} if kind == "conv" else tiny.audio(kind).config
    own = {"decoder_tokens": 6, "window_seconds": 1.0} if kind == "whisper_decoder" else {"window_seconds": 1.0}
    audio = TowerSource(kind=kind, config=config, connector=Connector(merge=2, **places), options=own)
    vision = spec.vision.model_copy(update={"connector": Connector(merge=4, grid=True, **places)})
    if image != "conv":
        size = {"size": [24, 24], **({"tiles": 2} if image == "internvit" else {})}
        vision = TowerSource(kind=image, config=tiny.VISION[image], connector=Connector(), options=size)
    dialect = DialectSection(name="chatml", switches={"box_bins": 20, "window_seconds": 1.0})
    model, processor = build_model(spec.model_copy(update={"vision": vision, "audio": audio, "dialect": dialect}))
    lessons = {"listen": {"weight": 1, "guide": 1}, "near": 0.5, "balance": 0.5}
    hand = teach(Stage(lessons=lessons if taught else {}))
    file = write(tmp_path, 12, (speech, picture, speech, text))
    data = TrainingData(
        [SourceSpec(file)],
        processor,
        row_tokens=500,
        rows=1 if packing else 4,
        packing=packing,
        annotate=hand.annotate(processor),
    )
    micro = list(islice(data.batches(), 2))
    model.to(gpu)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    objectives = hand.objectives(0) if taught else [NextTokens()]
    with without_waiting():
        told = backward(model, micro, objectives, precision="float32")
        norm = clip_gradients(model.parameters(), 1.0)
        step_where_finite(optimizer, norm.isfinite())
    assert all(read({**told, "norm": norm}).values())


def on(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ranks, "start", staticmethod(lambda: Ranks(device=device)))


def steps(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    kept = ("loss", "listen", "look", "guide", "grad_norm")
    return [{k: line[k] for k in kept if k in line} for line in lines if line["event"] == "step"]


def alike(there: list[dict[str, float]], here: list[dict[str, float]]) -> bool:
    return len(there) == len(here) and all(
        x == pytest.approx(y, rel=2e-3, abs=1e-4) for x, y in zip(there, here, strict=True)
    )
