"""Write the report of a finished run again: `blockwise report`, which `make report` calls."""

from pathlib import Path

import click
from rich.console import Console

from blockwise.command_line import FILE, config_files, run
from blockwise.config.load import DEFAULT_FILE, load_profile
from blockwise.reproduce.whole_run import Snakemake


@click.command("report")
@config_files
@click.option("--output", type=FILE, help="[default: results/PROFILE/report.html]")
def command(config: tuple[Path, ...], output: Path | None) -> None:
    """Write the report of a finished run: one HTML file that needs nothing else.

    CONFIG are configuration files in order; none means config/config.yaml.
    """
    files = config or (DEFAULT_FILE,)
    output = output or Path("results") / load_profile(files).profile / "report.html"
    Snakemake(files, "all", Console(stderr=True)).run("report", None, "--report", str(output))
    click.echo(f"report: {output}")


if __name__ == "__main__":
    run(command)
