"""A compactor beside scripted workers, without a tokenizer: tokens are counted by length."""

import contextlib

from blockwise.compaction.chat import ChatCompactor
from blockwise.models.assumed_renderer import AssumedRenderer
from compaction.summariser import serving

WINDOW_TOKENS = 8192
NEEDED = "needs .venv-adapters: `make env-adapters` makes it"
COUNTING = "/v1/tokenize", "/tokenize"  # asked once; this server does not count


class Workers:
    """What the server was asked."""

    def __init__(self, stub):
        self._stub = stub
        stub.behaviour = self._behaviour

    @property
    def asked(self):
        """Requests to summarise."""
        return [body for body in self._stub.requests if body["path"] not in COUNTING]

    def _behaviour(self, _, body):
        return "error_404" if body["path"] in COUNTING else self._stub._behaviours[0]


@contextlib.asynccontextmanager
async def scripted(behaviour="summary", **arguments):
    """A compactor and its workers, which all behave alike."""
    with serving(AssumedRenderer(), [behaviour]) as stub:
        workers = Workers(stub)
        async with ChatCompactor(
            stub.base_url, "m", window=WINDOW_TOKENS, block_size=150, **arguments
        ) as compactor:
            yield compactor, workers
