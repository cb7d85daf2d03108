"""The model that a run leaves: an ordinary folder, merged. An adapter is in `export_adapter`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from weft.files import whole_folder
from weft.models.modeling import WeftForConditionalGeneration
from weft.models.processing import WeftProcessor
from weft.training.checkpoint import check_room


def kept_dtype(model: WeftForConditionalGeneration) -> torch.dtype:
    """The type that a model's weights came in, and that its folder has again."""
    said = model.config.dtype or torch.float32
    return said if isinstance(said, torch.dtype) else getattr(torch, said)  # saving leaves a name


def save_model(model: WeftForConditionalGeneration, processor: WeftProcessor, path: Path) -> None:
    """Write model and processor so that ``path`` is whole or not there; weights in the type they came in."""
    with saving(model, path) as folder:
        save_pretrained(model, folder)
        processor.save_pretrained(folder)


@contextmanager
def saving(model: WeftForConditionalGeneration, path: Path) -> Iterator[Path]:
    """A folder that becomes ``path`` once it is written; the weights have the type they came in meanwhile."""
    dtype = kept_dtype(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    check_room(path.parent, model.num_parameters() * dtype.itemsize + (1 << 20), "the model")
    with whole_folder(path) as folder:
        if dtype != torch.float32:
            cast_saved(model, dtype)
        yield folder
        if dtype != torch.float32:
            cast_saved(model, torch.float32)  # what a later stage trains


def round_as_saved(model: WeftForConditionalGeneration) -> None:
    """What `save_model` does to the weights that it leaves in memory, for a rank that does not write them."""
    cast_saved(model, kept_dtype(model))
    cast_saved(model, torch.float32)


def cast_saved(model: WeftForConditionalGeneration, dtype: torch.dtype) -> None:
    """What is saved, in another type. Buffers that are computed (rotary frequencies) are not saved, and stay exact."""
    saved = model.state_dict(keep_vars=True)
    for value in saved.values():
        if value.is_floating_point():
            value.data = value.data.to(dtype)


def save_pretrained(model: WeftForConditionalGeneration, folder: Path, **options: Any) -> None:
    """As in transformers, without its bar."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # it would break into the live line
    try:
        model.save_pretrained(folder, **options)
    finally:
        if shown:
            logging.enable_progress_bar()
