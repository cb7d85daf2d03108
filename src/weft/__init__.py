"""weft: images and sound, woven into a language model.

``import weft`` is what makes `transformers` know weft's folders: ``AutoModelForMultimodalLM.from_pretrained(folder)``.
It costs next to nothing: the classes are brought in when one of transformers' Auto classes is, or weft's own are used.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

from weft.version import VERSION

if TYPE_CHECKING:
    import torch

    from weft.generation.engine import Model

__version__ = VERSION

# Where a public name lives; it is imported when it is first used, so that the command line starts quickly.
_PUBLIC = {
    "WeftError": "weft.conversation",
    "WeftConfig": "weft.models.config",
    "WeftForConditionalGeneration": "weft.models.modeling",
    "WeftProcessor": "weft.models.processing",
    "compose": "weft.models.compose",
    "Model": "weft.generation.engine",
    "resolve": "weft.models.doors",
    "train": "weft.runs",
    "finetune": "weft.runs",
}
__all__ = [*_PUBLIC, "load", "register"]


def register() -> None:
    """Make `transformers` know weft's classes now; after `import weft` it does when it first needs them."""
    try:
        for module in ("weft.models.modeling", "weft.models.processing"):
            import_module(module)
    except (ImportError, RuntimeError, OSError) as error:  # a torchvision that does not fit torch raises any of these
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ImportError(
            f"weft cannot load transformers and torch here ({reason}); `weft doctor` says what is broken and how to "
            "repair it"
        ) from error


class _AutoClasses(MetaPathFinder):
    """Finds nothing itself: right behind transformers' Auto classes it brings in weft's entries for their lists.

    Not between them: each may be a part of another that is not whole yet.
    """

    def __init__(self) -> None:
        self.under_way: list[str] = []

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not fullname.startswith("transformers.models.auto."):
            return None
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_add(module: Any) -> None:
                self.under_way.append(fullname)
                try:
                    run(module)
                finally:
                    self.under_way.remove(fullname)
                if not self.under_way:
                    _add_to_lists()

            spec.loader.exec_module = run_and_add  # type: ignore[method-assign]
        return spec


def _add_to_lists() -> None:
    if "transformers.models.auto.configuration_auto" in sys.modules:
        config = import_module("weft.models.config")
        if hasattr(config, "list_processor"):  # else it is half way in, and does so at its end
            config.list_processor()


def load(
    path: str | os.PathLike[str],
    dtype: str | torch.dtype | None = None,
    device: str | None = None,
    switches: dict[str, Any] | None = None,
    bits: int | None = None,
) -> Model:
    """A model ready to chat: from a folder, a hub name, ``"bundled"`` (weft's own) or ``"scratch"`` (which has learned
    nothing yet).

    ``dtype``: "float32", "bfloat16", ...; None takes what the checkpoint is saved in (float16 becomes float32 on a
    CPU, where it is two hundred times slower). ``device``: None takes a GPU where there is one. ``switches``: changes
    to the switches of the model's dialect, such as ``{"restart_numbering": True}``. ``bits``: 8 or 4 for the layers of
    a folder's language model, where bitsandbytes (8: or torchao) is installed.
    """
    register()
    from weft.generation.engine import Model
    from weft.generation.loading import load_parts, resolve_device, resolve_dtype
    from weft.models.doors import resolve

    if resolve(path) == "built-in":
        from weft.recipes import model_spec
        from weft.training.build import build_model

        if bits is not None:
            from weft.conversation import WeftError

            raise WeftError(f"bits is for a folder of its own, and {os.fspath(path)!r} is built in; leave it out")
        name, place, kind = os.fspath(path), resolve_device(device), resolve_dtype(dtype)
        model, processor = build_model(model_spec(name))
        found = Model(model.eval().to(place, kind), processor, name)
    else:
        found = Model(*load_parts(path, dtype, device, bits), name=os.fspath(path))
    if not switches:
        return found
    return Model(found.model, found.processor.with_switches(**switches), found.name)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        if name != "WeftError":
            register()
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'weft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])


sys.meta_path.insert(0, _AutoClasses())
_add_to_lists()
