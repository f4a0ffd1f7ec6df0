"""Benchmark of the pipeline itself: `make bench-pipeline`.

    python -m blockwise.bench.pipeline --rounds 6

What our rules add to Snakemake's own start: a dry run of a profile over a dry run of a workflow
with one rule, interleaved, as the ratio of their wall times. A run that finds nothing to do costs
about the same as its dry run, and users type it most.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from blockwise.bench.rounds import FEWEST_ROUNDS, Figure, figure, publish
from blockwise.config.load import DEFAULT_FILE
from blockwise.errors import BlockwiseError, run_command

BARE = 'rule all:\n    output: "made"\n    shell: "touch made"\n'
GOAL = 4.0  # at most so many times Snakemake's own start


def dry_run_s(snakefile: Path, folder: Path, configfiles: Sequence[Path] = ()) -> float:
    """Seconds of a dry run from a snakefile.

    Raises:
        BlockwiseError: it failed.
    """
    settings = ["--configfile", *map(str, configfiles)] if configfiles else []
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), *settings]
    begin_s = time.perf_counter()
    done = subprocess.run(
        [*command, "--dry-run", "--quiet", "rules", "--nolock", "--cores", "1"],
        cwd=folder,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise BlockwiseError(f"the dry run of {snakefile} failed: {done.stdout.strip()[-2000:]}")
    return time.perf_counter() - begin_s


def pipeline_figures(configfiles: Sequence[Path], num_rounds: int) -> list[Figure]:
    """What a dry run of a profile takes, over one that does nothing; each pair side by side."""
    here = Path.cwd()
    ratios = []
    with tempfile.TemporaryDirectory() as scratch:
        bare = Path(scratch) / "Snakefile"
        bare.write_text(BARE)
        for _ in range(num_rounds):
            ours_s = dry_run_s(here / "Snakefile", here, configfiles)
            ratios.append(ours_s / dry_run_s(bare, Path(scratch)))
    name = "dry run of the profile over that of a workflow with one rule"
    return [figure(name, "x", ratios, GOAL, at_least=False)]


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configfile", type=Path, nargs="+", default=[DEFAULT_FILE])
    parser.add_argument(
        "--rounds", type=int, default=FEWEST_ROUNDS, help="pairs of dry runs (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("results/bench/pipeline.json"))
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        raise BlockwiseError(f"--rounds {arguments.rounds}: give at least 1")
    figures = pipeline_figures(arguments.configfile, arguments.rounds)
    subject = " ".join(map(str, arguments.configfile))
    publish(arguments.output, "pipeline", subject, figures)


if __name__ == "__main__":
    run_command(main)
