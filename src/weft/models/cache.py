"""The cache of keys and values goes by two names: ``cache`` since transformers 5.24, ``past_key_values`` before.

weft's models take either, as transformers does, and hand on the one that the installed release knows.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from transformers.modeling_outputs import CausalLMOutputWithPast

CACHE = "cache" if "cache" in {field.name for field in fields(CausalLMOutputWithPast)} else "past_key_values"


def named(cache: Any) -> dict[str, Any]:
    """The cache as a keyword argument."""
    return {CACHE: cache}


def take(kwargs: dict[str, Any]) -> Any:
    """The cache among keyword arguments, under either name, taken out; None where there is none."""
    given = [kwargs.pop(name, None) for name in ("cache", "past_key_values")]
    return next((cache for cache in given if cache is not None), None)
