"""`weft chat`: one question, or a conversation in the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from weft.cli import asking


def chat(
    model: asking.ModelName,
    question: Annotated[
        str, typer.Argument(help="What to ask; '-' or a pipe reads it from stdin.", show_default=False)
    ] = "",
    image: Annotated[list[Path] | None, typer.Option(help="A picture; repeat for more.", show_default=False)] = None,
    audio: Annotated[list[Path] | None, typer.Option(help="A recording; repeat for more.", show_default=False)] = None,
    box: Annotated[
        list[str] | None, typer.Option(help="A region of the last picture: 'L T R B' in fractions.", show_default=False)
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help="A task and its fields: 'refer', 'transcribe language=en timestamps=true'.", show_default=False
        ),
    ] = "",
    system: Annotated[str, typer.Option(help="A system message.", show_default=False)] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the reply as one JSON object.")] = False,
    save: Annotated[
        Path | None, typer.Option(help="Save the picture with its boxes, or the words on a timeline.")
    ] = None,
    max_new_tokens: asking.MaxNewTokens = 256,
    sample: asking.Sample = False,
    temperature: asking.Temperature = None,
    top_p: asking.TopP = None,
    top_k: asking.TopK = None,
    beams: asking.Beams = 1,
    repetition_penalty: asking.RepetitionPenalty = 1.0,
    seed: asking.Seed = None,
    dtype: asking.Dtype = None,
    device: asking.Device = None,
    switch: asking.Switch = None,
) -> None:
    """Ask a model about pictures and sound.

    With a QUESTION, or a --task that needs none, it answers once. Otherwise it opens a conversation; /help lists what
    can be typed there.
    """
    from weft.cli.session import Session, show, show_json
    from weft.conversation import TASKS, WeftError

    options = asking.decoding_options(
        max_new_tokens, sample, temperature, top_p, top_k, beams, repetition_penalty, seed
    )
    session = Session(options=options, system=system)
    for path in image or ():
        session.attach("image", path)
    for path in audio or ():
        session.attach("audio", path)
    for numbers in box or ():
        session.attach_box(numbers.replace(",", " ").split())
    session.task = asking.parse_task(task) if task else None

    spec = TASKS.get(session.task["task"]) if session.task else None
    complete = session.task is not None and not (spec and spec.text)  # the task says all that is asked
    if question == "-" or not question and not complete and not sys.stdin.isatty():
        question = sys.stdin.read().strip()
    interactive = not question and not complete and sys.stdin.isatty()
    if interactive and json:
        raise WeftError("--json answers one question; give the question, or pipe it in")
    if not interactive:
        if not (question or complete or audio):
            raise WeftError("there is nothing to ask: give a question, pipe one in, or name a --task")
        session.asking(question)  # what is wrong with it is said before a model is loaded

    session.model = asking.open_model(model, dtype, device, switch)
    if interactive:
        session.run()
    elif json:
        show_json(session.ask(question))
    elif sys.stdout.isatty():
        session.stream(question)
    else:
        show(session.ask(question), session.conversation)
    if save is not None:
        session.save(save)
