"""Requests of OpenAI's API, as this server takes them. A field that it has no use for is refused by its name."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from weft.generation import Options
from weft.serving.errors import ApiError
from weft.serving.limits import Limits

# Fields that OpenAI's clients may send, and the values that ask for nothing: these pass, any other is refused.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "web_search_options": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
}
Label = Annotated[str, StringConstraints(max_length=1000)]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(Strict):
    """``top_k`` and ``repetition_penalty`` are extensions; `messages` has those of messages."""

    model: Label
    messages: list[dict[str, Any]] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=0, lt=1 << 31)
    repetition_penalty: float | None = Field(None, gt=0, le=100, allow_inf_nan=False)
    n: int | None = Field(None, ge=1)
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    # Labels of the client's own, which change no answer.
    user: Label | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    metadata: dict[str, Any] | None = None
    # Of OpenAI's API and not offered here: `UNSUPPORTED`.
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: Any = None
    functions: Any = None
    function_call: Any = None
    response_format: Any = None
    frequency_penalty: Any = None
    presence_penalty: Any = None
    logit_bias: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    web_search_options: Any = None
    service_tier: Any = None
    store: Any = None

    def check(self, limits: Limits) -> None:
        """Raises `ApiError` for what is not offered, and for what is past a limit."""
        for name, harmless in UNSUPPORTED.items():
            value = getattr(self, name)
            if value is not None and value not in harmless:
                raise ApiError(
                    400, f"{name} is not supported by this server; leave it out", name, "unsupported_parameter"
                )
        if (self.n or 1) > limits.choices:
            raise ApiError(
                400, f"n is {self.n}, and this server gives at most {limits.choices} answers", "n", "too_many"
            )
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ApiError(400, "max_tokens is the older name of max_completion_tokens; give one of them", "max_tokens")
        if (asked := self.max_tokens or self.max_completion_tokens or 1) > limits.tokens:
            name = "max_tokens" if self.max_tokens else "max_completion_tokens"
            said = f"{name} is {asked:,}, and an answer of this server has at most {limits.tokens:,} tokens"
            raise ApiError(400, said, name, "too_many_tokens")
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs to be true", "top_logprobs")
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "stream_options needs stream to be true", "stream_options")
        if len(self.messages) > limits.messages:
            said = f"there are {len(self.messages):,} messages, and a conversation here has at most {limits.messages:,}"
            raise ApiError(400, said, "messages", "too_many")

    @property
    def until(self) -> list[str]:
        """The texts that end an answer."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    def options(self, choice: int, limits: Limits) -> Options:
        """How answer number ``choice`` is generated: each draws by itself, the first as a request for one would."""
        tokens = self.max_tokens or self.max_completion_tokens or limits.tokens
        penalty = self.repetition_penalty or 1.0
        seed = None if self.seed is None else (self.seed + choice) % (1 << 63)
        temperature = 1.0 if self.temperature is None else self.temperature
        if temperature < 1e-4:  # colder than this, the likeliest token is the only one
            return Options(tokens, repetition_penalty=penalty, seed=seed)
        mass = max(1.0 if self.top_p is None else self.top_p, 1e-9)
        return Options(tokens, True, temperature, mass, self.top_k or 0, repetition_penalty=penalty, seed=seed)
