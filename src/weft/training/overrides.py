"""``--set stages.0.optim.lr=1e-4``: one value of a recipe, by its dotted path."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from weft.conversation import WeftError
from weft.frozen import choices, first_mistake
from weft.training.old import path_now

M = TypeVar("M", bound=BaseModel)


def override(config: M, assignments: Iterable[str]) -> M:
    """``config`` with each ``path=value`` set. Values are JSON where they parse as JSON, else plain strings.

    Raises `WeftError` with the path and what could stand there: unknown names, places past a list's end, values of the
    wrong kind.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path.strip():
            raise WeftError(f"--set {assignment}: write a path, =, and a value, such as stages.0.optim.lr=1e-4")
        try:
            value: Any = json.loads(text)
        except ValueError:
            value = text
        path = path_now(path.strip())
        try:
            config = type(config).model_validate(_set(config, path.split("."), value, path))
        except ValidationError as error:
            empty = "; {} is all of its defaults" if value is None and error.errors()[0]["type"] == "model_type" else ""
            raise WeftError(f"--set {assignment}: {first_mistake(error)}{empty}") from None
    return config


def _set(node: Any, steps: list[str], value: Any, path: str) -> Any:
    """``node`` as plain data with one value replaced."""
    if not steps:
        return value
    head, rest = steps[0], steps[1:]
    if isinstance(node, BaseModel):
        names = list(type(node).model_fields)
        if head not in names:
            raise WeftError(f'--set {path}: no "{head}" here; {choices(head, names)}')
        child = getattr(node, head)
        if child is None and rest:
            child = _empty(type(node).model_fields[head].annotation)
        return {name: getattr(node, name) for name in names} | {head: _set(child, rest, value, path)}
    if isinstance(node, (tuple, list)):
        if not head.isdigit() or int(head) > len(node) or (int(head) == len(node) and rest):
            raise WeftError(f'--set {path}: "{head}" must be a place in a list of {len(node)} (0 is the first)')
        items: list[Any] = [*node, None]
        items[int(head)] = _set(items[int(head)], rest, value, path)
        return items if int(head) == len(node) else items[:-1]
    if isinstance(node, dict) or node is None:
        node = node or {}
        return {**node, head: _set(node.get(head), rest, value, path)}
    raise WeftError(f'--set {path}: "{head}" goes too deep; what is before it holds {node!r}')


def _empty(annotation: Any) -> Any:
    """A default value of the model in ``Model | None``, so that a field of an absent section can be set."""
    for kind in getattr(annotation, "__args__", ()):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind.model_construct()
    return None
