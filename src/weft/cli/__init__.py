"""The command line: parses, calls, prints.

How a command plugs in. `COMMANDS` below says for each name where it lives (``module:attribute``), under which heading
``weft --help`` lists it, and its one line of help. The attribute is either a plain function with typer annotations

    def chat(model: Annotated[str, typer.Argument(help="...")], json: Annotated[bool, typer.Option("--json")] = False)

or a `typer.Typer` (a command with subcommands: ``weft data validate``). Its module is imported only when its command
runs, so ``weft --help``, completion and a mistyped option cost nothing; import torch and the like inside the function
or at the top of that module, as you please. Nothing is registered anywhere else.

How a command ends. It returns (status 0), raises `typer.Exit(code)`, or raises: a `WeftError` (or an error of the
operating system, or a recipe that does not validate) becomes one sentence on stderr and status 2; an interrupt is
quiet, 130; a reader that went away (``| head``) is quiet, 1. Anything else is a defect of weft: it says so and is 1.
``--traceback``, anywhere on the line, shows where an error came from. So a command never prints an error and never
calls `sys.exit`.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from weft.version import VERSION


class Command(NamedTuple):
    target: str
    panel: str
    help: str


USE, TRAIN, DATA, CARE = "Ask", "Train and measure", "Data and checkpoints", "Care"

COMMANDS: dict[str, Command] = {
    "demo": Command(
        "weft.cli.demo:demo", USE, "See it work: a small model learns, and answers about pictures and sounds."
    ),
    "chat": Command("weft.cli.chat:chat", USE, "Ask a model about pictures and sound, once or in a conversation."),
    "generate": Command(
        "weft.cli.generate:generate", USE, "Answer a file of requests, in batches; resumes where it stopped."
    ),
    "serve": Command("weft.cli.serve:serve", USE, "Serve a model: OpenAI's API with pictures and sound."),
    "page": Command("weft.cli.serve:page", USE, "Open a page in the browser to ask a model by hand."),
    "train": Command("weft.cli.train:train", TRAIN, "Train a recipe: a built-in name or a Python file."),
    "finetune": Command("weft.cli.train:finetune", TRAIN, "Fine-tune a model on your own samples."),
    "evaluate": Command("weft.cli.evaluate:evaluate", TRAIN, "Score a model on samples: a table, JSON and a page."),
    "score": Command("weft.cli.score:score", TRAIN, "Score any model's answers as the published evaluations do."),
    "show": Command(
        "weft.cli.show:show", TRAIN, "Look inside: every token of a sample, the sizes of a model or recipe."
    ),
    "data": Command("weft.cli.data:app", DATA, "Check, measure and convert sample files."),
    "import": Command("weft.cli.imports:app", DATA, "Turn a published checkpoint into a weft folder."),
    "export": Command("weft.cli.export:export", DATA, "Write a model in the layout of another program's class."),
    "merge": Command("weft.cli.export:merge", DATA, "Fold an adapter into the weights of its base."),
    "parts": Command("weft.cli.parts:parts", CARE, "Fetch the pretrained parts that weft's own model is made of."),
    "doctor": Command("weft.cli.doctor:doctor", CARE, "Say what is installed, what is broken, and how to repair it."),
}

CONTEXT = {"help_option_names": ["-h", "--help"]}


class LazyGroup(TyperGroup):
    """A group whose commands are listed from `COMMANDS` and imported when one runs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in that knows its name and help: what listing and completing names need."""
        if cmd_name not in COMMANDS:
            return None
        _, panel, text = COMMANDS[cmd_name]
        return TyperCommand(cmd_name, help=text, rich_help_panel=panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The real command, when it is about to run or to complete its own options."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if command is not None and name else None, rest


def load_command(name: str) -> Any:
    module, attribute = COMMANDS[name].target.split(":")
    found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        command: Any = typer.main.get_group(found)  # a group even where it has one subcommand so far
    else:
        app = typer.Typer(add_completion=False, rich_markup_mode="rich")
        app.command(name)(found)
        command = typer.main.get_command(app)
    command.name = name
    command.context_settings = {**CONTEXT, **command.context_settings}
    return command


def build() -> Any:
    """The command-line parser, whole but for what is imported later."""
    app = typer.Typer(cls=LazyGroup, rich_markup_mode="rich", context_settings=CONTEXT)

    @app.callback()
    def weft(
        version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
        traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")] = False,
        media_mb: Annotated[
            int | None, typer.Option(min=1, metavar="MB", help="Memory that one picture or recording may take (550).")
        ] = None,
    ) -> None:
        """Language models that see and hear: compose, train, evaluate, chat."""
        if media_mb is not None:
            from weft.media import set_decoded_bytes

            set_decoded_bytes(media_mb * 1_000_000)

    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """The ``weft`` command. Ends the process with the status that the notes above promise."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and gives its exit status; every error has been said by then."""
    args, trace = _take_traceback(list(arguments))
    if args in (["--version"], ["-V"]):
        print(f"weft {VERSION}")
        return 0
    try:
        code = build().main(args=args or ["--help"], prog_name="weft", standalone_mode=False, obj=args)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as e:
        if isinstance(e, BrokenPipeError):
            _close_stdout()
            return 1
        if trace:
            print(_printable("".join(traceback.format_exception(e))), end="", file=sys.stderr)
        sentence, status = explain(e)
        say_error(sentence if trace or status == 2 else f"{sentence}; --traceback shows where")
        return status


def explain(error: Exception) -> tuple[str, int]:
    """An error as a sentence, and the exit status: 2 where the user can mend it, 1 where weft must be mended."""
    if hasattr(error, "format_message"):  # a usage error of the parser; its class differs between versions of typer
        return _usage(error), 2
    if _is("weft.conversation", "WeftError", error):
        return str(error), 2
    if _is("pydantic", "ValidationError", error):
        return _invalid(error), 2
    if isinstance(error, OSError):
        return _system(error), 2
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory: use a smaller batch, row or model, or a machine with more", 2
    if isinstance(error, ImportError | RuntimeError) and _torch_pair(error):
        return (
            "torchvision or torchaudio does not fit the installed torch and breaks transformers: weft doctor says more",
            2,
        )
    return f"{type(error).__name__}: {error} (this is a defect of weft)", 1


def say_error(sentence: str) -> None:
    """One line on stderr, in colour on a terminal."""
    if not sentence:
        return
    mark = "\x1b[1;31merror:\x1b[0m" if sys.stderr.isatty() and "NO_COLOR" not in os.environ else "error:"
    print(mark, _printable(" ".join(sentence.split())), file=sys.stderr)


def _printable(text: str) -> str:
    """Text with half characters written out: they may stand in a message and in no stream."""
    return text.encode("utf-8", "backslashreplace").decode()


def _take_traceback(args: list[str]) -> tuple[list[str], bool]:
    """``--traceback`` may stand anywhere before a ``--``."""
    end = args.index("--") if "--" in args else len(args)
    kept = [a for a in args[:end] if a != "--traceback"] + args[end:]
    return kept, len(kept) < len(args)


def _is(module: str, name: str, error: Exception) -> bool:
    """Whether the error is one of a class that may never have been imported."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(error, getattr(loaded, name))


def _usage(error: Any) -> str:
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else "weft"
    said = error.format_message().strip().rstrip(".")
    return f"{said}: see {path} --help" if said else ""  # nothing to say where a group alone has printed its help


def _invalid(error: Any) -> str:
    """A configuration that does not validate: every field with what is wrong, in one sentence."""
    found = [f"{'.'.join(map(str, e['loc'])) or error.title}: {e['msg']}" for e in error.errors()]
    more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
    return f"{error.title}: " + "; ".join(found[:5]) + more


def _system(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"the disk is full{f' ({error.filename})' if error.filename else ''}: free some space and run it again"
    if error.filename is None:
        return str(error)
    return f"{error.filename}: {error.strerror or type(error).__name__}: check the path"


def _torch_pair(error: BaseException | None) -> bool:
    """Whether an error goes back to torchvision or torchaudio; transformers hides that behind a name of its own."""
    while error is not None:
        if any(sign in str(error) for sign in ("torchvision", "torchaudio")):
            return True
        error = error.__cause__ or error.__context__
    return False


def _close_stdout() -> None:
    """What is still in the buffer has no reader: let the interpreter flush it into nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
