"""Whether the replicas of one backbone are alike, so that it does not matter which one answers.

A record names the replica that made it, but no table tells replicas apart: two that differ in
version, model, window or cache would mix two engines under one name. Servers of ours get one
command line; what somebody else runs is asked what it is. What all of them really do, their
engine cards say. The size of the KV cache may differ: vLLM takes what memory is left, a few KV
blocks more on one GPU than on the next, and a timing cell is held against its own replica's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from blockwise.errors import ServerError
from blockwise.serving.engine_card import EngineCard
from blockwise.serving.http_json import HttpError, get_json
from blockwise.serving.running_server import Server
from blockwise.serving.served_models import ServedModel, served_models

CARD_FIELDS = (
    "engine",
    "model_digest",
    "dtype",
    "context_window_tokens",
    "kv_block_tokens",
    "prefix_caching",
    "cut_history_cached",
    "prefix_stable",
    "request_form",
    "ttft_source",
    "arguments",
)
"""Fields of an engine card that a record can depend on. Speeds and start-up times vary, and the
card of each says its own."""


def refuse_unlike_endpoints(name: str, servers: Sequence[Server]) -> None:
    """Refuse endpoints of one backbone that call themselves different things.

    Raises:
        ServerError: naming the endpoints, the key and both values.
    """
    if len(servers) > 1:
        said = [_says_of_itself(server) for server in servers]
        _refuse_unlike(name, [server.base_url for server in servers], said)


def refuse_unlike_cards(name: str, cards: Sequence[EngineCard]) -> None:
    """Refuse replicas of one backbone that the probe found different.

    Raises:
        ServerError: naming the replicas, the field and both values.
    """
    found = [{field: getattr(card, field) for field in CARD_FIELDS} for card in cards]
    labels = [f"replica {number}" for number in range(1, len(cards) + 1)]
    _refuse_unlike(name, labels, found)


def _refuse_unlike(name: str, labels: Sequence[str], found: Sequence[Mapping[str, Any]]) -> None:
    problems = [
        f"{key} is {found[0][key]!r} at {labels[0]} and {other[key]!r} at {label}"
        for label, other in zip(labels[1:], found[1:], strict=True)
        for key in found[0]
        if other[key] != found[0][key]
    ]
    if problems:
        raise ServerError(
            f"the replicas of {name} are not alike: {'; '.join(problems)}. Sessions are spread "
            "over them, so all must serve the same; mend the odd one, or make it a backbone of "
            "its own"
        )


def _says_of_itself(server: Server) -> dict[str, Any]:
    """Version and served model by the endpoint's own words; None where it has none."""
    served = _asked(served_models, server.base_url, server.api_key) or {}
    model = served.get(server.served_model, ServedModel(id=server.served_model))
    said = _asked(get_json, f"{server.base_url.removesuffix('/v1')}/version", server.api_key)
    version = said.get("version") if isinstance(said, dict) else None
    return {"version": version, **model.model_dump(exclude={"id"})}


def _asked(question: Callable[[str, str], Any], url: str, api_key: str) -> Any:
    try:
        return question(url, api_key)
    except HttpError:
        return None
