import pytest
import tiny
import torch
from torch.nn import functional as F

from weft.models import softmax_loss
from weft.models.loss import cross_entropy, in_chunks, loss_at, next_tokens


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 50 * 7, 1 << 20])
def test_chunks_equal_the_full_cross_entropy(smoothing, chunk):
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 30, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    places, targets = torch.randperm(60)[:31].sort().values, torch.randint(0, 50, (31,))
    loss = cross_entropy(lambda h: h @ weight.T, smoothing)
    total = loss_at(places, hidden, loss, 50, targets, chunk=chunk)
    own = torch.autograd.grad(total, (hidden, weight))
    full = F.cross_entropy(
        (hidden @ weight.T).flatten(0, 1)[places], targets, reduction="sum", label_smoothing=smoothing
    )
    wanted = torch.autograd.grad(full, (hidden, weight))
    torch.testing.assert_close(total, full)
    for a, b in zip(own, wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [50 * 7, 1 << 20])
def test_half_precision_gives_the_gradient_of_its_logits(monkeypatch, smoothing, chunk):
    """Made a few rows at a time, it is that of autograd but for the rounding of a row's last digit."""
    torch.manual_seed(0)
    monkeypatch.setattr(softmax_loss, "AT_ONCE", 150)
    logits = (9 * torch.randn(1, 31, 50)).bfloat16().requires_grad_()
    targets = torch.randint(0, 50, (31,))
    total = loss_at(torch.arange(31), logits, cross_entropy(lambda h: h, smoothing), 50, targets, chunk=chunk)
    (own,) = torch.autograd.grad(3 * total, logits)
    exact = F.cross_entropy(logits[0].float(), targets, reduction="sum", label_smoothing=smoothing)
    (wanted,) = torch.autograd.grad(3 * exact, logits)
    torch.testing.assert_close(total, exact)
    torch.testing.assert_close(own.float(), wanted.float(), rtol=2**-6, atol=1e-6)
    with torch.no_grad():
        told = loss_at(torch.arange(31), logits, cross_entropy(lambda h: h, smoothing), 50, targets, chunk=chunk)
    assert torch.equal(told, total.detach())


def test_half_precision_takes_what_is_all_but_impossible():
    logits = torch.tensor([[[0.0, 3e4, -3e4], [0.0, float("nan"), 0.0]]]).bfloat16()
    loss = cross_entropy(lambda h: h)
    assert loss_at(torch.arange(1), logits, loss, 3, torch.tensor([2])) == 2 * logits[0, 0, 1].float()
    assert loss_at(torch.arange(2), logits, loss, 3, torch.tensor([2, 2])).isnan()


def test_a_gradient_that_is_used_up_is_not_taken_for_none():
    logits = torch.zeros(2, 5, dtype=torch.bfloat16, requires_grad=True)
    loss = cross_entropy(lambda hidden: hidden)(logits, torch.tensor([1, 2]))
    loss.backward(retain_graph=True)
    assert logits.grad is not None and logits.grad.any()
    with pytest.raises(RuntimeError, match="gives its gradient once"):
        loss.backward()


def test_no_more_than_a_chunk_of_logits_exists_at_once():
    seen = []

    def head(hidden):
        seen.append(len(hidden))
        return hidden @ torch.randn(8, 100)

    zeros = torch.zeros(40, dtype=torch.long)
    loss_at(torch.arange(40), torch.randn(1, 40, 8), cross_entropy(head), 100, zeros, chunk=1000)
    assert max(seen) == 10 and sum(seen) == 40


def test_each_row_meets_the_head_once_and_what_does_not_learn_gets_no_gradient():
    """The gradient is made with the logits, of whatever the head learns, and scaled by what comes after."""
    torch.manual_seed(0)
    hidden, seen = torch.randn(1, 40, 8, requires_grad=True), []
    table, bias = torch.randn(30, 8), torch.randn(30, requires_grad=True)

    def head(rows):
        seen.append(len(rows))
        return rows @ table.T + bias

    targets, places = torch.randint(0, 30, (40,)), torch.arange(40)
    total = loss_at(places, hidden, cross_entropy(head), 30, targets, chunk=300)
    assert seen == [10] * 4
    own = torch.autograd.grad(total * 3, (hidden, bias))
    assert seen == [10] * 4
    wanted = torch.autograd.grad(F.cross_entropy(head(hidden)[0], targets, reduction="sum") * 3, (hidden, bias))
    for a, b in zip(own, wanted, strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        plain = loss_at(places, hidden, cross_entropy(head), 30, targets, chunk=300)
    torch.testing.assert_close(plain, total.detach())
    assert not loss_at(
        places, hidden.detach(), cross_entropy(lambda h: h @ table.T), 30, targets, chunk=300
    ).requires_grad


def test_without_labels_the_loss_is_zero_and_the_graph_whole():
    hidden = torch.randn(1, 5, 8, requires_grad=True)
    places, targets = next_tokens(torch.full((1, 5), -100))
    total = loss_at(places, hidden, cross_entropy(lambda h: h), 8, targets)
    total.backward()
    assert total == 0 and hidden.grad is not None and not hidden.grad.any()


def test_labels_stand_at_their_own_position_and_no_sample_predicts_the_next():
    labels = torch.tensor([[5, 6, 7, 8, 9]])
    assert [each.tolist() for each in next_tokens(labels)] == [[0, 1, 2, 3], [6, 7, 8, 9]]
    assert [each.tolist() for each in next_tokens(labels, torch.tensor([2, 3]))] == [[0, 2, 3], [6, 8, 9]]
    rows = torch.tensor([[5, 6, -100], [7, -100, 8]])
    assert [each.tolist() for each in next_tokens(rows)] == [[0, 4], [6, 8]]
    assert labels.tolist() == [[5, 6, 7, 8, 9]]


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
    wanted = F.cross_entropy(logits[0, :-1], labels[0, 1:])
    torch.testing.assert_close(out.loss, wanted)
    assert out.logits is None and out.loss_count == 12
    hidden = model.last_hidden(input_ids=ids)
    torch.testing.assert_close(model.logits(hidden), logits)


@pytest.mark.parametrize("twice", [False, True])
def test_a_head_that_is_cast_learns_in_chunks_what_each_chunk_alone_teaches_it(twice):
    """Its gradient is asked for behind the cast, unless the weights are used without it as well."""
    torch.manual_seed(0)
    weight, hidden = torch.randn(11, 8, requires_grad=True), torch.randn(10, 8, requires_grad=True)
    targets = torch.randint(0, 11, (10,))

    def head(rows):
        far = weight.mean().abs().sqrt().sqrt().sqrt().sqrt().sqrt()  # so that the cast is met first
        return F.linear(rows, weight) * (far if twice else 1)

    with torch.autocast("cpu", torch.bfloat16):
        in_chunks(cross_entropy(head), 4)(hidden, targets).backward()
    wanted = torch.zeros_like(weight)
    for rows, some in zip(hidden.detach().split(4), targets.split(4), strict=True):
        with torch.autocast("cpu", torch.bfloat16):
            wanted += torch.autograd.grad(cross_entropy(head)(rows, some), weight)[0]
    assert torch.equal(weight.grad, wanted) and weight.grad.abs().sum() > 0
