"""Where answers look: every token of a box at that box, every token of a timed word at its moment."""

import numpy as np
import pytest
import teaching_kit
import torch

from training_world import RATE, picture, speech, text, tiny_spec, write
from weft.conversation import Audio, Box, Conversation, Image, Message, Task, Text, Word, Words
from weft.data.loader import SourceSpec, TrainingData
from weft.models.places import token_grid
from weft.teaching.gaze import gaze_labels
from weft.training.build import build_model


@pytest.fixture(scope="module")
def processor():
    return build_model(tiny_spec())[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("samples")
    return [write(root / make.__name__, 12, (make,), seed=i) for i, make in enumerate((speech, picture, text))]


def told(conversation, processor):
    encoded = processor.encode(conversation)
    return encoded, gaze_labels(conversation, encoded, processor)


def test_tokens_of_a_box_look_into_it(processor, files):
    data = TrainingData([SourceSpec(files[1])], processor, row_tokens=300)
    conversation = data.conversation(0)
    encoded, gaze = told(conversation, processor)
    ((left, top, right, bottom),) = conversation.answer.parts[0].boxes
    written = [processor.tokenizer.convert_ids_to_tokens(int(encoded.input_ids[t])) for t in gaze.tokens]
    assert len(written) == 4 and all(token.startswith("<|p") for token in written)
    assert encoded.loss_mask[gaze.tokens].all() and set(gaze.spot) == {0}
    rows, columns = token_grid(processor.images)
    y, x = np.divmod(np.flatnonzero(gaze.inside[0]), columns)
    assert len(x) and abs((x + 0.5) / columns - (left + right) / 2).max() <= (right - left) / 2 + 0.5 / columns
    assert abs((y + 0.5) / rows - (top + bottom) / 2).max() <= (bottom - top) / 2 + 0.5 / rows
    (span,) = encoded.spans
    assert gaze.media.tolist() == list(range(span.start, span.start + span.length))


def test_each_box_in_its_own_image_and_in_the_order_it_is_written(processor, files):
    data = TrainingData([SourceSpec(files[1])], processor, row_tokens=300)
    shown = data.conversation(0).images[0]
    boxes = ((0.5, 0.5, 1.0, 1.0), (0.0, 0.0, 0.5, 0.5))
    answer = Message("assistant", (Box(boxes, "the red box", 1), Text(" and more")))
    question = Message("user", (Image(shown.source), Image(shown.source), Task("detection"), Text("the red box")))
    encoded, gaze = told(Conversation((question, answer)), processor)
    first, second = encoded.spans
    assert gaze.inside.shape == (2, first.length + second.length) and not gaze.inside[:, : first.length].any()
    assert len(gaze.tokens) == 8 and (gaze.inside.sum(1) > 0).all() and not (gaze.inside[0] & gaze.inside[1]).any()
    numbers = [int(processor.tokenizer.convert_ids_to_tokens(int(encoded.input_ids[t]))[3:-2]) for t in gaze.tokens]
    lower = [numbers[4 * i] > 0 for i in range(2)]  # sorted or not, the gaze follows the numbers
    _, columns = token_grid(processor.images)
    for spot, at in zip(gaze.spot[::4], lower, strict=True):
        place = np.flatnonzero(gaze.inside[spot])[0] - first.length
        assert (place % columns > 0) == at


def test_words_and_their_times_listen_to_their_moment(processor):
    wave = np.zeros(4 * RATE, np.float32)
    words = (Word("one", 0.5, 1.0), Word("two", 2.0, 2.001))
    question = Message("user", (Audio((wave, RATE)), Task("transcribe", {"timestamps": True})))
    conversation = Conversation((question, Message("assistant", (Words(words, 0),))))
    encoded, gaze = told(conversation, processor)
    (span,) = encoded.spans
    moments = (np.arange(span.length) + 0.5) * 4 / span.length
    step = moments[1] - moments[0]
    one, two = gaze.inside
    assert (one == ((moments >= 0.5) & (moments < 1.0))).all()
    assert two.sum() == 1 and abs(moments[two] - 2.0).max() <= step  # shorter than any embedding: the nearest
    text_one = processor.renderer.encode_text("one")
    assert sum(gaze.spot == 0) == 4 + len(text_one)  # two tokens a time, and the word between


def test_what_tells_of_no_spot_looks_nowhere(processor, files):
    data = TrainingData([SourceSpec(files[2])], processor, row_tokens=300)
    _, gaze = told(data.conversation(0), processor)
    assert not len(gaze.tokens) and gaze.inside.shape[0] == 0


def test_a_batch_knows_where_its_samples_begin(processor, files):
    for packing in (True, False):
        data = teaching_kit.data(files, processor, rows=2, packing=packing, lessons={"listen": {"guide": 1}})
        batch = next(b for b in data.batches() if sum(len(g.tokens) for g in b.extra.gazes) > 4)
        assert len(batch.extra.gazes) == len(batch.extra.starts) == len(batch.samples)
        labels, ids = batch.inputs["labels"], batch.inputs["input_ids"]
        slots = torch.tensor([processor.token_ids["image_token_id"], processor.token_ids["audio_token_id"]])
        for gaze, (row, start) in zip(batch.extra.gazes, batch.extra.starts, strict=True):
            assert (labels[row, start + gaze.tokens] >= 0).all()
            assert torch.isin(ids[row, start + gaze.media], slots).all()
