"""weft: images and sound, woven into a language model.

``import weft`` is what makes `transformers` know weft's folders: ``AutoModelForMultimodalLM.from_pretrained(folder)``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# Where a public name lives; it is imported when it is first used, so that the command line starts quickly.
_PUBLIC = {
    "WeftError": "weft.conversation",
    "WeftConfig": "weft.models.config",
    "WeftForConditionalGeneration": "weft.models.modeling",
    "WeftProcessor": "weft.models.processing",
    "compose": "weft.models.compose",
    "load": "weft.generation.engine",
    "Model": "weft.generation.engine",
}
__all__ = list(_PUBLIC)


def register() -> None:
    """Make `transformers` know weft's configuration, model and processor; `import weft` does it already."""
    from transformers import AutoProcessor

    import weft.models.modeling  # noqa: F401  registers the configuration and the model
    from weft.models.config import WeftConfig
    from weft.models.processing import WeftProcessor

    AutoProcessor.register(WeftConfig, WeftProcessor, exist_ok=True)


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
