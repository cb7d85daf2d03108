"""The application: routes, and what each does with a request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.staticfiles import StaticFiles

from weft.conversation import TASKS, WeftError, Words
from weft.generation.spoken import TOKENS
from weft.serving import transcripts
from weft.serving.answers import Question, Usage
from weft.serving.chat import Chat
from weft.serving.engine import Engine, EngineError
from weft.serving.errors import ApiError, Json, shaped
from weft.serving.fetch import Fetcher
from weft.serving.gate import Gate
from weft.serving.limits import Limits
from weft.serving.messages import MessageReader
from weft.serving.schema import ChatRequest
from weft.serving.watching import Metrics
from weft.version import VERSION

PAGE = Path(__file__).with_name("page")
GONE = 499  # nobody reads it: the client went away
Asked = Annotated[str, Form()]


def build_app(
    engine: Engine,
    name: str,
    limits: Limits | None = None,
    *,
    keys: Sequence[str] = (),
    origins: Sequence[str] = (),
    media_hosts: Sequence[str] = (),
    local: bool = True,
    fetch: Any = None,
) -> FastAPI:
    """The server of one model, called ``name``. ``local``: it listens on loopback. ``fetch``: another `Fetcher`."""
    limits = limits or Limits()
    pool = ThreadPoolExecutor(2, "weft reading")
    created = int(time.time())
    sounds = engine.processor.audio
    fetch = fetch or Fetcher(media_hosts, limits.body_bytes, limits.fetch_seconds)
    read = MessageReader(limits, fetch, None if sounds is None else sounds.sample_rate)
    metrics = Metrics(engine)

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        app.state.ready = True
        yield
        app.state.ready = False
        engine.stop()
        pool.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(title="weft", version=VERSION, lifespan=living, docs_url=None, redoc_url=None)
    app.state.ready = False

    async def in_thread(call: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, call, *arguments)

    def get(path: str) -> Any:
        """A route for GET, and for HEAD, by which load balancers ask."""

        def both(answer: Any) -> Any:
            app.head(path, include_in_schema=False)(answer)
            return app.get(path)(answer)

        return both

    def known(model: str) -> None:
        if model != name:
            said = f"the model is not served here; GET /v1/models lists what is: {name}"
            raise ApiError(404, said, "model", "model_not_found")

    def count(request: Request, used: Usage, begun: float, first: float | None = None) -> None:
        facts = {"prompt_tokens": used.prompt, "generated_tokens": used.generated}
        if first is not None:
            facts["first_token_seconds"] = round(first - begun, 4)  # type: ignore[assignment]
            metrics.first.observe(first - begun)
        request.state.facts.update(facts)
        metrics.prompt.inc(used.prompt)
        metrics.generated.inc(used.generated)

    # -- what is asked ----------------------------------------------------------------------------------------------

    @app.post("/v1/chat/completions")
    async def chat(asked: ChatRequest, request: Request) -> Response:
        begun = time.monotonic()
        known(asked.model)
        asked.check(limits)
        conversation = await in_thread(read, asked.messages)
        preparing = Question.of(conversation, engine, in_thread, min(TOKENS, limits.tokens))
        answers = Chat(asked, await until_gone(request, preparing), name, limits)
        if not asked.stream:
            try:
                return Json(await until_gone(request, answers.whole()))
            finally:
                count(request, answers.usage, begun, answers.first_token)

        async def events() -> AsyncIterator[str]:
            try:
                async for event in answers.events():
                    yield event
            finally:
                count(request, answers.usage, begun, answers.first_token)

        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(events(), media_type="text/event-stream", headers=headers)

    async def spoken(request: Request, file: UploadFile, translate: bool, **form: Any) -> Response:
        transcripts.check_fields(await request.form(), translate)
        known(form["model"])
        begun, kind, granularities = time.monotonic(), form["response_format"], form.get("granularities") or []
        for param, value, choices in [("response_format", kind, transcripts.FORMATS)] + [
            ("timestamp_granularities[]", g, transcripts.GRANULARITIES) for g in granularities
        ]:
            if value not in choices:
                raise ApiError(400, f"{param} must be one of {', '.join(choices)}", param)
        if granularities and kind != "verbose_json":
            raise ApiError(400, "timestamp_granularities[] needs response_format verbose_json", "response_format")
        able = not translate and Words in engine.processor.dialect.marks
        if "word" in granularities and not able:
            raise ApiError(400, "this model writes no word times", "timestamp_granularities[]", "unsupported_parameter")
        times = able and kind in ("srt", "vtt", "verbose_json")
        language = form.get("language") or None
        if language is not None and language not in transcripts.LANGUAGES:
            said = f"there is no language {language!r}; give its code in ISO 639-1, such as en, or leave it out"
            raise ApiError(400, said, "language", "unknown_language")
        conversation = transcripts.question(await file.read(), translate, language, times)
        conversation = await in_thread(read.decoded, conversation)
        wave, rate = conversation.audios[0].source
        asked = await Question.of(conversation, engine, in_thread)
        chosen, seconds = transcripts.options(form["temperature"], limits.tokens), len(wave) / rate
        try:
            answering, windows = await until_gone(request, transcripts.answer(asked, chosen, seconds))
        finally:
            count(request, asked.usage, begun)
        about = {"task": "translate" if translate else "transcribe", "language": "en" if translate else language}
        return transcripts.written(answering, windows, kind, seconds, about, "word" in granularities)

    @app.post("/v1/audio/transcriptions")
    async def transcribe(
        request: Request,
        file: UploadFile,
        model: Asked,
        language: Annotated[str, Form(max_length=40)] = "",
        response_format: Asked = "json",
        temperature: Annotated[float, Form(ge=0, le=1, allow_inf_nan=False)] = 0.0,
        granularities: Annotated[list[str] | None, Form(alias="timestamp_granularities[]", max_length=4)] = None,
    ) -> Response:
        form = {"model": model, "language": language, "response_format": response_format, "temperature": temperature}
        return await spoken(request, file, False, **form, granularities=granularities)

    @app.post("/v1/audio/translations")
    async def translate(
        request: Request,
        file: UploadFile,
        model: Asked,
        response_format: Asked = "json",
        temperature: Annotated[float, Form(ge=0, le=1, allow_inf_nan=False)] = 0.0,
    ) -> Response:
        form = {"model": model, "response_format": response_format, "temperature": temperature}
        return await spoken(request, file, True, **form)

    # -- what there is ----------------------------------------------------------------------------------------------

    def card() -> dict[str, Any]:
        """The one model, and what the page asks of it."""
        processor = engine.processor
        senses = [m for m, there in (("image", processor.vision), ("audio", processor.audio)) if there is not None]
        able = processor.dialect.tasks
        tasks = {n: {"media": list(s.media), "text": s.text, "box": s.box} for n, s in TASKS.items() if n in able}
        about = {
            "modalities": ["text", *senses],
            "tasks": tasks,
            "marks": sorted(mark.__name__.lower() for mark in processor.dialect.marks),
            "limits": limits.model_dump(),
        }
        return {"id": name, "object": "model", "created": created, "owned_by": "weft", "weft": about}

    @get("/v1/models")
    async def models() -> Response:
        return Json({"object": "list", "data": [card()]})

    @get("/v1/models/{model:path}")
    async def model(model: str) -> Response:
        known(model)
        return Json(card())

    @get("/health")
    async def health() -> Response:
        return Json({"status": "ok"})

    @get("/ready")
    async def ready() -> Response:
        able = app.state.ready and engine.alive
        return Json({"status": "ready" if able else "not ready"}, 200 if able else 503)

    @get("/metrics")
    async def numbers() -> Response:
        return PlainTextResponse(metrics.text(), media_type="text/plain; version=0.0.4")

    # -- what goes wrong --------------------------------------------------------------------------------------------

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return Json(error.body, error.status_code, error.headers)

    @app.exception_handler(WeftError)
    async def wrong(request: Request, error: WeftError) -> Response:
        return Json(shaped(400, str(error), getattr(error, "field", None)), 400)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first, *more = error.errors()
        if first["loc"][1:2] == ("stop",):  # a text or a list of them: what it is says which sentence is meant
            first = next((e for e in (first, *more) if not e["type"].endswith("_type")), first) | {
                "loc": ("body", "stop")
            }
        field = ".".join(str(x) for x in first["loc"][1:])[:200]
        unknown = first["type"] == "extra_forbidden"
        said = f"{field or 'the request'}: {first['msg']}"
        if unknown:
            said = f"there is no field {field} here; leave it out"
        elif first["loc"] == ("body",) and "json" not in request.headers.get("content-type", ""):  # as curl -d sends it
            said = "the request is not said to be JSON; send it with the header Content-Type: application/json"
        elif first["loc"] == ("body", "file") and isinstance(first["input"], str):
            said = "file: send the recording as a file, not as text; curl does for -F file=@NAME"
        return Json(shaped(400, said, field or None, "unknown_parameter" if unknown else "invalid_request"), 400)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404 or isinstance(
            request.scope.get("endpoint"), StaticFiles
        ):  # the page has all the rest
            return Json(shaped(404, "there is no such address here; GET /openapi.json lists what there is"), 404)
        return Json(shaped(error.status_code, str(error.detail), None, None), error.status_code, error.headers)

    @app.exception_handler(EngineError)
    async def failed(request: Request, error: EngineError) -> Response:
        raise error

    @app.exception_handler(ClientGone)
    async def gone(request: Request, error: ClientGone) -> Response:
        return Response(status_code=GONE)

    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True))
    if origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(origins), allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(Gate, limits=limits, metrics=metrics, keys=keys, origins=origins, local=local)
    return app


class ClientGone(Exception):
    """The client closed its connection before its answer was there."""


async def until_gone(request: Request, answer: Awaitable[Any]) -> Any:
    """The answer, unless the client goes away first: then its generation ends."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(answer), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for one in (task, watch):
            if not one.done():
                one.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await one
