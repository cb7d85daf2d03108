"""`weft serve`: an OpenAI-compatible API of a model. `weft page`: its page alone."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from weft.cli import asking

SAFETY = "Who may ask"


def _size(said: str, least: float = 0) -> Any:
    return typer.Option(help=said, min=least, rich_help_panel="How much")


def serve(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A folder, a hub name, 'bundled' or 'scratch'.")
    ] = "bundled",
    engine: Annotated[
        Literal["local", "vllm"], typer.Option(help="What generates; vllm where that is installed.")
    ] = "local",
    name: Annotated[str | None, typer.Option(help="What requests call the model; default: its last name.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; any but loopback needs --api-key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    api_key: Annotated[
        list[str] | None, typer.Option(help="A key that opens the API. Repeatable.", rich_help_panel=SAFETY)
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Keys, one a line: no other user sees them.", rich_help_panel=SAFETY)
    ] = None,
    no_key: Annotated[
        bool, typer.Option("--no-key", help="Let anybody who reaches the address ask.", rich_help_panel=SAFETY)
    ] = False,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Origin of a web page that may call, or that a proxy serves: https://chat.example.org. Repeatable.",
            rich_help_panel=SAFETY,
        ),
    ] = None,
    allow_media_hosts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST", help="A host whose pictures and clips are fetched. Repeatable.", rich_help_panel=SAFETY
        ),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain (PEM).", rich_help_panel=SAFETY)] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).", rich_help_panel=SAFETY)] = None,
    max_batch: Annotated[int, _size("Answers generated together.", 1)] = 16,
    max_batch_tokens: Annotated[int, _size("Tokens of these, prompts and room for answers included.", 1)] = 65536,
    max_queue: Annotated[int, _size("Requests that wait beside those; past it 429.")] = 64,
    max_tokens: Annotated[int, _size("Longest answer.", 1)] = 2048,
    max_choices: Annotated[int, _size("Answers to one request (n).", 1)] = 8,
    max_media: Annotated[int, _size("Pictures and clips a request.")] = 32,
    max_megapixels: Annotated[float, _size("Of all pictures of a request.", 0.001)] = 100.0,
    max_audio_seconds: Annotated[float, _size("Of all clips of a request.", 0.1)] = 7200.0,
    max_held_mb: Annotated[float, _size("Of decoded pictures and clips of all requests; past it 429.", 0.001)] = 2000.0,
    max_messages: Annotated[int, _size("Of one conversation.", 1)] = 1000,
    max_characters: Annotated[int, _size("Text of one conversation.", 1)] = 1_000_000,
    max_body_mb: Annotated[float, _size("Of one request.", 0.001)] = 64.0,
    max_body_seconds: Annotated[float, _size("Until all of a request must be there.", 0.1)] = 60.0,
    dtype: asking.Dtype = None,
    device: asking.Device = None,
    switch: asking.Switch = None,
    vllm: Annotated[
        list[str] | None,
        typer.Option(
            "--vllm", metavar="NAME=VALUE", help="An engine argument of vLLM's: tensor_parallel_size=2. Repeatable."
        ),
    ] = None,
) -> None:
    """Serve a model: OpenAI's API with pictures and sound.

    Chat completions, transcriptions and translations, at /v1. One JSON object a line is logged, without what users say.
    """
    from weft.conversation import WeftError

    _check_installed("serve")
    from weft.serving.app import build_app
    from weft.serving.engine import Engine, LocalEngine
    from weft.serving.limits import Limits
    from weft.serving.run import is_loopback, listen

    if engine == "local" and vllm:
        raise WeftError("--vllm is for --engine vllm; leave it out")
    if engine == "vllm" and device:
        raise WeftError("--device is for --engine local; vLLM takes the kind of device that it was built for")
    if name is not None and not name.strip():
        raise WeftError("--name is empty; say what requests are to call the model, or leave it out")
    keys = [*(api_key or ()), *(api_key_file.read_text().split() if api_key_file else ())]
    if (api_key_file or api_key is not None) and not all(keys) or api_key_file and not keys:
        raise WeftError("an API key is empty; give one, or leave --api-key out")
    if not keys and not no_key and not is_loopback(host):
        raise WeftError(f"{host} can be reached from other machines: give --api-key (or --no-key if all may ask)")
    if keys and no_key:
        raise WeftError("--no-key lets anybody ask and --api-key does not; give one of them")
    for origin in allow_origin or ():
        if not re.fullmatch(r"https?://[^/?#\s]+", origin):
            raise WeftError(
                f"--allow-origin {origin}: an origin is https://HOST or https://HOST:PORT, as a browser sends it"
            )
    if bool(tls_cert) != bool(tls_key):
        raise WeftError("TLS takes both --tls-cert and --tls-key")
    if tls_cert:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(tls_cert, tls_key)
        except OSError as error:  # of a file, or of what it holds
            raise WeftError(
                f"--tls-cert {tls_cert}, --tls-key {tls_key}: no certificate and its key ({error})"
            ) from None
    limits = Limits(
        batch=max_batch,
        batch_tokens=max_batch_tokens,
        queue=max_queue,
        tokens=max_tokens,
        choices=max_choices,
        messages=max_messages,
        characters=max_characters,
        media=max_media,
        pixels=round(max_megapixels * 1e6),
        audio_seconds=max_audio_seconds,
        held_bytes=round(max_held_mb * 1e6),
        body_bytes=round(max_body_mb * 1e6),
        body_seconds=max_body_seconds,
    )
    called = _called(model) if name is None else name
    answering: Engine
    if engine == "vllm":
        arguments, switches = asking.pairs(vllm, "--vllm"), asking.pairs(switch, "--switch")
        answering = _vllm_engine()(model, dtype, limits.batch, arguments, switches)
    else:
        answering = LocalEngine(asking.open_model(model, dtype, device, switch), limits.batch, limits.batch_tokens)
    app = build_app(
        answering,
        called,
        limits,
        keys=keys,
        origins=allow_origin or (),
        media_hosts=allow_media_hosts or (),
        local=is_loopback(host),
    )
    listen(app, called, host, port, str(tls_cert) if tls_cert else None, str(tls_key) if tls_key else None)


def page(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, a hub name, or 'bundled'.")] = "bundled",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Whether to open it in the browser.")] = True,
    dtype: asking.Dtype = None,
    device: asking.Device = None,
    switch: asking.Switch = None,
) -> None:
    """Ask a model by hand, on a page in the browser: pictures, recordings, boxes, words and their times.

    Nobody but this machine reaches it, and nothing leaves it. Ctrl-C ends it.
    """
    import webbrowser

    _check_installed("page")
    from weft.serving.app import build_app
    from weft.serving.engine import LocalEngine
    from weft.serving.run import listen

    app = build_app(LocalEngine(asking.open_model(model, dtype, device, switch)), _called(model))
    listen(app, _called(model), "127.0.0.1", port, show=webbrowser.open if open_browser else None)


def _called(model: str) -> str:
    """What requests call a model: the last name of a folder."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def _vllm_engine() -> Any:
    from weft.conversation import WeftError

    try:
        from weft.serving.vllm.engine import VllmEngine
    except ImportError as error:
        raise WeftError(
            f"--engine vllm needs vLLM 0.32, in an environment of its own (docs/vllm.md), and here is none: {error}"
        ) from None
    return VllmEngine


def _check_installed(command: str) -> None:
    from weft.conversation import WeftError

    try:
        import weft.serving.app  # noqa: F401
    except ModuleNotFoundError as error:
        raise WeftError(f"weft {command} needs {error.name}: pip install 'weftlm[serve]'") from None
