"""The last job of a split batch: from its parts to the batch that everything after it reads.

    python -m blockwise.compaction.join --config ... --backbone ... --parts ... --output ...

It needs no server and writes what one job would have written: nothing downstream knows of parts.
"""

import argparse
from pathlib import Path

from blockwise.artifacts import write_model
from blockwise.compaction.batch_inputs import add_arguments, read_inputs
from blockwise.compaction.parts import check_parts
from blockwise.compaction.play_batch import BatchJob
from blockwise.compaction.store import CellStore
from blockwise.errors import run_command


def main() -> None:
    """Command line: the inputs of the batch, and the files of its parts."""
    parser = argparse.ArgumentParser(
        prog="python -m blockwise.compaction.join", description=__doc__.splitlines()[0]
    )
    add_arguments(parser)
    parser.add_argument("--parts", type=Path, nargs="+", required=True, metavar="FILE")
    arguments = parser.parse_args()
    inputs = read_inputs(arguments)
    store = CellStore(arguments.store, print)
    check_parts(inputs.plan, arguments.parts, store)
    job = BatchJob(inputs.plan, inputs.backbone, inputs.model, store, inputs.config_digest)
    write_model(arguments.output, job.batch(inputs.sessions, inputs.caption))


if __name__ == "__main__":
    run_command(main)
