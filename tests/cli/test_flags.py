"""The commands and their options. Users have them in scripts: what this list loses or renames, they lose."""

from pathlib import Path

from weft.cli import COMMANDS, load_command

LISTED = Path(__file__).with_name("flags.txt")


def lines(command, name):
    """One line for a command: its name, its arguments, its options in their order."""
    if hasattr(command, "commands"):
        for own, inner in sorted(command.commands.items()):
            yield from lines(inner, f"{name} {own}")
        return
    arguments = [p.name.upper() for p in command.params if p.param_type_name == "argument"]
    options = ["/".join(p.opts) for p in command.params if p.param_type_name == "option" and not p.hidden]
    yield " ".join([name, *arguments, *options])


def test_commands_and_options_are_those_listed():
    """A new option is a new word in flags.txt."""
    found = [line for name in COMMANDS for line in lines(load_command(name), name)]
    assert found == LISTED.read_text().splitlines()
