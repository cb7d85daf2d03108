"""The doors through which folders and hub repositories of others come in: no code of theirs ever runs.

Left to itself, `transformers` asks at the terminal whether to run what an ``auto_map`` names, and a file of a processor
may name a class and a folder of its own to load. Here everything is read with ``trust_remote_code=False``, weights as
safetensors or, of parts published no other way, as pickles of plain tensors (``weights_only=True``, transformers' own
rule). All that calls ``from_pretrained`` or ``from_config`` outside weft's own classes stands in this file.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from safetensors import SafetensorError

from weft.conversation import WeftError
from weft.named import Named

# Where weft reads pickles at all, it reads these: a training_args.bin beside them holds no weights, and code to run.
PICKLES = "pytorch_model*.bin"
# What transformers reads as JSON objects, beside those that weft reads first.
OBJECTS = (
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


BUILT_IN = ("scratch",)  # names of models that are composed anew; `weft.recipes` has what they stand for
BUNDLED = "bundled"  # weft's own model
OWN = Named[Callable[..., Any]]({name: f"weft.models.own:{name}" for name in ("place", "check_part")})  # of its parts


def resolve(name: str | os.PathLike[str], *beside: Path) -> Literal["built-in", "folder", "hub"]:
    """What the name of a model stands for: one composed anew, a folder (`place`), or (owner/name) one on the hub.

    Raises `WeftError` where it can be none of them. ``beside``: folders that a path may also start from.
    """
    name = os.fspath(name)
    if name in BUILT_IN:
        return "built-in"
    if name == BUNDLED or os.path.isdir(name):
        return "folder"
    # runs/model, where there is a folder runs, is no hub name: asking the hub takes a minute of retries.
    near = any((root / name).exists() or (root / name).parent.is_dir() for root in (Path(), *beside))
    if name.startswith((".", "/", "~")) or name.count("/") != 1 or near:
        OWN["check_part"](name)
        own = " or ".join(map(repr, (BUNDLED, *BUILT_IN)))
        raise WeftError(f"there is no model folder {name!r}; give a folder, a hub name (owner/name) or {own}")
    return "hub"


def place(name: str | os.PathLike[str]) -> str:
    """The folder that `bundled` stands for; any other name as it is."""
    return OWN["place"]() if os.fspath(name) == BUNDLED else os.fspath(name)  # type: ignore[no-any-return]


def load(kind: Any, source: str | os.PathLike[str], lost: str = "", **options: Any) -> Any:
    """``kind.from_pretrained(source)`` for a class of `transformers`; ``source`` is a folder or a hub name.

    ``lost`` says what could not be had where it fails; without it, what transformers raises goes through.
    """
    try:
        with guarded(source):
            return kind.from_pretrained(source, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        if isinstance(error, WeftError) or not lost:
            raise
        raise WeftError(f"{source}: {lost} ({(str(error).strip() or type(error).__name__).splitlines()[0]})") from error


def language_model(config: Any, **options: Any) -> Any:
    """The language model or whole weft model of ``config``, which a folder may have brought, with random weights."""
    from transformers import AutoModelForCausalLM

    with guarded(""):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False, **options)


@contextmanager
def guarded(source: str | os.PathLike[str]) -> Iterator[None]:
    """Around what reads ``source``: what would run code, or leave the folder, is refused in one sentence."""
    folder = Path(source)
    if os.fspath(source) and folder.is_dir():
        for index in sorted(folder.glob("*.index.json")):
            check_index(index)
        for name in OBJECTS:
            _check_object(folder / name)
        _check_kernels(folder / "config.json")
    try:
        yield
    except pickle.UnpicklingError as error:
        raise WeftError(
            f"{source}: its weights are a pickle that holds more than tensors, and could run code; "
            f"convert them to safetensors where they were made, and use that"
        ) from error
    except (ValueError, ImportError) as error:
        if "trust_remote_code" in str(error):
            raise WeftError(
                f"{source or 'the language model'} wants to run code of its own (auto_map), and weft runs no code that "
                f"comes with a checkpoint; take a model of a type that transformers or `weft import` knows"
            ) from error
        raise


def json_object(file: Path) -> dict[str, Any]:
    """The JSON object that a file holds; raises `ValueError` for anything else."""
    value = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, and it is a {type(value).__name__}")
    return value


def _check_object(file: Path) -> None:
    """Raises `WeftError` where a file is there and does not begin as a JSON object does: transformers fails anyhow."""
    if not file.is_file():
        return
    with file.open("rb") as handle:
        if not handle.read(1 << 12).lstrip().startswith(b"{"):
            raise WeftError(f"{file}: holds no JSON object; copy it again")


def read_json(source: str | os.PathLike[str], name: str, *, optional: bool = False, **where: Any) -> dict[str, Any]:
    """A JSON file of a folder or hub repository; {} where it is ``optional`` and not there."""
    from transformers.utils import cached_file  # half a second, which reading a recipe does without

    try:
        path = cached_file(source, name, _raise_exceptions_for_missing_entries=not optional, **where)
        return json_object(Path(path)) if path else {}
    except (OSError, ValueError) as error:
        OWN["check_part"](source)
        first = str(error).strip().splitlines()[0]
        raise WeftError(f"{source}: cannot read {name} ({first}); give a folder or hub name") from error


def check_processor(source: str | os.PathLike[str], **options: Any) -> None:
    """Raises `WeftError` where the files of a weft processor name an audio tokenizer, which weft has none of.

    transformers would load it, of any class and from any folder that the file names, without a word of trust.
    """
    where = {key: options[key] for key in ("cache_dir", "local_files_only", "revision", "token") if key in options}
    for file in ("processor_config.json", "audio_tokenizer_config.json"):
        raw = read_json(source, file, optional=True, **where)
        if raw.get("audio_tokenizer") or raw.get("audio_tokenizer_class"):
            raise WeftError(f"{source}: its {file} names an audio tokenizer, and weft has none; remove it")


def check_safetensors(folder: Path, pickles: str = PICKLES, wanted: str = "model*.safetensors") -> None:
    """Raises `WeftError` where the weights of a folder in weft's own layout are pickles only."""
    found = sorted(folder.glob(pickles))
    if found and not any(folder.glob(wanted)):
        raise WeftError(
            f"{found[0]}: a pickle, which can hold code, where weft writes safetensors and reads nothing else; convert "
            f"it to safetensors where it was made (safetensors.torch.save_file), and put that in its place"
        )


def check_index(index: Path) -> None:
    """Raises `WeftError` where an index of weights names a file outside of its folder, by its name or through a link.

    The hub's cache links its snapshots to its blobs: links within one repository of the cache are of one folder.
    """
    folder = index.parent.resolve()
    inside = [folder, folder.parent.parent / "blobs"] if folder.parent.name == "snapshots" else [folder]
    try:
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        files = {str(name): (folder / str(name)).resolve() for name in names}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeftError(f"{index}: not an index of weights ({error}); copy it again") from error
    for name, file in sorted(files.items()):
        if leaves(name) or not any(file.is_relative_to(place) for place in inside):
            raise WeftError(
                f"{index}: names {name!r}, which is outside of its folder; weights lie beside their index: copy the "
                f"file there and name it without a path"
            )


def leaves(name: str) -> bool:
    """Whether a path of a file, read on any system, may lead out of the folder that it starts from."""
    return any(kind(name).is_absolute() or kind(name).drive or ".." in kind(name).parts for kind in _PATHS)


_PATHS: tuple[Any, ...] = (PurePosixPath, PureWindowsPath)


def _check_kernels(file: Path) -> None:
    """Attention by the name of a hub repository is code to be downloaded and run."""
    try:
        named = list(_kernels(json.loads(file.read_text("utf-8"))))
    except (OSError, ValueError, RecursionError):
        return  # for whoever reads it as a configuration to say
    if named:
        raise WeftError(
            f"{file}: wants to run code from the hub ({named[0]}), and weft runs no code that a checkpoint brings; "
            f"remove its attn_implementation"
        )


def _kernels(value: Any, asked: bool = False) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _kernels(inner, asked or "_implementation" in key)
    elif isinstance(value, list):
        for inner in value:
            yield from _kernels(inner, asked)
    elif asked and isinstance(value, str) and "/" in value:
        yield value
