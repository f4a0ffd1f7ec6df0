"""The log file of a server, and the few lines of it that say why it failed.

Starts append, so that the log of a failed run survives its repetition; what is quoted comes
from the latest start only.
"""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from blockwise.errors import ServerError

ADDRESS_IN_USE = re.compile(r"address already in use|EADDRINUSE", re.IGNORECASE)

_ERROR_LINE = re.compile(r"^\W*(?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*|.*\berror: .*")
_PREFIX = re.compile(r"^(?:\([^)]*\)\s*)?(?:(?:ERROR|CRITICAL) \S+ \S+ \[[^\]]*\]\s*)?")
_NO_CAUSE = ("See root cause above", "EngineDeadError", "CancelledError")
NUM_QUOTED_LINES = 3
TAIL_BYTES = 200_000  # a start writes some tens of kilobytes


class ServerLog:
    """Output of one server."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = 0

    @contextmanager
    def open_for(self, command: list[str]) -> Iterator[IO[bytes]]:
        """The stream for one start, headed by its command line.

        Raises:
            ServerError: the file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            stream = self.path.open("ab")
            self._start = stream.tell()
            stream.write(f"$ {shlex.join(command)}\n".encode())
            stream.flush()
        except OSError as error:
            raise ServerError(
                f"cannot write the server log {self.path}: {error.strerror}; free space or mend "
                "the permissions"
            ) from error
        with stream:
            yield stream

    def says(self, pattern: re.Pattern[str]) -> bool:
        """Whether the latest start printed this."""
        return pattern.search(self._text()) is not None

    def telling_lines(self) -> str:
        """The errors of the latest start that name a cause, else its last lines."""
        lines = [line.rstrip() for line in self._text().splitlines()[1:] if line.strip()]
        stripped = [_PREFIX.sub("", line).strip() for line in lines]
        errors = [
            line
            for line in stripped
            if _ERROR_LINE.match(line) and not any(phrase in line for phrase in _NO_CAUSE)
        ]
        chosen = list(dict.fromkeys(errors)) or stripped
        return " | ".join(chosen[-NUM_QUOTED_LINES:]) or "it printed nothing"

    def _text(self) -> str:
        try:
            with self.path.open("rb") as stream:
                end = stream.seek(0, 2)
                stream.seek(max(self._start, end - TAIL_BYTES))
                return stream.read().decode(errors="replace")
        except OSError:
            return ""
