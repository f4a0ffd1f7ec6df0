"""`engine_cards.csv`: one row a server start: what it was and how fast it decoded."""

from typing import Any

import pandas as pd

from blockwise.artifacts import canonical_json
from blockwise.serving.engine_card import EngineCard
from blockwise.tables.columns import (
    Column,
    ColumnKind,
    flag,
    frame,
    number,
    seconds,
    text,
    tokens,
)
from blockwise.tables.inputs import TableInputs

COLUMNS: tuple[Column, ...] = (
    text("engine_card_id", "One a server start; cells name it.", ColumnKind.HOST),
    text("backbone", "Name of the backbone in the configuration."),
    text("engine", "Engine and version."),
    text("model", "The model: a published one by name, format and the sha256 of its file."),
    text("model_digest", "Content digest of the files that were served."),
    text("dtype", "Type of number that the server computes in; empty: the engine's own choice."),
    tokens("context_window_tokens", "Longest prompt plus output."),
    tokens("kv_cache_tokens", "Capacity of the KV cache; empty: not reported.", ColumnKind.HOST),
    tokens("kv_block_tokens", "Tokens of one KV block; empty: not reported."),
    flag("prefix_caching", "Whether a repeated prompt hits the prefix cache."),
    flag(
        "cut_history_cached",
        "Whether a prompt finds the part that it shares with a longer one; no: layers with a "
        "sliding window keep the end only.",
    ),
    flag("prefix_stable", "Whether render(turns 1..i) is a token prefix of render(1..i+1)."),
    text("prefix_break", "The turn that breaks it; empty: none."),
    text("request_form", "chat or completion."),
    number("decode_1_tokens_per_s", "Decode speed of one request.", ColumnKind.TIMED, "tokens/s"),
    number(
        "decode_8_tokens_per_s",
        "Decode speed of eight requests at once, in total.",
        ColumnKind.TIMED,
        "tokens/s",
    ),
    flag(
        "seeded_output_batch_invariant",
        "Whether a seeded request gives the same text alone and in a batch.",
        ColumnKind.SAMPLED,
    ),
    text(
        "ttft_source",
        "engine or client: whose clock the first-token latencies of its requests are by.",
        ColumnKind.HOST,
    ),
    seconds("startup_s", "Launch to healthy."),
    text("arguments", "Arguments of the server, as JSON."),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a server start, in the order given."""
    return frame([_row(card) for card in inputs.engine_cards], COLUMNS)


def _row(card: EngineCard) -> dict[str, Any]:
    plain = [column.name for column in COLUMNS if column.name in EngineCard.model_fields]
    return {
        "engine_card_id": card.id,
        **{name: getattr(card, name) for name in plain},
        "arguments": canonical_json(card.arguments),
    }
