"""What one request, and all of them together, may take. Past each limit stands a 4xx that names it."""

from __future__ import annotations

from pydantic import Field

from weft.frozen import Frozen


class Limits(Frozen):
    batch: int = Field(16, ge=1, le=4096, description="Answers generated together.")
    batch_tokens: int = Field(1 << 16, ge=1, description="Tokens of these, padding and room for answers included.")
    queue: int = Field(64, ge=0, le=1 << 16, description="Requests that may wait beside those; past it 429.")
    tokens: int = Field(
        2048, ge=1, le=1 << 20, description="Longest answer, and how long one is that asks for no length."
    )
    choices: int = Field(8, ge=1, le=128, description="Answers to one request (n).")
    messages: int = Field(1000, ge=1, description="Messages of one conversation.")
    characters: int = Field(1_000_000, ge=1, description="Text of one conversation.")
    media: int = Field(32, ge=0, description="Pictures and clips of one request.")
    pixels: int = Field(100_000_000, ge=1, description="Of all pictures of one request.")
    audio_seconds: float = Field(7200.0, gt=0, description="Of all clips of one request.")
    held_bytes: int = Field(2_000_000_000, ge=1, description="Of decoded media of all requests; past it 429.")
    body_bytes: int = Field(64_000_000, ge=1, description="Of one request.")
    body_seconds: float = Field(60.0, gt=0, description="Until all of a request must be there.")
    fetch_seconds: float = Field(20.0, gt=0, description="For one address of an allowed host.")

    @property
    def requests(self) -> int:
        """Requests that the server holds at a time."""
        return self.batch + self.queue
