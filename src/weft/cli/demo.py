"""`weft demo`: the whole thread in a few minutes, on samples made here.

The model `scratch` starts from random weights, so the demo first teaches it a small world of coloured shapes and plain
sounds, then asks it about pictures and clips that it has never seen, and scores it beside the best constant answer.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weft.cli.terminal import duration, err, out

if TYPE_CHECKING:
    from weft.conversation import Conversation
    from weft.generation import Reply
    from weft.training.recipe import Recipe

TRAIN, TEST, SHOWN = 4000, 120, 6  # samples to learn from, to score on, to show
STEPS, ROW_TOKENS = 2000, 1024
TRAIN_SEED, TEST_SEED = 1, 2


def demo(
    folder: Annotated[Path, typer.Option("--out", "-o", help="Where samples, model, pictures and report go.")] = Path(
        "demo-out"
    ),
    steps: Annotated[int, typer.Option(min=1, max=10**8, help="Training steps; more answer better.")] = STEPS,
    samples: Annotated[int, typer.Option(min=10, max=10**6, help="Samples to learn from.")] = TRAIN,
    again: Annotated[bool, typer.Option("--again", help="Train anew, though a trained model is there.")] = False,
) -> None:
    """See weft work: make samples, train a small model on them, ask it, score it."""
    import weft
    from weft.cli.asking import progress_bar
    from weft.evaluation.report import table
    from weft.evaluation.run import evaluate, read_questions
    from weft.generation import Options
    from weft.playground import shapes

    begun = time.monotonic()
    data = folder / "data"
    if again:
        for part in ("data", "run", "model"):
            shutil.rmtree(folder / part, ignore_errors=True)
    if not (data / "test.jsonl").exists():
        err.print("1. Making pictures of coloured shapes and clips of sounds, each with a question and its answer.")
        train_data = shapes.write(data, "train", samples, TRAIN_SEED)
        shapes.write(data, "test", TEST, TEST_SEED)
    train_data, test_data = data / "train.jsonl", data / "test.jsonl"

    model_folder = folder / "model"
    if model_folder.is_dir():
        err.print(f"2. The model of an earlier demo is used: {model_folder} (--again trains anew).", soft_wrap=True)
    else:
        err.print(f"2. Teaching the model `scratch`, which knows nothing yet: {steps} steps on all cores.")
        _train(demo_recipe(train_data, steps), folder / "run", model_folder)

    err.print("3. Asking about pictures and clips that it has not seen.")
    model = weft.load(model_folder)
    options = Options(max_new_tokens=48)
    questions = read_questions(test_data)
    replies = model.chat_batch([c.prompt() for c in questions[:SHOWN]], options)
    _show(questions, replies, folder / "pictures")

    err.print(f"4. Scoring it on {TEST} samples beside the best answer that ignores its input.")
    with progress_bar("answering") as progress:
        report = evaluate(
            model, test_data, folder / "report", name=str(model_folder), options=options, progress=progress
        )
    out.print(table(report))
    err.print(f"Done in {duration(time.monotonic() - begun)}. Now try:")
    picture = questions[0].images[0].source
    out.print(f'  weft chat {model_folder} --image {picture} --task vqa "how many shapes are there?"', soft_wrap=True)
    out.print(
        f"  every question and answer, with pictures and sound: {folder / 'report' / 'index.html'}", soft_wrap=True
    )


def demo_recipe(data: Path, steps: int) -> Recipe:
    """The model `scratch`, everything trained, on one file."""
    from weft.recipes.small import ALONE, from_nothing, from_scratch
    from weft.training.recipe import Source

    recipe = from_scratch("demo", (Source(path=str(data.absolute())),), steps)
    (stage,) = recipe.stages
    stage = stage.model_copy(
        update={"name": "demo", "row_tokens": ROW_TOKENS, "lessons": from_nothing(min(ALONE, steps // 4))}
    )
    return recipe.model_copy(update={"stages": (stage,), "checkpoint_every": 100})


def _train(recipe: Recipe, run: Path, model: Path) -> None:
    """Trains, or goes on with a run that was stopped."""
    import weft
    from weft.training.endings import Interrupted
    from weft.training.folder import RunFolder

    resume = (run / "recipe.json").exists() and RunFolder.read(run).recipe == recipe
    if run.exists() and not resume:
        shutil.rmtree(run)
    try:
        weft.train(None if resume else recipe, run, resume=resume, out=model, console=err)
    except Interrupted as stop:
        err.print("Stopped; the same command goes on from here.", style="warn")
        raise typer.Exit(stop.status) from None


def _show(questions: list[Conversation], replies: list[Reply], pictures: Path) -> None:
    """Each question with the answer given and whether it is right; drawings of boxes and word times are saved."""
    from rich.text import Text

    from weft.cli.session import save_drawing
    from weft.conversation import WeftError
    from weft.evaluation.pairs import Pair
    from weft.evaluation.right import is_right

    for i, (asked, reply) in enumerate(zip(questions, replies, strict=False)):
        pair = Pair.of(asked, reply.parts)
        right = is_right(pair)
        mark = Text("✓ ", "good") if right else Text("✗ ", "bad")
        what = "picture" if asked.images else "clip"
        message = asked.messages[0]
        task = message.task.name if message.task else ""
        line = Text.assemble(mark, (f"{what}, {task}: ", "quiet"), message.text or "", " → ")
        line.append(_said(pair.given, reply.text), "accent")
        if not right:
            line.append(f"   (right: {_said(pair.expected, '')})", "quiet")
        out.print(line, soft_wrap=True)
        try:
            for path in save_drawing(reply, asked, pictures / f"{i + 1}.png"):
                out.print(Text(f"    drawn in {path}", "quiet"), soft_wrap=True)
        except WeftError:
            continue  # an answer in words alone has nothing to draw


def _said(parts: tuple[object, ...], text: str) -> str:
    """An answer on one line, boxes and times in short."""
    from weft.conversation import Box, Text, Words

    said = []
    for part in parts:
        if isinstance(part, Box):
            said += ["box " + " ".join(f"{x:.2f}" for x in box) for box in part.boxes]
        elif isinstance(part, Words):
            said += [f"{w.text} {w.start:.2f}–{w.end:.2f} s" for w in part.words]
        elif isinstance(part, Text) and part.text.strip():
            said.append(part.text.strip())
    return ", ".join(said) or text or "(nothing)"
