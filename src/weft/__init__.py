"""weft: images and sound, woven into a language model.

``import weft`` is what makes `transformers` know weft's folders: ``AutoModelForMultimodalLM.from_pretrained(folder)``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from weft.generation.engine import Model

__version__ = "0.1.0"

# Where a public name lives; it is imported when it is first used, so that the command line starts quickly.
_PUBLIC = {
    "WeftError": "weft.conversation",
    "WeftConfig": "weft.models.config",
    "WeftForConditionalGeneration": "weft.models.modeling",
    "WeftProcessor": "weft.models.processing",
    "compose": "weft.models.compose",
    "Model": "weft.generation.engine",
    "resolve": "weft.models.doors",
}
__all__ = [*_PUBLIC, "load", "register"]


def register() -> None:
    """Make `transformers` know weft's configuration, model and processor; `import weft` does it already."""
    try:
        from transformers import AutoProcessor

        import weft.models.modeling  # noqa: F401  registers the configuration and the model
        from weft.models.config import WeftConfig
        from weft.models.processing import WeftProcessor
    except (ImportError, RuntimeError, OSError) as error:  # a torchvision that does not fit torch raises any of these
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ImportError(
            f"weft cannot load transformers and torch here ({reason}); `weft doctor` says what is broken and how to "
            "repair it"
        ) from error

    AutoProcessor.register(WeftConfig, WeftProcessor, exist_ok=True)


def load(
    path: str | os.PathLike[str],
    dtype: str | torch.dtype | None = None,
    device: str | None = None,
    switches: dict[str, Any] | None = None,
) -> Model:
    """A model ready to chat: from a folder, a hub name, or ``"bundled"``, the small one that weft brings along.

    ``dtype``: "float32", "bfloat16", ...; None takes what the checkpoint is saved in (float16 becomes float32 on a
    CPU, where it is two hundred times slower). ``device``: None takes a GPU where there is one. ``switches``: changes
    to the switches of the model's dialect, such as ``{"restart_numbering": True}``.
    """
    from weft.generation.engine import Model
    from weft.generation.loading import load_parts, resolve_device, resolve_dtype
    from weft.models.doors import resolve

    if resolve(path) == "built-in":
        from weft.recipes import model_spec
        from weft.training.build import build_model

        name, place, kind = os.fspath(path), resolve_device(device), resolve_dtype(dtype)
        model, processor = build_model(model_spec(name))
        found = Model(model.eval().to(place, kind), processor, name)
    else:
        found = Model(*load_parts(path, dtype, device), name=os.fspath(path))
    if not switches:
        return found
    return Model(found.model, found.processor.with_switches(**switches), found.name)


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'weft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])


def _is_the_command() -> bool:
    """Whether this process is the installed ``weft`` script."""
    script = Path(sys.argv[0] if sys.argv else "")
    return script.stem == "weft" and script.suffix in ("", ".exe") and script.parent == Path(sys.executable).parent


# The command imports this package before it knows what is asked of it, and `weft --help` should not wait for torch:
# there the classes are registered by the commands that need them.
if not _is_the_command():
    register()
