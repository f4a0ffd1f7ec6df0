"""A server that answers: what a client of it needs, apart from how it was started."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from blockwise.serving.http_json import HttpError, get_text


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    base_url: str  # up to and including /v1
    served_model: str
    start_id: str  # one per start
    startup_s: float
    log_path: Path | None  # None: an external server keeps its own
    api_key: str = field(repr=False)
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def is_alive(self) -> bool:
        """Whether it can still serve.

        A managed server is dead when its process is, or when it says that its engine is (it
        lingers for seconds then); one that is merely slow to answer is alive.
        """
        if self.process is not None and self.process.poll() is not None:
            return False
        url = self.base_url.removesuffix("/v1") + "/health"
        try:
            get_text(url if self.process is not None else f"{self.base_url}/models", self.api_key)
        except HttpError as error:
            return error.timed_out
        return True
