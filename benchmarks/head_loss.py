"""The loss of 1,000 labels of 152,064 words with its gradient, in bfloat16 on one core: time, and memory.

    python -m benchmarks.head_loss [--repeats 3] [--width 384]

These ways, each in a process of its own, a head that trains:

- plain: logits in one piece, `F.cross_entropy` in float32;
- one piece, and chunks: as `models/loss.py` makes it;
- in place: what chunks could be, were the head nothing but a matrix. The gradient of its weights is made for 8,192
  words at a time and added where it is kept, in float32; with chunks of 384, 192 and 96 labels. Training does not do
  this (docs/performance.md says why).

Grown is the most that the process held beyond what it held before, of which the gradient of the head in float32 is
`152064 * width * 4` bytes in all of them.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import torch
from torch.nn import functional as F

from weft.models.loss import chunk_rows, cross_entropy, in_chunks
from weft.models.softmax_loss import SoftmaxLoss

LABELS, WORDS, AT_ONCE = 1000, 152_064, 8192
WAYS = ("plain", "one piece", "chunks", "in place 384", "in place 192", "in place 96")


def in_place(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, targets_N: torch.Tensor, rows: int) -> torch.Tensor:
    """The loss; its gradients go to ``.grad`` of both."""
    half_VD, total = weight_VD.detach().bfloat16(), torch.zeros(())
    weight_VD.grad, hidden_ND.grad = torch.zeros_like(weight_VD), torch.empty_like(hidden_ND)
    for start in range(0, len(hidden_ND), rows):
        some_nD = hidden_ND.detach()[start : start + rows].bfloat16()
        logits_nV = (some_nD @ half_VD.T).requires_grad_()
        part = SoftmaxLoss.apply(logits_nV, targets_N[start : start + rows], 0.0)
        (slopes_nV,) = torch.autograd.grad(part, logits_nV)
        total += part.detach()
        del logits_nV, part
        hidden_ND.grad[start : start + rows] = slopes_nV @ half_VD
        for word in range(0, len(weight_VD), AT_ONCE):
            weight_VD.grad[word : word + AT_ONCE] += slopes_nV[:, word : word + AT_ONCE].T @ some_nD
    return total


def run(way: str, hidden_ND: torch.Tensor, head: torch.nn.Linear, targets_N: torch.Tensor) -> float:
    rows = chunk_rows(WORDS) * 2  # as under autocast on a CPU
    hidden_ND.grad = head.weight.grad = None
    if way.startswith("in place"):
        return float(in_place(hidden_ND, head.weight, targets_N, int(way.split()[-1])))
    with torch.autocast("cpu", torch.bfloat16):
        if way == "plain":
            loss = F.cross_entropy(head(hidden_ND).float(), targets_N, reduction="sum")
        else:
            loss = in_chunks(cross_entropy(head), rows if way == "chunks" else LABELS)(hidden_ND, targets_N)
    loss.backward()
    return float(loss.detach())


def measured(way: str, repeats: int, width: int) -> str:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    head = torch.nn.Linear(width, WORDS, bias=False)
    hidden_ND, targets_N = torch.randn(LABELS, width, requires_grad=True), torch.randint(0, WORDS, (LABELS,))
    before, taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(repeats):
        began = time.process_time()
        loss = run(way, hidden_ND, head, targets_N)
        taken.append(time.process_time() - began)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    assert head.weight.grad is not None and hidden_ND.grad is not None
    norms = f"{float(head.weight.grad.norm()):.2f}, {float(hidden_ND.grad.norm()):.3f}"
    return f"| {way} | {min(taken):.2f} | {grown:,.0f} | {loss:.0f} | {norms} |"


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--repeats", type=int, default=3)
    ask.add_argument("--width", type=int, default=384)
    ask.add_argument("--way", choices=WAYS)
    given = ask.parse_args()
    if given.way:
        print(measured(given.way, given.repeats, given.width))
        return
    print(
        "| a head that trains | CPU s, least | MB grown | loss | norms of gradients |\n|---|---|---|---|---|",
        flush=True,
    )
    more = ["--repeats", str(given.repeats), "--width", str(given.width)]
    for way in WAYS:
        subprocess.run([sys.executable, "-m", "benchmarks.head_loss", "--way", way, *more], check=True)


if __name__ == "__main__":
    main()
