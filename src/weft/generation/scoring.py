"""How likely a model finds answers that are there already."""

from __future__ import annotations

from typing import Any

import torch

from weft.conversation import Conversation, WeftError


def score(model: Any, read: Conversation | WeftError) -> float:
    """`Model.score` of a conversation; raises what is wrong with it."""
    if isinstance(read, WeftError):
        raise read
    conversation: Conversation = read if model.written is None else model.written.typed(read).conversation
    encoded = model.fits(model.processor.encode(conversation), conversation, 0)
    inputs = model.collated([encoded])
    inputs.pop("labels", None)
    flagged = torch.as_tensor(encoded.loss_mask).nonzero()[:, 0]
    flagged = flagged[flagged > 0]
    if not len(flagged):
        answered = any(m.role == "assistant" for m in conversation.messages)
        why = 'every answer says "learn": false' if answered else "the conversation has no assistant message"
        raise WeftError(f"there is no answer to score: {why}")
    first = int(flagged[0])
    length = inputs["input_ids"].shape[1]
    with torch.inference_mode():
        # Only positions from the first answer on are needed; logits at position i are about the token at i + 1.
        logits_LV = model.model(**inputs, logits_to_keep=length - first + 1).logits[0].float()
    target = inputs["input_ids"][0, flagged]
    chosen = logits_LV[flagged - first].log_softmax(-1).gather(1, target[:, None].to(logits_LV.device))
    return float(chosen.sum())
