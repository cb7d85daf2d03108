"""What is written of photographs: the eye's own classes where a layer finds one, and nothing elsewhere."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from PIL import Image as PIL
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import AutoModelForImageClassification

from training_world import picture, tiny_recipe, write
from weft.conversation import Box, Conversation, Image, Message, Task, WeftError
from weft.models.compose import compose
from weft.models.config import Connector
from weft.models.detector import WORDS, inside
from weft.models.encoders.efficientnet import EfficientNetLiteConfig, EfficientNetLiteForImageClassification
from weft.models.modeling import WeftForConditionalGeneration
from weft.models.photographs import Photographs, around, regions
from weft.teaching import teach
from weft.teaching.labels import Labels
from weft.teaching.losses import Detected
from weft.training.recipe import Lora, ModelSpec, PartTraining
from weft.training.run import train
from weft.training.update import MicroStep

SIGHT = {"channels": [8, 8, 8, 8, 12, 12, 12, 16], "depths": [1] * 7, "head": 16}
NAMES = {0: "cow, ox", 1: "a very long-winded name of a horse", 2: "cat"}
CONNECTOR = {"kind": "detector", "merge": 4, "grid": True, "hidden": 32, "heads": 4, "written": 24, "places": 0.1}


def test_places_hang_together_by_their_sides():
    there = np.array([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1]], bool)
    assert sorted(sorted(region) for region in regions(there)) == [
        [(0, 0), (0, 1), (1, 1)],
        [(1, 3), (2, 2), (2, 3)],
    ]
    assert regions(np.zeros((2, 2), bool)) == []


def test_a_box_is_around_places_and_within_the_picture():
    left, top, right, bottom = around(np.array([[4, 2], [5, 5]]), (10, 10))
    assert 0.1 < left < 0.2 and 0.3 < top < 0.4 and 0.6 < right < 0.7 and 0.6 < bottom < 0.7
    assert around(np.array([[0, 0], [9, 9]]), (10, 10)) == [0, 0, 1, 1]


def test_what_is_drawn_within_a_photograph_is_left_to_it():
    photograph = np.array([10, 10, 29, 29])
    assert inside(np.array([15, 15, 19, 19]), photograph) == 1
    assert inside(np.array([5, 15, 14, 19]), photograph) == 0.5
    assert inside(np.array([40, 15, 49, 19]), photograph) == 0


def test_a_photograph_that_fills_the_frame_is_one_thing():
    told = Photographs(Connector(**{**CONNECTOR, "classes": 3}), 4)
    told.learn(["cow", "horse", "cat"], lambda text: [ord(c) for c in text])
    told.looks[0], told.fills[1] = 2.0, 1.0
    features_NTD = torch.zeros(2, 16, 4)
    features_NTD[:, :2, 0] = 2.0  # two places that look like one
    features_NTD[1, :, 1] = 1.5  # and the whole of the second picture
    features_NTD[:, :2, 2], features_NTD[1, 2:, 3] = 1.0, 1.0
    logits = torch.tensor([[0.0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    (parted,), (whole,) = told.find(features_NTD, (4, 4), lambda x_NTD: x_NTD @ logits.T)
    assert parted[0] != [0.0, 0.0, 1.0, 1.0] and parted[1] == [ord(c) for c in "cow"]
    assert whole == ([0.0, 0.0, 1.0, 1.0], [ord(c) for c in "horse"])


@pytest.fixture(scope="module")
def eye(tmp_path_factory):
    """A folder as `weft parts` makes it."""
    folder = tmp_path_factory.mktemp("eye")
    torch.manual_seed(0)
    model = EfficientNetLiteForImageClassification(EfficientNetLiteConfig(**SIGHT, id2label=NAMES)).eval()
    for name, value in model.state_dict().items():
        if "running" in name:
            value.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    return folder


def made(eye, stages=(5, 7), **more):
    options = {"stages": stages, "size": (64, 64)}
    vision = {"source": str(eye), "options": options, "connector": {**CONNECTOR, "classes": 3, **more}}
    text = {k: v for k, v in tiny.text("llama").items() if k != "vocab_size"} | {"tie_word_embeddings": True}
    return compose(vision, None, {"config": text}, dialect={"name": "chatml", "switches": {"box_bins": 20}})


@pytest.fixture(scope="module")
def woven(eye):
    return made(eye)


def pixels_of(processor, picture):
    asked = Conversation((Message("user", (Image(picture), Task("caption"))),))
    return processor.media([processor.encode(asked)])["pixel_values"]


@pytest.fixture(scope="module")
def pixels(woven):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    return pixels_of(woven[1], PIL.fromarray(noise))


def test_classes_at_places_are_those_of_the_published_model(woven, eye, pixels):
    model = AutoModelForImageClassification.from_pretrained(eye).eval()
    with torch.no_grad():
        last_NChw = model.backbone(pixels).feature_maps[-1]
        wanted = model.classifier(F.relu6(model.head(last_NChw)).flatten(2).transpose(1, 2))
        found = woven[0].vision.classes(last_NChw.flatten(2).transpose(1, 2))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        assert len(woven[0].vision(pixels)[0, 0]) == 12 + 16  # features are what they were


def written(woven, pixels):
    model, processor = woven
    with torch.no_grad():
        features, _ = model.image_features(pixels)
        ids = []
        table = model.get_input_embeddings().weight
        for row in model.vision_connector.read(features, model)[0]:
            ids.append(int((table - row).abs().sum(1).argmin()))
    return [i for i in ids if i != processor.token_ids["image_token_id"]]


def test_a_new_model_writes_no_classes(woven, pixels):
    model, processor = woven
    (found,) = model.vision_connector.photographs.find(model.vision(pixels), (4, 4), model.vision.classes)
    assert found == []


def test_where_a_photograph_is_found_its_class_is_written_by_its_first_name(eye, pixels):
    woven = model, processor = made(eye)
    photographs, classes = model.vision_connector.photographs, model.vision.classes
    photographs.bias.fill_(5.0)  # everywhere
    classes.classifier.weight.zero_()
    encode, at = processor.renderer.encode_text, processor.dialect.place
    whole = [processor.renderer.token_id(token) for side in (0, 0, 1, 1) for token in at("image", side)]
    for number, name in ((0, "cow"), (2, "cat")):
        classes.classifier.bias.copy_(F.one_hot(torch.tensor(number), 3) * 9.0)
        text = [*encode(name), *whole, *encode(name)]
        assert written(woven, pixels)[: len(text)] == text
    classes.classifier.bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
    ids = photographs.spelling[1]
    assert processor.tokenizer.decode(ids[ids >= 0]).strip() == "of a horse"  # the end of a long one


def test_a_saved_model_keeps_names_and_none_of_it_trains(woven, tmp_path):
    model, processor = woven
    model.save_pretrained(tmp_path)
    loaded = WeftForConditionalGeneration.from_pretrained(tmp_path)
    kept = {n: v for n, v in model.state_dict().items() if ".classes." in n or ".photographs." in n}
    assert len(kept) == 14 and all(torch.equal(loaded.state_dict()[name], value) for name, value in kept.items())
    assert not kept.keys() & dict(model.named_parameters()).keys()


def test_what_has_no_names_is_refused(eye, tmp_path):
    EfficientNetLiteForImageClassification(EfficientNetLiteConfig(**SIGHT, num_labels=3)).save_pretrained(tmp_path)
    with pytest.raises(WeftError, match=r"classes is 3, and it names 0 classes; run `weft parts` again"):
        made(tmp_path)
    with pytest.raises(WeftError, match=r"classes is 4, and it names 3 classes"):
        made(eye, classes=4)
    with pytest.raises(WeftError, match=r"vision\.connector\.classes needs an EfficientNet-Lite to its last stage"):
        made(eye, stages=(3, 5))


def taught(model, processor, frozen=False):
    """Whether what is within a photograph counts, after the detector was taught one picture."""
    asked = Message("user", (Image(PIL.new("RGB", (64, 64))), Task("detection")))
    sample = Conversation((asked, Message("assistant", (Box(((0.1, 0.1, 0.4, 0.5),), "a r", 0),))))
    encoded, ask, lesson = processor.encode(sample), Labels(processor, True, False), Detected(1.0)
    inputs = {"input_ids": torch.zeros(1, 1, dtype=torch.long), **processor.media([encoded])}
    batch = SimpleNamespace(inputs=inputs, extra=ask.join([ask(sample, encoded)], [(0, 0)]))
    with lesson.watching(model) as watched, torch.set_grad_enabled(not frozen):
        lesson.loss(MicroStep(model, batch), watched, lesson.counts(batch))
    return bool(model.vision_connector.photographs.beside)


def test_a_detector_that_is_taught_tells_what_lies_in_what_looks_like_a_photograph(eye, tmp_path):
    model, processor = made(eye)
    ((first, steps),), nothing = model.config.image_place_ids, model.config.image_token_id
    rows, r = torch.eye(model.config.vocab_size), processor.renderer.encode_text("r")
    slots = torch.full((1, WORDS + 4), nothing)
    slots[0, 0], slots[0, WORDS:] = r[0], first + torch.tensor([3, 3, 9, 9])
    read = SimpleNamespace(config=model.config, get_input_embeddings=lambda: rows.__getitem__)
    photograph = ([0.0, 0.0, 1.0, 1.0], processor.renderer.encode_text("c"))

    def told(eye):
        ids = eye.text(50 * rows[slots], rows, read, [photograph]).tolist()
        return [i for i in ids if i != nothing]

    whole = [photograph[1][0], first, first, first + steps - 1, first + steps - 1, photograph[1][0]]
    assert told(model.vision_connector) == whole
    assert not taught(model, processor, frozen=True)
    assert taught(model, processor)
    assert told(model.vision_connector) == [*whole, *r, *(first + torch.tensor([3, 3, 9, 9])).tolist(), *r]
    model.save_pretrained(tmp_path)
    loaded = WeftForConditionalGeneration.from_pretrained(tmp_path)
    assert told(loaded.vision_connector) == told(model.vision_connector)


def test_folders_from_before_detectors_were_taught_so_are_read_without_a_word(woven, tmp_path, caplog):
    model, _ = woven
    names = [name for name in model.state_dict() if name.endswith("photographs.beside")]
    assert len(names) == 1
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({k: v for k, v in weights.items() if k not in names}, tmp_path / "model.safetensors", {"format": "pt"})
    for _ in range(3):  # memory that nobody wrote to is not always zero
        assert not WeftForConditionalGeneration.from_pretrained(tmp_path).vision_connector.photographs.beside
    assert "missing" not in caplog.text.lower()


@pytest.mark.slow
def test_a_run_that_goes_on_and_an_adapter_keep_that_a_detector_was_taught(eye, tmp_path):
    model, processor = made(eye)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "base")
    stage = {"steps": 2, "lessons": {"listen": {"weight": 1.0, "detect": 1.0}}}
    files, spec = write(tmp_path / "data", 4, (picture,)), ModelSpec(base=str(tmp_path / "base"))

    def noted(folder):
        return bool(WeftForConditionalGeneration.from_pretrained(folder).vision_connector.photographs.beside)

    whole = {"vision_connector": PartTraining(train="full")}
    left = train(tiny_recipe(files, spec, parts=whole, **stage), tmp_path / "run", teach=teach)
    assert noted(left)
    left.rename(tmp_path / "kept")  # as if it had been killed after its last checkpoint
    assert noted(train(None, tmp_path / "run", resume=True, teach=teach))
    lora = {"vision_connector": PartTraining(train="lora", lora=Lora(r=2))}
    recipe = tiny_recipe(files, spec, parts=lora, **stage)
    assert noted(train(recipe, tmp_path / "other", teach=teach, adapter_only=True))
    assert not noted(tmp_path / "base")
