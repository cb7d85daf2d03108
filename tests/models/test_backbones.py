"""Backbones give what the library's own forward gives, stage by stage, and train like any encoder."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForImageClassification

from marks import slow
from weft.conversation import WeftError
from weft.models.compose import compose
from weft.models.config import VisionSection
from weft.models.encoders import image_kind
from weft.models.places import token_grid
from weft.training.parts import apply_parts, set_modes
from weft.training.recipe import PartTraining, Stage

LANGUAGE = {"config": {k: v for k, v in tiny.text().items() if not k.endswith("token_id") and k != "vocab_size"}}
FOUR = {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1]}
WINDOWS = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 3, "image_size": 64}
PATCHES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
LITE = {"channels": [8, 8, 12, 12, 16, 16, 20, 24], "depths": [1, 1, 2, 1, 2, 1, 1], "head": 32}
BACKBONES = {
    "resnet": {"embedding_size": 8, **FOUR},
    "convnext": FOUR,
    "swin": WINDOWS,
    "dinov2": PATCHES,
    "efficientnet_lite": LITE,
}


def published(folder: Path, name: str) -> None:
    """A whole classifier, as they are published, its norms' statistics not at their start."""
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_config(AutoConfig.for_model(name, num_labels=3, **BACKBONES[name]))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    model.save_pretrained(folder)
    prepared = {"image_processor_type": "ViTImageProcessor", "size": 64, "image_mean": 0.4, "image_std": 0.3}
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared | {"resample": 3}))


def composed(folder: Path, **options):
    asked = {"source": str(folder), "kind": "backbone", "options": options, "connector": {"merge": 2}}
    return compose(asked, None, LANGUAGE)


@pytest.mark.parametrize("name", [slow(n) if n != "efficientnet_lite" else n for n in BACKBONES])
def test_stages_equal_the_librarys_own_forward(name, tmp_path):
    published(tmp_path, name)
    model, _ = composed(tmp_path, stages=(1, -1))
    kind = model.image_kind
    assert (kind.section.kind, kind.section.size, kind.section.mean) == ("backbone", (64, 64), (0.4, 0.4, 0.4))
    library = kind.source_class.from_pretrained(tmp_path, out_indices=[1, len(kind.config.stage_names) - 1]).eval()
    pixels = torch.randn(2, 3, 64, 64)
    fine, coarse = library(pixels).feature_maps
    assert kind.grid == fine.shape[2:]
    wanted = torch.cat([fine, F.interpolate(coarse, kind.grid, mode="bilinear")], 1).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.vision(pixels), wanted, rtol=0, atol=1e-5)
    assert kind.view_tokens == len(model.embed_images(pixels)) / 2
    last, _ = composed(tmp_path)
    torch.testing.assert_close(last.vision(pixels), coarse.flatten(2).transpose(1, 2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet", *(slow(n) for n in ("swin", "efficientnet_lite"))])
def test_pictures_of_any_size_give_the_grid_that_is_counted(name):
    for size in ((96, 64), (128, 160)):
        section = VisionSection(kind="backbone", config={"model_type": name, **BACKBONES[name]}, size=size)
        kind = image_kind(section)
        scale = 64 // image_kind(section.model_copy(update={"size": (64, 64)})).grid[0]
        assert kind.grid == (size[0] // scale, size[1] // scale)
        assert tiny.model(vision=section).embed_images(torch.randn(1, 3, *size)).shape == (kind.view_tokens, 32)


def test_stages_are_brought_to_the_grid_that_is_asked_for(tmp_path):
    published(tmp_path, "resnet")
    model, _ = composed(tmp_path, stages=(1, 4), stage_grid=(4, 4))
    pixels = torch.randn(1, 3, 64, 64)
    library = model.image_kind.source_class.from_pretrained(tmp_path, out_indices=[1, 4]).eval()
    features = model.vision(pixels).transpose(1, 2).unflatten(2, (4, 4))
    assert token_grid(model.image_kind) == (2, 4) or model.image_kind.patches == (4, 4)
    fine, coarse = library(pixels).feature_maps
    torch.testing.assert_close(features[:, 8:], F.interpolate(coarse, (4, 4), mode="bilinear"))
    # what is finer is averaged: no cell is left out
    flat = F.interpolate(torch.ones_like(fine), (4, 4), mode="bilinear", antialias=True)
    torch.testing.assert_close(flat, torch.ones_like(flat))
    torch.testing.assert_close(features[:, :8].mean(), fine.mean(), rtol=0.2, atol=0.02)


@pytest.mark.parametrize("train", [slow("frozen"), "full"])
def test_norms_keep_their_statistics_and_pictures_do_not_meet(train, tmp_path):
    published(tmp_path, "efficientnet_lite")
    model, processor = composed(tmp_path, stages=(5,))
    parts = {"vision_connector": PartTraining(train="full"), "vision": PartTraining(train=train)}
    trained = {part.name: part.parameters for part in apply_parts(model, Stage(parts=parts))}
    assert bool(trained["vision"]) == (train == "full")
    before = {name: value.clone() for name, value in model.vision.named_buffers()}
    pixels = torch.randn(3, 3, 64, 64)
    together = model.embed_images(pixels).unflatten(0, (3, -1))
    torch.testing.assert_close(together[1], model.embed_images(pixels[1:2]), rtol=1e-4, atol=1e-5)
    ids = torch.tensor([[model.config.image_token_id] * (3 * model.image_kind.view_tokens) + [5, 6, 7]])
    model(input_ids=ids, pixel_values=pixels, labels=ids).loss.backward()
    assert all(p.grad is not None for part in trained.values() for p in part.values())
    assert all(torch.equal(before[name], value) for name, value in model.vision.named_buffers())
    model.train()
    set_modes(model, Stage(parts=parts))
    assert not any(m.training for m in model.vision.modules() if isinstance(m, torch.nn.BatchNorm2d))


@pytest.mark.slow
def test_a_saved_folder_answers_as_the_model_did(tmp_path):
    published(tmp_path / "source", "efficientnet_lite")
    model, processor = composed(tmp_path / "source", stages=(3, 5))
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    again = type(model).from_pretrained(tmp_path / "saved").eval()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype="uint8"))
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "what?"}]
    given = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    answers = [m.generate(**given, max_new_tokens=3, do_sample=False).tolist() for m in (model, again)]
    assert answers[0] == answers[1]


def test_a_backbone_works_in_bfloat16(tmp_path):
    published(tmp_path, "resnet")
    asked = {"source": str(tmp_path), "options": {"stages": (1, 4), "stage_grid": (3, 3)}}
    model, _ = compose(asked, None, LANGUAGE, dtype=torch.bfloat16)
    assert model.vision(torch.randn(1, 3, 64, 64)).dtype == torch.bfloat16


RESNET = {"model_type": "resnet", **BACKBONES["resnet"]}
HIERA = {
    "model_type": "hiera",
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 1],
    "num_query_pool": 1,
    "image_size": [64, 64],
}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"config": RESNET, "stages": (7,)}, r"no resnet of this config has the stages \[7\]"),
        ({"config": RESNET, "layer": -2}, "vision.options.stages"),
        ({"config": RESNET, "final_norm": False}, "vision.options.stages"),
        ({"config": {"model_type": "clip"}}, "'clip' is no backbone that weft knows; it knows beit"),
        ({"config": HIERA, "size": (96, 64)}, "vision.size 96x64: hiera takes no such pictures"),
        ({"kind": "conv", "config": tiny.VISION["conv"], "stages": (1,)}, "the kind is conv; take the kind backbone"),
    ],
)
def test_settings_that_a_backbone_does_not_have_are_refused(section, said):
    with pytest.raises(WeftError, match=said):
        _ = image_kind(VisionSection(**{"kind": "backbone", **section})).grid
