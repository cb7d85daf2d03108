"""The base of what a user sets: a value that does not change, in which a field that it does not know is an error.

So is a number that is not finite.
"""

from collections.abc import Collection
from difflib import get_close_matches

from pydantic import BaseModel, ConfigDict, ValidationError


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def first_mistake(error: ValidationError) -> str:
    """The first value that does not fit, by its path, and what is wrong with it."""
    first, others = error.errors()[0], error.error_count() - 1
    *above, last = first["loc"] or (error.title,)
    said = f"{'.'.join(map(str, (*above, last)))}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    kind = next((kind for kind in Frozen.__subclasses__() if kind.__name__ == error.title), None)
    if first["type"] == "extra_forbidden" and not above and kind is not None:
        said = f'{error.title} has no "{last}"; {choices(str(last), kind.model_fields)}'
    return said + (f" (and {others} more)" if others else "")


def choices(name: str, names: Collection[str]) -> str:
    """What could stand in the place of ``name``."""
    close = get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}? There are " if close else "there are "
    return f"{hint}{', '.join(names)}"
