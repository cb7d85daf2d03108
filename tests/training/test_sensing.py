"""Guided attention: its value, its gradient, and that it can be learned."""

import numpy as np
import pytest
import torch

from training_world import picture, speech, text, tiny_spec, write
from weft.conversation import WeftError
from weft.data.gaze import Gaze
from weft.data.loader import SourceSpec, TrainingData
from weft.models.attention import Watched
from weft.models.config import Connector
from weft.training.build import build_model
from weft.training.recipe import TowerSource
from weft.training.sensing import guided_layers, guiding_loss
from weft.training.update import backward


def watched(query, key):
    return [Watched(query, key, 1.0)]


def test_the_loss_is_the_share_of_attention_beside_the_spot():
    key = torch.zeros(1, 1, 6, 2)  # two key heads shared by four query heads would be alike: one
    key[0, 0, 2] = torch.tensor([2.0, 0.0])
    query = torch.ones(1, 4, 6, 2)
    gaze = Gaze(np.array([5]), np.array([0]), np.array([1, 2, 3]), np.array([[False, True, False]]))
    expected = -torch.tensor([0.0, 2.0, 0.0]).log_softmax(0)[1]
    assert guiding_loss(watched(query, key), [gaze], [(0, 0)]) == pytest.approx(float(expected), abs=1e-6)
    both = Gaze(np.array([5]), np.array([0]), np.array([1, 2, 3]), np.array([[True, True, True]]))
    assert guiding_loss(watched(query, key), [both], [(0, 0)]) == pytest.approx(0.0, abs=1e-6)


def test_the_token_before_the_one_that_is_written_looks():
    query, key = torch.zeros(1, 2, 6, 2), torch.zeros(1, 2, 6, 2)
    key[0, :, 2, 0] = 3.0
    gaze = Gaze(np.array([5]), np.array([0]), np.array([1, 2, 3]), np.array([[False, True, False]]))
    query[0, :, 5, 0] = 1.0
    chance = float(np.log(3))
    assert guiding_loss(watched(query, key), [gaze], [(0, 0)]) == pytest.approx(chance, abs=1e-6)
    query[0, :, 4, 0] = 1.0
    assert guiding_loss(watched(query, key), [gaze], [(0, 0)]) < chance / 3


def test_half_of_the_heads_stay_free():
    query = torch.randn(1, 4, 6, 2, requires_grad=True)
    key = torch.randn(1, 2, 6, 2)
    gaze = Gaze(np.array([5]), np.array([0]), np.array([1, 2, 3]), np.array([[False, True, False]]))
    guiding_loss(watched(query, key), [gaze], [(0, 0)]).backward()
    assert query.grad[0, :2, 4].abs().min() > 0 and not query.grad[0, 2:].any()


def test_a_model_with_another_attention_is_refused():
    with pytest.raises(WeftError, match="weft's attention"):
        guiding_loss([], [], [])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write(tmp_path_factory.mktemp("pictures"), 8, (picture,))


def test_a_model_learns_to_look_where_it_writes(pictures):
    model, processor = build_model(tiny_spec())
    data = TrainingData([SourceSpec(pictures)], processor, row_tokens=300, guide=True)
    batch = next(data.batches())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    told = []
    for _ in range(12):
        optimizer.zero_grad()
        told.append(backward(model, [batch], precision="float32", guide=1.0))
        optimizer.step()
    assert told[-1]["guide"] < 0.7 * told[0]["guide"]
    assert "guide" not in backward(model, [batch], precision="float32")


def test_guiding_works_through_activation_checkpointing(pictures):
    model, processor = build_model(tiny_spec())
    batch = next(TrainingData([SourceSpec(pictures)], processor, row_tokens=300, guide=True).batches())
    gradients = []
    for on in (False, True):
        model.train()
        if on:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.zero_grad()
        backward(model, [batch], precision="float32", guide=1.0)
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    for name, value in gradients[0].items():
        assert torch.allclose(gradients[1][name], value, atol=1e-6), name
    assert {m.layer_idx for m in guided_layers(model)} == {model.config.text_config.num_hidden_layers - 1}


def test_only_the_language_model_is_guided(tmp_path):
    """Whisper's decoder numbers its layers as well."""
    spec = tiny_spec()
    whisper = {**spec.audio.config, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 24}
    whisper |= {"max_target_positions": 12, "decoder_start_token_id": 1}
    audio = TowerSource(kind="whisper_decoder", config=whisper, options={"decoder_tokens": 6})
    model, processor = build_model(spec.model_copy(update={"audio": audio}))
    untimed = write(tmp_path, 6, (speech, picture, picture))
    batch = next(TrainingData([SourceSpec(untimed)], processor, row_tokens=600, guide=True).batches())
    assert "input_features" in batch.inputs and "pixel_values" in batch.inputs
    assert backward(model, [batch], precision="float32", guide=1.0)["guide"] > 0


def test_media_of_later_turns_are_out_of_sight():
    query, key = torch.ones(1, 2, 8, 2), torch.ones(1, 2, 8, 2)
    alone = Gaze(np.array([5]), np.array([0]), np.array([1, 2]), np.array([[False, True]]))
    later = Gaze(np.array([5]), np.array([0]), np.array([1, 2, 6, 7]), np.array([[False, True, False, False]]))
    wanted = guiding_loss(watched(query, key), [alone], [(0, 0)])
    assert guiding_loss(watched(query, key), [later], [(0, 0)]) == pytest.approx(float(wanted), abs=1e-6)


def test_listening_is_the_same_in_any_grouping(tmp_path):
    """Samples have more or fewer words for their length, so the sides known are no fixed share of the embeddings."""
    spec = tiny_spec()
    towers = {
        "vision": spec.vision.model_copy(update={"connector": Connector(merge=4, grid=True, places=True)}),
        "audio": spec.audio.model_copy(update={"connector": Connector(merge=4, places=True)}),
    }
    model, processor = build_model(spec.model_copy(update=towers))
    source = SourceSpec(write(tmp_path, 12, (text, speech, picture)))

    def learned(row_tokens):
        model.zero_grad()
        data = TrainingData([source], processor, row_tokens=row_tokens, in_order=True, listen=True, guide=True)
        batches = list(data.batches())
        told = backward(model, batches, precision="float32", listen=1.0, guide=1.0, near=1.0, balance=0.5)
        return len(batches), told, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    (one, told, gradients), (many, again, others) = learned(4000), learned(110)
    assert one == 1 and many > 3 and {"loss", "listen", "look", "guide"} <= told.keys()
    assert again == pytest.approx(told, rel=1e-5)
    for name, value in gradients.items():
        assert torch.allclose(others[name], value, rtol=1e-3, atol=1e-5), name
