"""What is learned beside answers: its value, its gradient, and that it can be learned."""

from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from teaching_kit import data, taught
from torch.nn import functional as F

from training_world import picture, speech, text, tiny_spec, write
from weft.conversation import WeftError
from weft.models.config import Connector
from weft.models.loss import loss_at
from weft.teaching import losses
from weft.teaching.gaze import Gaze
from weft.teaching.losses import (
    Answers,
    Heard,
    Seen,
    Watched,
    answer_weights,
    attention_watched,
    bell_loss,
    guided_layers,
    guiding_loss,
    naming_loss,
    with_bells,
)
from weft.training.build import build_model
from weft.training.recipe import TowerSource
from weft.training.update import MicroStep, backward, read

GUIDE = {"listen": {"guide": 1.0}}


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
    spec = tiny_spec()
    model, _ = build_model(spec)
    model.set_attn_implementation("sdpa")
    with pytest.raises(WeftError, match="weft's attention"), attention_watched(model):
        pass


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write(tmp_path_factory.mktemp("pictures"), 8, (picture,))


def test_a_model_learns_to_look_where_it_writes(pictures):
    model, processor = build_model(tiny_spec())
    batch = next(data([pictures], processor, lessons=GUIDE).batches())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    told = []
    for _ in range(12):
        optimizer.zero_grad()
        told.append(backward(model, [batch], taught(**GUIDE).objectives(0), precision="float32"))
        optimizer.step()
    assert told[-1]["guide"] < 0.7 * told[0]["guide"]
    assert "guide" not in backward(model, [batch], precision="float32")


def test_guiding_works_through_activation_checkpointing(pictures):
    model, processor = build_model(tiny_spec())
    batch = next(data([pictures], processor, lessons=GUIDE).batches())
    gradients = []
    for on in (False, True):
        model.train()
        if on:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.zero_grad()
        backward(model, [batch], taught(**GUIDE).objectives(0), precision="float32")
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
    batch = next(data([untimed], processor, 600, GUIDE).batches())
    assert "input_features" in batch.inputs and "pixel_values" in batch.inputs
    assert backward(model, [batch], taught(**GUIDE).objectives(0), precision="float32")["guide"] > 0


def test_media_of_later_turns_are_out_of_sight():
    query, key = torch.ones(1, 2, 8, 2), torch.ones(1, 2, 8, 2)
    alone = Gaze(np.array([5]), np.array([0]), np.array([1, 2]), np.array([[False, True]]))
    later = Gaze(np.array([5]), np.array([0]), np.array([1, 2, 6, 7]), np.array([[False, True, False, False]]))
    wanted = guiding_loss(watched(query, key), [alone], [(0, 0)])
    assert guiding_loss(watched(query, key), [later], [(0, 0)]) == pytest.approx(float(wanted), abs=1e-6)


def test_listening_is_the_same_in_any_grouping(placed, tmp_path):
    """Samples have more or fewer words for their length, so the sides known are no fixed share of the embeddings."""
    model, processor = placed
    file = write(tmp_path, 12, (text, speech, picture))
    lessons = {"listen": {"weight": 1, "guide": 1}, "near": 1, "balance": 0.5}

    def learned(row_tokens):
        model.zero_grad()
        batches = list(data([file], processor, row_tokens, lessons, in_order=True).batches())
        told = backward(model, batches, taught(**lessons).objectives(0), precision="float32")
        return len(batches), read(told), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    (one, told, gradients), (many, again, others) = learned(4000), learned(110)
    assert one == 1 and many > 3 and {"loss", "listen", "look", "guide"} <= told.keys()
    assert again == pytest.approx(told, rel=1e-5)
    for name, value in gradients.items():
        assert torch.allclose(others[name], value, rtol=1e-3, atol=1e-5), name


def test_an_answer_counts_for_its_labels_to_a_power():
    targets = torch.tensor([[1, 2, 3, 4, -100, -100, 5, -100, -100]])

    def counted(targets, power):
        return answer_weights((targets.flatten() != -100).nonzero()[:, 0], power).tolist()

    whole = {p: counted(targets, p) for p in (0.0, 0.5, 1.0)}
    assert whole == {0.0: [1.0] * 5, 0.5: [0.5] * 4 + [1.0], 1.0: [0.25] * 4 + [1.0]}
    padded = torch.full((3, 7), -100)
    padded[0, 2:6], padded[1, :2] = targets[0, :4], targets[0, 6:8]  # a row never ends with a label to predict
    assert counted(padded, 1.0) == whole[1.0]


@pytest.mark.parametrize("chunk", [1, 50 * 7, 1 << 20])
def test_on_a_scale_a_bell_stands_for_the_right_step(chunk):
    torch.manual_seed(0)
    hidden, weight = torch.randn(1, 20, 8, requires_grad=True), torch.randn(50, 8)
    targets = torch.randint(0, 50, (1, 20))
    targets[0, :5] = torch.arange(10, 15)
    wanted = F.one_hot(targets[0], 50).float()
    on = (targets[0] >= 10) & (targets[0] < 30)
    bells = torch.exp(-0.5 * ((torch.arange(10, 30) - targets[0, on, None]) / 1.5) ** 2)
    wanted[on, 10:30] = bells / bells.sum(1, keepdim=True)
    log = (hidden[0] @ weight.T).log_softmax(1)
    divergence = F.kl_div(log, wanted, reduction="sum")
    loss = with_bells(lambda h: h @ weight.T, 0.0, [(10, 20)], 1.5)
    total = loss_at(torch.arange(20), hidden, loss, 50, targets[0], torch.ones(20), chunk=chunk)
    torch.testing.assert_close(total, divergence)
    torch.testing.assert_close(*(torch.autograd.grad(x, hidden)[0] for x in (total, divergence)))


def test_a_bell_is_matched_best_by_itself():
    step = torch.tensor([0, 4, 9])
    bell = torch.log_softmax(-0.5 * ((torch.arange(10) - step[:, None]) / 2.0) ** 2, 1)
    assert abs(bell_loss(bell, step, 2.0)) < 1e-6
    assert bell_loss(bell.roll(1, 1), step, 2.0) > 0.01


@pytest.fixture(scope="module")
def placed():
    """A model whose connectors name places."""
    spec = tiny_spec()
    towers = {
        "vision": spec.vision.model_copy(update={"connector": Connector(merge=4, grid=True, places=True)}),
        "audio": spec.audio.model_copy(update={"connector": Connector(merge=4, places=True)}),
    }
    return build_model(spec.model_copy(update=towers))


def test_of_a_large_vocabulary_what_sounds_and_a_share_of_the_rest_compete(placed, monkeypatch):
    model, _ = placed
    table = model.get_output_embeddings().weight
    sounds = torch.randn(6, table.shape[1], generator=torch.Generator().manual_seed(0), requires_grad=True)
    heard = np.array([5, -100, 7, 5, -100, 300])
    exact = naming_loss(model, sounds.detach(), heard)
    with torch.no_grad():
        wanted = F.cross_entropy(
            model.logits(sounds[heard >= 0]).float(), torch.tensor([5, 7, 5, 300]), reduction="sum"
        )
    assert exact.detach() == pytest.approx(float(wanted), abs=1e-4)
    monkeypatch.setattr(losses, "MOST_NAMES", len(table) // 8)
    some = naming_loss(model, sounds, heard)
    assert 0 < some < exact  # the same logits, with fewer beside them
    (gradient,) = torch.autograd.grad(some, sounds)
    assert (gradient.abs().sum(1) > 0).tolist() == (heard >= 0).tolist()


def test_sharpness_is_a_factor_of_the_embeddings_and_leaves_them_short(placed, tmp_path):
    model, processor = placed
    batch = next(data([write(tmp_path, 4)], processor, 256, {"listen": {"weight": 1.0}}).batches())
    for objective in (Heard, Seen):
        watched = torch.randn(400, model.config.text_config.hidden_size, generator=torch.Generator().manual_seed(0))
        counts = objective(1.0).counts(batch)
        if not counts[0]:
            continue
        size = len(batch.extra.heard.heard if objective is Heard else batch.extra.seen.seen)
        long, short = watched[:size], watched[:size] / 5
        step = MicroStep(model, batch)
        with torch.no_grad():
            assert objective(1.0, sharpness=5.0).loss(step, [short], counts) == pytest.approx(
                float(objective(1.0).loss(step, [long], counts)), rel=1e-4
            )
            assert objective(1.0, sides=0.0).loss(step, [long], counts) < objective(1.0).loss(step, [long], counts)


@pytest.mark.parametrize(
    ("token", "changed"),
    [("<|f4|>", True), ("<|p3|>", True), ("<|t0.3|>", False), ("a", False)],
)
def test_what_is_nearly_right_counts_on_the_finest_scale_alone(placed, token, changed):
    """Hundredths of a second and steps of a side are bells; tenths and words are what they are."""
    model, processor = placed
    ids = torch.tensor([processor.tokenizer.convert_tokens_to_ids(["a", token])])
    batch = SimpleNamespace(inputs={"input_ids": ids, "labels": torch.tensor([[-100, ids[0, 1]]])})
    with torch.no_grad():
        exact, bell = (Answers(near=near).loss(MicroStep(model, batch), None, (1,)) for near in (0.0, 2.0))
        assert exact == pytest.approx(float(model(input_ids=ids, labels=batch.inputs["labels"]).loss))
    assert (abs(float(exact - bell)) > 1e-3) == changed


def test_one_batch_its_parts_and_the_same_packed_are_guided_alike(tmp_path):
    model, processor = build_model(tiny_spec())
    file = write(tmp_path, 24)
    padded, parts = (data([file], processor, 256, GUIDE, packing=False, rows=rows) for rows in (6, 2))
    packed = next(padded.batches())
    encoded, told = zip(*(padded.encode(padded.plan[row][0]) for row in range(6)), strict=True)
    packed.inputs = processor.pack(encoded)
    packed.extra = padded.annotate.join(told, [(0, sum(map(len, encoded[:i]))) for i in range(6)])
    gradients = []
    for micro in ([next(padded.batches())], list(islice(parts.batches(), 3)), [packed]):
        model.zero_grad()
        losses = read(backward(model, micro, taught(**GUIDE).objectives(0), precision="float32"))
        gradients.append((losses, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    for losses, gradient in gradients[1:]:
        assert losses == pytest.approx(gradients[0][0], abs=1e-5) and losses["guide"] > 0
        for name, value in gradients[0][1].items():
            assert (gradient[name] - value).abs().max() <= 1e-5 + 1e-4 * value.abs().max(), name
