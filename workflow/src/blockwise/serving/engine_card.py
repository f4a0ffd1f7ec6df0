"""The engine card: what the server of a batch is and how fast it decodes.

Every timing record points at one card, because a number without the engine that produced it
cannot be compared with anything. A card belongs to one server start, not to a backbone.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class EngineCard(BaseModel):
    """The server that played a batch; `probe` fills it in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    id: str  # one per server start
    backbone: str
    engine: str  # name and version
    model_digest: str
    model: str = ""  # in words: name, format and digest; empty: a card of an earlier version
    dtype: str | None = None  # the server computes in; None: it was left to the engine
    context_window_tokens: int
    kv_cache_tokens: int | None
    kv_block_tokens: int | None
    prefix_caching: bool
    cut_history_cached: bool = True  # a prompt finds the part that it shares with a longer one
    prefix_stable: bool
    prefix_break: str | None  # the turn that breaks it
    request_form: str
    decode_1_tokens_per_s: float  # one request
    decode_8_tokens_per_s: float  # eight at once, in total
    seeded_output_batch_invariant: bool
    ttft_source: Literal["engine", "client"] = "client"  # whose clock the records' ttft_s is by
    startup_s: float
    arguments: dict[str, Any]
