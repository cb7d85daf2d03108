import pytest
import tiny
import torch
from torch.nn import functional as F

from weft.models.loss import answer_weights, bell_loss, chunked_cross_entropy, next_token_targets


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 50 * 7, 1 << 20])
def test_chunks_equal_the_full_cross_entropy(smoothing, chunk):
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 30, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    targets = torch.randint(0, 50, (2, 30))
    targets[torch.rand(2, 30) < 0.5] = -100
    total, count = chunked_cross_entropy(
        hidden, targets, lambda h: h @ weight.T, 50, label_smoothing=smoothing, chunk=chunk
    )
    own = torch.autograd.grad(total, (hidden, weight))
    full = F.cross_entropy(
        (hidden @ weight.T).flatten(0, 1), targets.flatten(), reduction="sum", label_smoothing=smoothing
    )
    wanted = torch.autograd.grad(full, (hidden, weight))
    assert count == (targets != -100).sum()
    torch.testing.assert_close(total, full)
    for a, b in zip(own, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_no_more_than_a_chunk_of_logits_exists_at_once():
    seen = []

    def head(hidden):
        seen.append(len(hidden))
        return hidden @ torch.randn(8, 100)

    chunked_cross_entropy(torch.randn(1, 40, 8), torch.zeros(1, 40, dtype=torch.long), head, 100, chunk=1000)
    assert max(seen) == 10 and sum(seen) == 40


def test_without_labels_the_loss_is_zero_and_the_graph_whole():
    hidden = torch.randn(1, 5, 8, requires_grad=True)
    total, count = chunked_cross_entropy(hidden, torch.full((1, 5), -100), lambda h: h, 8)
    total.backward()
    assert total == 0 and count == 0 and hidden.grad is not None and not hidden.grad.any()


def test_labels_stand_at_their_own_position_and_no_sample_predicts_the_next():
    labels = torch.tensor([[5, 6, 7, 8, 9]])
    assert next_token_targets(labels).tolist() == [[6, 7, 8, 9, -100]]
    assert next_token_targets(labels, torch.tensor([2, 3])).tolist() == [[6, -100, 8, 9, -100]]
    assert labels.tolist() == [[5, 6, 7, 8, 9]]


def test_an_answer_counts_for_its_labels_to_a_power():
    targets = torch.tensor([[1, 2, 3, 4, -100, -100, 5, -100, -100]])
    whole = {p: answer_weights(targets, p)[targets != -100].tolist() for p in (0.0, 0.5, 1.0)}
    assert whole == {0.0: [1.0] * 5, 0.5: [0.5] * 4 + [1.0], 1.0: [0.25] * 4 + [1.0]}
    padded = torch.full((3, 6), -100)
    padded[0, 2:], padded[1, :2] = targets[0, :4], targets[0, 6:8]  # a row that ends and one that begins with labels
    assert answer_weights(padded, 1.0)[padded != -100].tolist() == whole[1.0]


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
    total, _ = chunked_cross_entropy(
        hidden, targets, lambda h: h @ weight.T, 50, scales=[(10, 20)], near=1.5, chunk=chunk
    )
    torch.testing.assert_close(total, divergence)
    torch.testing.assert_close(*(torch.autograd.grad(x, hidden)[0] for x in (total, divergence)))


def test_a_bell_is_matched_best_by_itself():
    step = torch.tensor([0, 4, 9])
    bell = torch.log_softmax(-0.5 * ((torch.arange(10) - step[:, None]) / 2.0) ** 2, 1)
    assert abs(bell_loss(bell, step, 2.0)) < 1e-6
    assert bell_loss(bell.roll(1, 1), step, 2.0) > 0.01


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_the_loss_is_that_of_the_logits(family):
    """The head of the loss is the language model's own, whatever the family does to its logits."""
    changes = {"final_logit_softcapping": 3.0} if family in ("gemma2", "gemma3_text") else {}
    model = tiny.model(family, **changes)
    ids = torch.tensor([tiny.words(20)])
    labels = ids.clone()
    labels[:, :8] = -100
    out = model(input_ids=ids, labels=labels)
    logits = model(input_ids=ids).logits
    wanted = F.cross_entropy(logits[0, :-1], next_token_targets(labels)[0, :-1])
    torch.testing.assert_close(out.loss, wanted)
    assert out.logits is None and out.loss_count == 12
