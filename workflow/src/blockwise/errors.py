"""Errors a user can act on, and the one place that prints them.

Every `BlockwiseError` states the value, the limit and the remedy; command-line entry
points turn it into a single message without a traceback. Anything else that escapes
is a defect of ours and keeps its traceback.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT
PIPE_CLOSED = 128 + signal.SIGPIPE


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
    """Run a command-line entry point: what a user can cause ends in one message, no traceback.

    The exit status is 2 where something is wrong, and that of the signal where a user ended it:
    130 after Ctrl-C, 141 where nobody reads the output any more.
    """
    try:
        main()
        sys.stdout.flush()
    except BlockwiseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print(f"error: {stop if stop.args else 'interrupted'}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere
        print("error: nobody reads the output any more", file=sys.stderr)
        sys.exit(PIPE_CLOSED)
    sys.exit(0)
