"""Write the crate of a finished run: `python -m blockwise.crate.write results/default`.

It becomes results/<profile>/crate, a Workflow Run RO-Crate that holds tables, figures, report,
configuration and code, and can be deposited as it is. Equal inputs give equal bytes. RUN_BY and
ORCID in the environment name who ran it; nobody is named otherwise.
"""

import argparse
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from blockwise.crate.code import place_code
from blockwise.crate.entities import Agent, describe
from blockwise.crate.run_entities import load_run
from blockwise.errors import ArtifactError, BlockwiseError, run_command
from blockwise.provenance import SOURCE_FOLDER

CRATE = "crate"
PROJECT_FOLDER = SOURCE_FOLDER.parents[2]
ORCID = re.compile(r"https://orcid\.org/\d{4}-\d{4}-\d{4}-\d{3}[\dX]")


class AgentError(BlockwiseError):
    """Whoever is said to have run the workflow cannot be named so."""


def write_crate(
    results: Path, agent: Agent | None = None, project_folder: Path = PROJECT_FOLDER
) -> Path:
    """Write the crate of a run, from the folder that its manifest's paths are relative to.

    The folder is made beside its place and moved there when it is whole.

    Args:
        results: results/<profile>.
        agent: who ran it, if that is to be said.
        project_folder: where the code of the run is.

    Raises:
        ArtifactError: the run is unfinished or damaged, or the crate cannot be written; a
            crate that was there is as it was.
    """
    run = load_run(results)
    target, unfinished, old = (
        results / name for name in (CRATE, f".{CRATE}.unfinished", f".{CRATE}.old")
    )
    try:
        for leftover in (unfinished, old):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished.mkdir()
        manifest = run.manifest
        note = place_code(project_folder, manifest.commit, manifest.dirty, unfinished)
        describe(run, unfinished, note, agent).write(unfinished)
        if target.exists():
            target.replace(old)
        unfinished.replace(target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {target}: {error.strerror}. The run is untouched; free space or mend "
            "the permissions and run the same command again"
        ) from error
    return target


def agent_of(environment: Mapping[str, str]) -> Agent | None:
    """Who ran the workflow, as RUN_BY and ORCID in the environment say.

    Raises:
        AgentError: an ORCID iD without a name, or in another form.
    """
    name, orcid = environment.get("RUN_BY"), environment.get("ORCID")
    if not name and not orcid:
        return None
    if not name:
        raise AgentError(
            f"the ORCID iD {orcid} comes without a name; give RUN_BY and ORCID, or no ORCID"
        )
    if orcid and not ORCID.fullmatch(orcid):
        raise AgentError(
            f"{orcid!r} is no ORCID iD in the form https://orcid.org/0000-0000-0000-0000; mend it"
        )
    return Agent(name, orcid or None)


def main() -> None:
    """Command line: the results of a run."""
    parser = argparse.ArgumentParser(
        prog="python -m blockwise.crate.write", description=__doc__.splitlines()[0]
    )
    parser.add_argument("results", type=Path, help="results/<profile>")
    arguments = parser.parse_args()
    write_crate(Path(os.path.relpath(arguments.results)), agent_of(os.environ))


if __name__ == "__main__":
    run_command(main)
