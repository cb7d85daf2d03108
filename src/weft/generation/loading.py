"""A checkpoint's folder or hub name to a model and its processor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.utils import logging

from weft.conversation import WeftError
from weft.formats.checkpoints import DTYPES, check_weft
from weft.models import doors
from weft.models.adapters import FOLDER, adapter_base, merge_lora
from weft.named import Named

LOADED = Named[Any]({"bits": "weft.generation.bits:in_bits"})  # otherwise than as it is saved
SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def resolve_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    if dtype in ("auto", ""):
        return None
    if (found := DTYPES.get(SHORT.get(dtype, dtype))) is None:
        raise WeftError(f"there is no dtype {dtype!r}; choose float32, bfloat16 or float16")
    return found


def default_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def resolve_device(device: str | None) -> torch.device:
    """The device of that name, or the best there is; raises `WeftError` where it is not there."""
    try:
        place = torch.device(device or default_device())
    except RuntimeError:
        raise WeftError(f"there is no device {device!r}; it is cpu, cuda, cuda:1, mps, ...") from None
    if place.type == "cuda" and not torch.cuda.is_available():
        raise WeftError(f"the device {device!r} is asked for, and torch sees no GPU; leave --device out to use the CPU")
    return place


def load_parts(
    path: str | os.PathLike[str],
    dtype: str | torch.dtype | None = None,
    device: str | None = None,
    bits: int | None = None,
) -> tuple[Any, Any]:
    """``(model, processor)`` of a weft checkpoint, merged or as an adapter beside its base, in evaluation mode.

    ``bits``: 8 or 4 for the language model's layers (`bits`); encoders, connectors and the head stay.
    """
    from weft.models.modeling import WeftForConditionalGeneration

    place, name = resolve_device(device), doors.place(path)
    wanted = resolve_dtype(dtype)
    base, adapter = adapter_base(name)
    processor = load_processor(name)
    options = {} if bits is None else LOADED["bits"](bits, place, name if adapter else None)
    with in_one_sentence(base, name if adapter else None):
        model = doors.load(WeftForConditionalGeneration, name, dtype=wanted or "auto", **options)
    if bits is not None:
        return model.eval(), processor
    if adapter and model.gate is None:
        merge_lora(model)
    if wanted is None and place.type == "cpu" and next(model.parameters()).dtype == torch.float16:
        model = model.float()
    model.to(place)  # type: ignore[arg-type]  # transformers' wrapper loses the signature
    return model.eval(), processor


def load_processor(path: str | os.PathLike[str]) -> Any:
    """The processor of a checkpoint, its weights unread: enough to count tokens and to render."""
    from weft.models.processing import WeftProcessor

    name = doors.place(path)
    base, adapter = adapter_base(name)
    check_name(base)
    if Path(base).is_dir() and not (Path(name) / "processor_config.json").is_file():
        raise WeftError(
            f"{name} has no processor and no tokenizer, so it takes token ids only (AutoModelForMultimodalLM); to use "
            f"it with words, import the checkpoint with its tokenizer"
        )
    folder = name if adapter else base
    with in_one_sentence(base, name if adapter else None):
        try:
            return doors.load(WeftProcessor, folder)
        except (OSError, ValueError) as error:
            if Path(folder).is_dir() and not (Path(folder) / "tokenizer.json").is_file():
                raise WeftError(f"{folder} has no tokenizer.json; copy the checkpoint again") from error
            raise


@contextmanager
def in_one_sentence(name: str, adapter: str | None = None) -> Iterator[None]:
    """What transformers says about a checkpoint that it cannot read, as one sentence about ``name``; no bars.

    ``adapter``: the adapter that names it as its base.
    """
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    except WeftError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if isinstance(error, SafetensorError):
            reason = f"a file of weights is cut or damaged ({reason}); copy the checkpoint again"
        if adapter is not None:
            raise WeftError(FOLDER["lost"](adapter, name, f"which cannot be loaded ({reason})")) from error
        raise WeftError(f"{name} cannot be loaded as a weft model: {reason}") from error
    finally:
        if bars:
            logging.enable_progress_bar()


def check_name(name: str) -> None:
    """Raises `WeftError` where ``name`` is neither the folder of a weft model nor may be a hub name."""
    folder = Path(name)
    if folder.is_dir():
        check_weft(folder, name)
    elif doors.resolve(name) == "built-in":  # who knows what that is has taken its turn before
        raise WeftError(f"{name} is no checkpoint but a recipe of weft's own; write model=weft.recipes.{name}()")
