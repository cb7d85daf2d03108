"""An adapter folder beside its base: where the base is, and whether everything of the adapter found its place.

The folder holds PEFT's two files, weft's own ``config.json`` and processor, and may hold its base as ``base/``. With a
``config.json`` there, `transformers` leaves the folder to weft's class, which knows where the base lies; it would take
``base`` for a hub name.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from weft.conversation import WeftError
from weft.models.doors import check_safetensors, place, resolve

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # peft's name for the model inside a PeftModel


class AdapterError(WeftError):
    """An adapter without its base, or of a kind that cannot be loaded, merged or written."""


def is_adapter(name: str) -> bool:
    return (Path(name) / CONFIG).is_file()


def adapter_base(name: str) -> tuple[str, bool]:
    """The folder or hub name of the weights, and whether ``name`` is an adapter on top of them."""
    file = Path(name) / CONFIG
    if not file.is_file():
        return name, False
    try:
        config = json.loads(file.read_text("utf-8"))
        base, kind = config.get("base_model_name_or_path"), config.get("peft_type", "LORA")
    except (OSError, ValueError, AttributeError) as error:
        raise AdapterError(f"{file}: cannot be read ({error}); copy it again") from error
    if kind != "LORA":  # others may name tokenizers and models of their own, which peft would load
        raise AdapterError(f"{file}: an adapter of the kind {kind}, and weft takes LoRA; merge it with peft first")
    check_safetensors(Path(name), "adapter_model.bin", WEIGHTS)
    if not base:
        raise AdapterError(
            f"{file} does not name the model it adapts (base_model_name_or_path); the adapter cannot be used"
        )
    beside = Path(name) / base  # a base inside the folder makes it self-contained
    base = str(beside) if beside.is_dir() else place(base)
    try:
        resolve(base, Path(name).absolute().parent)
    except WeftError:
        raise AdapterError(lost(name, base, "which is not there")) from None
    return base, True


def lost(name: str, base: str, why: str) -> str:
    """What to say of the adapter ``name`` whose base cannot be used."""
    return (
        f"{name} is an adapter for {base}, {why}; write where the base is now into {Path(name) / CONFIG} "
        f"(base_model_name_or_path), or put it inside as {Path(name) / 'base'}"
    )


def write_adapter(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Writes PEFT's two files, the same bytes for the same adapter. ``config``: its fields; those that all of weft's
    adapters share may be left out."""
    usual = {"peft_type": "LORA", "inference_mode": True, "bias": "none", "lora_dropout": 0.0}
    save_file(dict(tensors), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps({**usual, **config}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def putting_on(name: str) -> Iterator[None]:
    """Around what loads the adapter ``name`` onto its base: a missing peft, and what peft raises, as one sentence."""
    try:
        import peft  # noqa: F401
    except ImportError:
        raise AdapterError(f"{name} is an adapter and needs peft; install it with: pip install peft") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft reads a property that transformers has renamed
            yield
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AdapterError(f"{name} does not fit the base it names ({reason}); it belongs to another model") from error


def merge_lora(
    model: nn.Module, around: Callable[[Any], AbstractContextManager[None]] = lambda _: nullcontext()
) -> int:
    """Add every adapter into the weights it adapts and take it out; returns how many there were.

    Each layer is merged within the context that ``around`` gives for it.
    """
    from peft.tuners.lora import LoraLayer
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper

    tied = {id(m) for m in model.modules() if isinstance(m, TrainableTokensLayer) and m.tied_adapter is not None}
    kinds = (LoraLayer, TrainableTokensWrapper, ModulesToSaveWrapper)
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, kinds)]
    for name, wrapped in found:
        if isinstance(wrapped, ModulesToSaveWrapper):
            base: Any = wrapped.modules_to_save["default"]
        else:
            layer = wrapped.token_adapter if isinstance(wrapped, TrainableTokensWrapper) else wrapped
            if id(layer) not in tied:  # a tied head has its rows from the embedding
                with around(layer):
                    layer.merge(safe_merge=True)
            base = layer.get_base_layer()
        base.requires_grad_(False)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, base)
    for module in model.modules():
        if hasattr(module, "peft_config"):
            delattr(module, "peft_config")
    return len(found)


def check_applied(model: Any, name: str) -> None:
    """Raises `AdapterError` unless each tensor of the adapter ``name`` has its place in ``model``, which it was loaded
    into, and each LoRA matrix of ``model`` came from it: `transformers` and peft only log what they leave out."""
    from safetensors import safe_open

    with safe_open(Path(name) / WEIGHTS, "pt") as file:
        given = {key.removeprefix(PREFIX) for key in file.keys()}  # noqa: SIM118  a safetensors file is no dict
    places = {re.sub(r"\.(modules_to_save\.)?default(?=\.|$)", "", key) for key in model.state_dict()}
    left = sorted(given - places) or sorted({p for p in places if ".lora_" in p} - given)
    if left:
        what = "changes" if left[0] in given else "has nothing for"
        raise AdapterError(f"{name}: {what} {left[0]}, unlike the base it names; it belongs to another model")
