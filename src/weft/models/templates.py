"""Jinja chat templates for programs that render prompts themselves (plain ``vllm serve``)."""

from __future__ import annotations

from weft.dialects import Dialect


def chat_template(dialect: Dialect) -> str | None:
    """The template of a dialect, or None where it cannot be written as one."""
    return None
