"""The base of what a user sets: a value that does not change, in which a field that it does not know is an error.

So is a number that is not finite.
"""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
