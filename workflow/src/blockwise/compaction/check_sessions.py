"""Whether a batch's sessions can be played as its experiments ask, before any server starts.

`python -m blockwise.compaction.check_sessions --config PROFILE.json --backbone NAME
--sessions FILE --model FILE --prompts DIR`, right after the sessions are built.
"""

import argparse

from blockwise.compaction.batch_inputs import add_input_arguments, read_inputs
from blockwise.compaction.fit import check_sessions_fit
from blockwise.errors import run_command


def main() -> None:
    """Command line of the check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_input_arguments(parser)
    inputs = read_inputs(parser.parse_args())
    cells = ((cell.experiment, cell.spec) for cell in inputs.plan.selected)
    check_sessions_fit(cells, inputs.plan.sessions, inputs.renderer)


if __name__ == "__main__":
    run_command(main)
