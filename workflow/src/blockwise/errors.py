"""Errors a user can act on, and the one place that prints them.

Every `BlockwiseError` states the value, the limit and the remedy; command-line entry
points turn it into a single message without a traceback. Anything else that escapes
is a defect of ours and keeps its traceback.
"""

import sys
from collections.abc import Callable
from typing import NoReturn


class BlockwiseError(Exception):
    """A problem the user can mend; its text names the value, the limit and the remedy."""


class ConfigError(BlockwiseError):
    """The configuration is refused; every problem found is listed in one message."""


class DatasetError(BlockwiseError):
    """A dataset is missing, damaged, empty or does not fit its sessions."""


class ServerError(BlockwiseError):
    """A model server did not start, did not become healthy or went away."""


class EngineError(BlockwiseError):
    """A server's answer cannot be trusted: an error, a cut stream, a wrong token count."""


class CompactionError(BlockwiseError):
    """A compaction failed; the history it was asked to compact is unchanged."""


class WorkersError(CompactionError):
    """Workers of a compaction were asked and failed; another attempt may succeed."""


class ArtifactError(BlockwiseError):
    """An artifact is missing, damaged or of an unknown schema version."""


def run_command(main: Callable[[], None]) -> NoReturn:
    """Run a command-line entry point: user errors exit 2 with one message, no traceback."""
    try:
        main()
    except BlockwiseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)
