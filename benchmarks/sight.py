"""Does a model see what it answers wrongly? What its pictures tell, apart from what its answers make of it.

    python -m benchmarks.sight MODEL TEST.jsonl

For a model trained with the lesson `listen` on boxes (`weft finetune scratch`), on samples with boxes in their answers:

- *pictures*: every place of a picture names itself and the sides of the box it lies in, as the loss on the medium
  teaches (`weft.teaching`); boxes that a likelier one overlaps (IoU over 0.4) are dropped, and the rest is scored as
  an answer is, F1 at IoU 0.5.
- *answers*: mean loss, in nats, of the first, second, third and fourth number of a box, with the sample's own picture
  and with that of another sample in its place. Where both are alike, the answer is not read from the picture.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import weft
from weft.conversation import Box
from weft.data.loader import SourceSpec, TrainingData
from weft.evaluation.scorers import iou
from weft.teaching.labels import Labels

LIKELY = 0.5  # of being one of the names asked for
OVERLAP = 0.4


@torch.no_grad()
def pictures(model: Any, data: TrainingData, samples: int) -> float:
    """F1 at IoU 0.5 of the boxes that the places of pictures tell of by themselves."""
    table_VW = model.get_output_embeddings().weight
    ((first, steps),) = model.config.image_place_ids
    hits = found = there = 0
    for position in range(samples):
        encoded, told = data.encode(position)
        looking = told.seen
        views_XW = model.embed_images(torch.from_numpy(np.concatenate(encoded.images)))
        names_CK = torch.from_numpy(looking.names)
        used_CK1 = (names_CK >= 0)[..., None].float()
        names_CW = (table_VW[names_CK.clamp(min=0)] * used_CK1).sum(1) / used_CK1.sum(1)
        asked_X = 1 - F.linear(views_XW, names_CW).softmax(1)[:, 0]
        width = views_XW.shape[1]
        rolled = [views_XW.roll(-(2 * side + 1) * width // 8, 1) for side in range(4)]
        boxes_X4 = torch.stack([F.linear(r, table_VW[first : first + steps]).argmax(1) for r in rolled], 1) / (
            steps - 1
        )
        boxes = boxes_X4.numpy()
        kept: list[int] = []
        for i in asked_X.argsort(descending=True).tolist():
            if asked_X[i] < LIKELY:
                break
            if not kept or iou(boxes[i : i + 1], boxes[kept]).max() < OVERLAP:
                kept.append(i)
        expected = [b for part in data.conversation(position).parts() if isinstance(part, Box) for b in part.boxes]
        free = set(range(len(expected)))
        for i in kept:
            near = max(free, key=lambda j, i=i: iou(boxes[i : i + 1], np.array([expected[j]]))[0, 0], default=None)
            if near is not None and iou(boxes[i : i + 1], np.array([expected[near]]))[0, 0] >= 0.5:
                free.discard(near)
                hits += 1
        found, there = found + len(kept), there + len(expected)
    return 2 * hits / max(found + there, 1)


@torch.no_grad()
def answers(model: Any, data: TrainingData, samples: int, other: bool) -> list[float]:
    """Mean loss of the four numbers of a box, with the sample's own picture or with ``other`` ones."""
    ((first, steps),) = model.config.image_place_ids
    encoded = [data.encode(position)[0] for position in range(samples)]
    losses: list[list[float]] = [[] for _ in range(4)]
    for k, sample in enumerate(encoded):
        shown = encoded[(k + samples // 2) % samples] if other else sample
        ids_L = torch.from_numpy(sample.input_ids)
        log_LV = (
            model(input_ids=ids_L[None], pixel_values=torch.from_numpy(np.concatenate(shown.images)))
            .logits[0]
            .log_softmax(-1)
        )
        numbers = [i for i in np.flatnonzero(sample.loss_mask) if first <= ids_L[i] < first + steps]
        for order, i in enumerate(numbers):
            losses[order % 4].append(-float(log_LV[i - 1, ids_L[i]]))
    return [float(np.mean(each)) for each in losses]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    given = parser.parse_args()
    loaded = weft.load(given.model, dtype="float32")
    labels = Labels(loaded.processor, guide=False)
    data = TrainingData([SourceSpec(given.data)], loaded.processor, row_tokens=4096, annotate=labels, in_order=True)
    boxed = [
        line
        for line in range(len(data.sources[0]))
        if data.sources[0][line].answer and any(isinstance(p, Box) for p in data.sources[0][line].answer.parts)
    ]
    if len(boxed) != len(data.sources[0]):
        raise SystemExit(
            f"{given.data}: only {len(boxed)} of {len(data.sources[0])} answers hold boxes; give those alone"
        )
    print(f"pictures   F1 {pictures(loaded.model, data, len(boxed)):.2f}")
    for other in (False, True):
        told = "  ".join(f"{loss:.2f}" for loss in answers(loaded.model, data, len(boxed), other))
        print(f"answers    {'another picture' if other else 'own picture    '}  {told}  nats")


if __name__ == "__main__":
    main()
