"""What a detector writes of a picture: names and boxes as text, the surest things first, none twice."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from PIL import Image as PIL

from weft.conversation import Box, Conversation, Image, Message, Task, WeftError
from weft.models.compose import compose
from weft.models.config import Connector
from weft.models.detector import WORDS, apart, fitting, overlap, word_table
from weft.models.places import placed
from weft.teaching.labels import Labels
from weft.teaching.losses import Detected
from weft.teaching.media import looking_labels
from weft.training.update import MicroStep


def test_of_places_that_tell_of_one_thing_the_surest_is_kept():
    boxes = np.array([[50, 0, 60, 9], [10, 0, 20, 9], [11, 0, 21, 9], [80, 0, 90, 9], [30, 30, 40, 40]])
    assert apart(np.array([1.0, 2.0, 3.0, 0.5, -0.1]), boxes) == [2, 0, 3]  # the last tells of nothing
    assert apart(np.zeros(0), boxes[:0]) == []


def test_what_fits_is_written_the_surest_first():
    things = [([9], [1] * 8), ([3], [2] * 8), ([5], [3] * 5)]
    assert fitting(things, 64) == things
    assert fitting(things, 15) == [things[0], things[2]]  # the second does not fit, what comes after it does
    assert fitting(things, 4) == []


def test_boxes_overlap_by_whole_steps():
    assert overlap(np.array([0, 0, 9, 9]), np.array([0, 0, 9, 9])) == 1
    assert overlap(np.array([0, 0, 9, 9]), np.array([0, 5, 9, 14])) == pytest.approx(1 / 3)
    assert overlap(np.array([0, 0, 9, 9]), np.array([10, 0, 19, 9])) == 0
    assert overlap(np.array([5, 5, 2, 2]), np.array([0, 0, 9, 9])) >= 0  # sides the wrong way round


COLORS = {"r": (220, 30, 30), "g": (20, 200, 40), "b": (30, 60, 230)}


def drawn(seed: int) -> Conversation:
    """A picture of two squares of different colours, and where they are."""
    rng, pixels = np.random.default_rng(seed), np.full((64, 64, 3), 235, np.uint8)
    parts = []
    for half, name in enumerate(rng.permutation(list(COLORS))[:2]):
        left, top = int(rng.integers(1, 8)) + 32 * half, int(rng.integers(1, 38))
        pixels[top : top + 22, left : left + 22] = COLORS[name]
        parts.append(Box(((left / 64, top / 64, (left + 22) / 64, (top + 22) / 64),), f"a {name}", 0))
    asked = Message("user", (Image(PIL.fromarray(pixels)), Task("grounded_caption")))
    return Conversation((asked, Message("assistant", tuple(parts))))


@pytest.fixture(scope="module")
def woven():
    connector = {"kind": "detector", "merge": 1, "grid": True, "hidden": 64, "heads": 4, "written": 16, "places": 0.1}
    vision = {"config": tiny.VISION["conv"], "kind": "conv", "connector": connector, "options": {"size": [64, 64]}}
    language = {
        "config": {k: v for k, v in tiny.text("llama").items() if k != "vocab_size"} | {"tie_word_embeddings": True}
    }
    dialect = {"name": "chatml", "switches": {"box_bins": 20}}
    return compose(vision=vision, language=language, dialect=dialect)


def test_what_is_written_stands_behind_the_places_and_is_counted(woven):
    model, processor = woven
    sample = drawn(0)
    encoded = processor.encode(sample)
    (span,) = encoded.spans
    kind = processor.images
    assert span.length == kind.view_tokens == placed(kind) + 16
    pixels = processor.media([encoded])["pixel_values"]
    with torch.no_grad():
        embedded = model.embed_images(pixels)
        features, of_places = model.image_features(pixels, written=False)
        (pooled,) = model.get_image_features(pixels).pooler_output
        written = model.vision_connector.read(features, model)[0]
    assert torch.equal(pooled, embedded)
    assert embedded.shape[0] == span.length and of_places.shape[1] == placed(kind)
    assert torch.equal(embedded[: placed(kind)], of_places[0]) and torch.equal(embedded[placed(kind) :], written)
    labels = looking_labels(sample, encoded, processor)
    assert len(labels.seen) == placed(kind) and labels.words.shape[1] == WORDS


def test_words_are_a_names_tokens_without_an_article(woven):
    _, processor = woven
    picture = Image(PIL.new("RGB", (64, 64)))
    boxes = tuple(Box(((0.1, 0.1, 0.4, 0.5),), label, 0) for label in ("The ab", "a", "zqxjkvwq"))
    sample = Conversation((Message("user", (picture, Task("grounded_caption"))), Message("assistant", boxes)))
    words = looking_labels(sample, processor.encode(sample), processor).words
    for row, text in zip(words[1:3], ("ab", "a"), strict=True):
        tokens = processor.renderer.encode_text(text)
        assert row.tolist() == tokens + [-1] * (WORDS - len(tokens))
    assert words[3].tolist() == [-100] * WORDS  # more tokens than are written
    assert words[0].tolist() == [-1] * WORDS


@pytest.mark.slow
def test_it_learns_to_write_what_is_in_a_picture(woven):
    """Trained on some pictures, it names the things of others and their boxes."""
    model, processor = woven
    ask, lesson = Labels(processor, True, False), Detected(1.0, near=1.0)
    parameters = [p for name in ("vision", "vision_connector") for p in model.part(name)[0].parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    kept = [(s, processor.encode(s)) for s in map(drawn, range(40))]
    told = [ask(*each) for each in kept]
    for update in range(120):
        some = [(6 * update + n) % 40 for n in range(6)]
        batch = SimpleNamespace(
            inputs={"input_ids": torch.zeros(1, 1, dtype=torch.long), **processor.media([kept[n][1] for n in some])},
            extra=ask.join([told[n] for n in some], [(0, 0)] * 6),
        )
        optimizer.zero_grad()
        with lesson.watching(model) as watched:
            loss = lesson.loss(MicroStep(model, batch), watched, lesson.counts(batch))
        loss.backward()
        optimizer.step()
    right = total = 0
    ids, box = processor.token_ids, processor.dialect.place
    for seed in range(100, 112):
        sample = drawn(seed)
        pixels = processor.media([processor.encode(sample)])["pixel_values"]
        with torch.no_grad():
            features, _ = model.image_features(pixels)
            (told_tSW,) = model.vision_connector.tell(model.vision_connector.inner(features)[0])
            found = [
                i
                for i in model.vision_connector.text(told_tSW, word_table(model), model).tolist()
                if i != ids["image_token_id"]
            ]
        for thing, part in enumerate(sample.answer.parts):
            sides = [processor.renderer.token_id(token) for side in part.boxes[0] for token in box("image", side)]
            (name,) = processor.renderer.encode_text(part.label[2:])
            mine = found[6 * thing : 6 * thing + 6]
            total += 1
            right += len(mine) == 6 and mine[0] == mine[5] == name and np.abs(np.subtract(mine[1:5], sides)).max() <= 2
    assert right >= 0.8 * total


def test_the_lesson_needs_a_connector_that_writes():
    model = tiny.model(vision=tiny.vision())
    with pytest.raises(WeftError, match=r"listen\.detect needs a vision connector of kind detector"):
        Detected(1.0).watching(model).__enter__()


@pytest.mark.parametrize(
    "given",
    [
        {"written": 8},
        {"kind": "detector", "places": 0.1},
        {"kind": "detector", "written": 8},
        {"tally": True},
        {"kind": "linear", "tally": True},
    ],
)
def test_only_a_detector_with_places_writes(given):
    with pytest.raises(ValueError, match=r"connector\.written goes with kind detector, and that with places above 0"):
        Connector(**given)


def test_pictures_that_lack_what_they_are_asked_for_teach_that(woven):
    model, processor = woven
    asked = Message("user", (Image(PIL.new("RGB", (64, 64))), Task("detection")))
    sample = Conversation((asked, Message("assistant", (Box((), "a r", 0),))))
    encoded, ask, lesson = processor.encode(sample), Labels(processor, True, False), Detected(1.0)
    inputs = {"input_ids": torch.zeros(1, 1, dtype=torch.long), **processor.media([encoded])}
    batch = SimpleNamespace(inputs=inputs, extra=ask.join([ask(sample, encoded)], [(0, 0)]))
    assert lesson.counts(batch)[0] and not lesson.counts(batch)[1]
    with lesson.watching(model) as watched:
        assert lesson.loss(MicroStep(model, batch), watched, lesson.counts(batch)).isfinite()


def test_a_side_is_the_mean_of_the_steps_that_it_may_be(woven):
    model, processor = woven
    ((first, _),), nothing = model.config.image_place_ids, model.config.image_token_id
    name = processor.renderer.encode_text("r")
    rows = torch.eye(model.config.vocab_size)
    told = torch.full((1, WORDS + 4), nothing)
    told[0, 0], told[0, WORDS:] = name[0], first + torch.tensor([3, 1, 9, 8])
    told = 50 * rows[told]
    told[0, WORDS, first + 5] = 50  # as likely as 3
    read = SimpleNamespace(config=model.config, get_input_embeddings=lambda: rows.__getitem__)
    found = model.vision_connector.text(told, rows, read).tolist()
    assert found[:6] == [*name, *(first + torch.tensor([4, 1, 9, 8])).tolist(), *name]


def test_a_tally_stands_behind_the_list_and_things_fill_the_rest():
    """Of three things the list then holds two, and all are counted."""
    connector = {"kind": "detector", "merge": 1, "grid": True, "hidden": 64, "heads": 4, "places": 0.1}
    vision = {"config": tiny.VISION["conv"], "kind": "conv", "options": {"size": [64, 64]}}
    language = {"config": {k: v for k, v in tiny.text("llama").items() if k != "vocab_size"}}
    dialect = {"name": "chatml", "switches": {"box_bins": 20}}
    written = {}
    for tally in (False, True):
        vision["connector"] = {**connector, "written": 24, "tally": tally}
        model, processor = compose(vision=vision, language=language, dialect=dialect)
        assert any("tally" in name for name in model.state_dict()) is tally
        (r, g), nothing = (processor.renderer.encode_text(name) for name in "rg"), model.config.image_token_id
        ((first, _),) = model.config.image_place_ids
        rows = torch.eye(model.config.vocab_size)
        model.set_input_embeddings(torch.nn.Embedding.from_pretrained(rows))
        slots = torch.full((5, WORDS + 4), nothing)
        for place, (name, left) in enumerate(((r, 0), (g, 6), (r, 12))):
            slots[place, 0] = name[0]
            slots[place, WORDS:] = first + torch.tensor([left, 1, left + 4, 8])
        written[tally] = model.vision_connector.text(50 * rows[slots], rows, model).tolist()
        assert len(written[tally]) == 24
    counted = model.vision_connector.tally.write([r, g, r], 8)
    assert processor.tokenizer.decode(counted) == "3 objects2r1g"
    things = [[*name, *(first + side for side in (left, 1, left + 4, 8)), *name] for name, left in ((r, 0), (g, 6))]
    assert [token for token in written[True] if token != nothing] == [*things[0], *things[1], *counted]
    assert [token for token in written[False] if token != nothing][:12] == [*things[0], *things[1]]
