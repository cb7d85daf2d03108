"""An adapter folder beside its base: where the base is, and the adapter put on it.

The folder holds PEFT's two files, weft's own ``config.json`` and processor, and may hold its base as ``base/``. With a
``config.json`` there, `transformers` leaves the folder to weft's class, which knows where the base lies; it would take
``base`` for a hub name.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from weft.conversation import WeftError
from weft.models.adapters import CONFIG, PREFIX, WEIGHTS, AdapterError, is_adapter
from weft.models.doors import check_safetensors, json_object, place, resolve


def base(name: str) -> str:
    """The folder or hub name of the weights that the adapter ``name`` is on top of."""
    file = Path(name) / CONFIG
    try:
        config = json.loads(file.read_text("utf-8"))
        named, kind = config.get("base_model_name_or_path"), config.get("peft_type", "LORA")
    except (OSError, ValueError, AttributeError) as error:
        raise AdapterError(f"{file}: cannot be read ({error}); copy it again") from error
    if kind != "LORA":  # others may name tokenizers and models of their own, which peft would load
        raise AdapterError(f"{file}: an adapter of the kind {kind}, and weft takes LoRA; merge it with peft first")
    check_safetensors(Path(name), "adapter_model.bin", WEIGHTS)
    if not named:
        raise AdapterError(
            f"{file} does not name the model it adapts (base_model_name_or_path); the adapter cannot be used"
        )
    beside = Path(name) / named  # a base inside the folder makes it self-contained
    found = str(beside) if beside.is_dir() else place(named)
    try:
        resolve(found, Path(name).absolute().parent)
    except WeftError:
        raise AdapterError(lost(name, found, "which is not there")) from None
    if is_gated(found):  # what it has learned, LoRA included, goes on that of the model that it names
        found = base(found)
    if is_adapter(found):  # which transformers would put on as well
        raise AdapterError(lost(name, found, "which is an adapter itself"))
    return found


def lost(name: str, base: str, why: str) -> str:
    """What to say of the adapter ``name`` whose base cannot be used."""
    return (
        f"{name} is an adapter for {base}, {why}; write where the base is now into {Path(name) / CONFIG} "
        f"(base_model_name_or_path), or put it inside as {Path(name) / 'base'}"
    )


@contextmanager
def putting_on(name: str, options: dict[str, Any]) -> Iterator[Callable[[Any], Any]]:
    """Around what loads the base of the adapter ``name`` with these options; gives what puts the adapter on it.

    A missing peft, and what peft raises, is one sentence.
    """
    options.pop("adapter_kwargs", None)  # in which Auto classes tell transformers to put it on
    try:
        import peft  # noqa: F401
    except ImportError:
        raise AdapterError(f"{name} is an adapter and needs peft; install it with: pip install peft") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft reads a property that transformers has renamed
            yield partial(put_on, name)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AdapterError(f"{name} does not fit the base it names ({reason}); it belongs to another model") from error


def put_on(name: str, loaded: Any) -> Any:
    """``loaded``, a model (or it and a report), with the adapter ``name`` on it, frozen.

    Layers are peft's; each tensor goes to its place by name here. `transformers` renames them by rules of peft's, and
    older releases of the two leave out without an error what is not below "model.", parts trained in full and rows of
    tokens. Raises `AdapterError` where a tensor finds no place, or LoRA no tensor.
    """
    from peft import LoraConfig, inject_adapter_in_model

    model = loaded[0] if isinstance(loaded, tuple) else loaded
    fields = {**LoraConfig.from_json_file(str(Path(name) / CONFIG)), "inference_mode": True}
    inject_adapter_in_model(LoraConfig.from_peft_type(**fields), model)
    model._hf_peft_config_loaded = True  # by which transformers saves it as an adapter
    if not (file := Path(name) / WEIGHTS).is_file():
        raise AdapterError(f"{file} is missing; copy the adapter again")
    given = {key.removeprefix(PREFIX): value for key, value in load_file(file).items()}
    held = model.state_dict()
    places = {re.sub(r"\.(modules_to_save\.)?default(?=\.|$)", "", key): key for key in held}
    left = sorted(given.keys() - places.keys()) or sorted({p for p in places if ".lora_" in p} - given.keys())
    if left:
        what = "changes" if left[0] in given else "has nothing for"
        raise AdapterError(f"{name}: {what} {left[0]}, unlike the base it names; it belongs to another model")
    away = [key for key in given if held[places[key]].is_meta]
    if away:
        raise AdapterError(
            f"{name}: {away[0]} of its base is not in memory, as device_map has it; weft merge comes first"
        )
    model.load_state_dict({places[key]: value for key, value in given.items()}, strict=False)
    model.eval().requires_grad_(False)
    if is_gated(name):
        from weft.models import gate  # which imports peft

        model.config.lora_for_media = True
        gate.merge_others(model)
        gate.install(model)
    return loaded


def is_gated(name: str) -> bool:
    """Whether ``name`` is the folder of a model whose LoRA stays beside its weights, for media alone."""
    file = Path(name) / "config.json"
    said = json_object(file).get("lora_for_media", False) if is_adapter(name) and file.is_file() else False
    if not isinstance(said, bool):
        raise AdapterError(f"{file}: lora_for_media is true or false, and {said!r} is neither")
    return said


def check_trainable(name: str) -> None:
    """Raises `AdapterError` where the adapter ``name`` cannot be trained on as it is."""
    if not is_gated(name):
        raise AdapterError(f"{name} is an adapter; fold it in first (weft merge {name} -o DIR) and train that")


def write_adapter(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Writes PEFT's two files, the same bytes for the same adapter. ``config``: its fields; those that all of weft's
    adapters share may be left out."""
    usual = {"peft_type": "LORA", "inference_mode": True, "bias": "none", "lora_dropout": 0.0}
    save_file(dict(tensors), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps({**usual, **config}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
