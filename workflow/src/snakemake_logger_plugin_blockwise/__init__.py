"""Snakemake's logger plugin of `blockwise reproduce`: events as lines for the process above it.

Snakemake finds it by its name (`--logger blockwise`). Its own log file keeps every word.
"""

import sys
from logging import LogRecord

from snakemake_interface_logger_plugins.base import LogHandlerBase

from blockwise.run.run_events import encode


class LogHandler(LogHandlerBase):
    """Writes what a reader of the run needs, one line an event, and nothing else."""

    def emit(self, record: LogRecord) -> None:
        """Write one event, if the record is one."""
        line = encode(record)
        if line is not None:
            print(line, file=sys.stderr, flush=True)

    @property
    def writes_to_stream(self) -> bool:
        """In place of Snakemake's own words on the terminal."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """Its own log file is not replaced."""
        return False

    @property
    def has_filter(self) -> bool:
        """Events are chosen where they are encoded."""
        return True

    @property
    def has_formatter(self) -> bool:
        """They are no text."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """No."""
        return False
