"""What the server answers instead of a result, in the shape of OpenAI's API.

{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}
"""

from __future__ import annotations

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(HTTPException):
    """A refusal: ``status`` 4xx, one sentence, the field it is about and a word for programs."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None, **headers: str):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(status, message, named or None)
        self.param, self.code = param, code

    @property
    def body(self) -> dict[str, Any]:
        return shaped(self.status_code, str(self.detail), self.param, self.code)


def shaped(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


class Json(Response):
    """JSON; half characters, which a request may hold and an error quote, are written as escapes."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return dumped(content).encode("utf-8", "backslashreplace")


def dumped(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
