"""What the subcommands of `blockwise` share: how they are read, run and ended.

A subcommand is a click command in the module that does its work. `blockwise NAME` and
`python -m` of that module call the same one, and both end by the rules of `blockwise.errors`.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from blockwise.errors import ConfigError, run_command

PROGRAM = "blockwise"
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


class Value(click.ParamType[Any]):
    """A value that a function of ours reads, and refuses in its own words.

    Args:
        name: what stands for the value in the help.
        read: from the text to the value; raises ValueError where it is none.
    """

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the text of the command line; a default is taken as it is."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def config_files(command: Callable[..., None]) -> Callable[..., None]:
    """The configuration of a command: files in order; none means the default profile."""
    return click.argument("config", nargs=-1, type=FILE)(command)


def call(command: click.Command, words: Sequence[str]) -> None:
    """Read the words of a command line and do what they ask.

    Raises:
        ConfigError: they are refused; the message is one line and names the help.
        BlockwiseError: what they ask for failed.
    """
    is_group = isinstance(command, click.Group)
    name = PROGRAM if is_group else f"{PROGRAM} {command.name}"
    try:
        with command.make_context(name, list(words)) as context:
            command.invoke(context)
    except click.exceptions.NoArgsIsHelpError as asked:
        click.echo(asked.format_message())
    except click.exceptions.Exit:  # after --help or --version
        pass
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else name
        text = " ".join(error.format_message().split()).rstrip(".")
        raise ConfigError(f"{text}; see `{path} --help`") from error


def run(command: click.Command) -> NoReturn:
    """Run the command that this process was started for."""
    run_command(partial(call, command, sys.argv[1:]))
