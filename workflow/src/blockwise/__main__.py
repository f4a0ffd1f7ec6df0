"""The command `blockwise`: its subcommands, each imported when it is called and not before.

blockwise --help
"""

import importlib

import click

from blockwise import __version__
from blockwise.command_line import PROGRAM, run

SUBCOMMANDS = {
    "compact": (
        "blockwise.compact",
        "Compact a conversation against any OpenAI-compatible server.",
    ),
    "backbone": ("blockwise.describe.backbone", "Print the configuration's entry of a model."),
    "estimate": (
        "blockwise.estimate.__main__",
        "Print what a run will cost before it is paid for.",
    ),
    "preflight": ("blockwise.run.preflight", "Say in a minute whether a backbone will run here."),
    "reproduce": (
        "blockwise.reproduce.whole_run",
        "Run a configuration, or what is missing of it.",
    ),
    "report": (
        "blockwise.reproduce.write_report",
        "Write the report of a finished run: one HTML file.",
    ),
    "claims": ("blockwise.report.claims_listing", "Print what a finished run says of each claim."),
    "compare": ("blockwise.run.compare", "Print what changed between two finished runs."),
    "verify": ("blockwise.run.verify", "Hold a finished run against what it recorded."),
}
"""Module and one line of every subcommand: the help needs no import of what it lists."""


class LazyGroup(click.Group):
    """A group whose subcommands are modules with a `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in the order in which a user meets them."""
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one; None where nothing has this name."""
        if cmd_name not in SUBCOMMANDS:
            return None
        found = importlib.import_module(SUBCOMMANDS[cmd_name][0]).command
        assert isinstance(found, click.Command), cmd_name
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in SUBCOMMANDS.items()])


@click.group(PROGRAM, cls=LazyGroup)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def command() -> None:
    """Parallel context compaction and MXFP4 training, as experiments that others can repeat."""


def main() -> None:
    """What the installed command `blockwise` calls."""
    run(command)


if __name__ == "__main__":
    main()
