"""What a model's own settings say of it: shape, window, and how it is asked.

Nothing is guessed here. What the settings do not say is None, and the entry says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EXPERT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
"""Keys of config.json under which families count the experts of a layer."""

THINKING_MARKS = ("<think>", "reasoning_content", "enable_thinking", "<|channel|>")
"""What a chat template holds where the model's thinking is told from its answer."""

PARSERS = {
    "gpt_oss": "openai_gptoss",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3",
    "deepseek_v3": "deepseek_r1",
}
"""vLLM's reasoning parser by `model_type`.

Source: vLLM's documentation, page "Reasoning Outputs"."""

PARSER_OF_THINK_TAGS = "deepseek_r1"  # reads <think>...</think>, whichever model wrote it
DATE_VARIABLE, TODAY = "date_string", "strftime_now"
PINNED_DATE = "26 Jul 2024"  # the date that Llama 3.1's template has by itself


@dataclass(frozen=True)
class Shape:
    """What serving pays for. Units: `kv_values_per_token` numbers, keys and values together."""

    model_type: str | None
    is_moe: bool
    window_tokens: int | None
    kv_values_per_token: int | None


@dataclass(frozen=True)
class ModelFacts:
    """All that could be read of a model."""

    name: str
    source: Mapping[str, Any]  # the entry's `model`
    shape: Shape
    num_parameters: int | None
    chat_template: str | None
    read_from: str  # in words
    notes: tuple[str, ...] = ()


def shape_of_config(config: Mapping[str, Any]) -> Shape:
    """The shape by a config.json; a model of text and images keeps it a level deeper."""
    values = {**config, **config.get("text_config", {})}
    num_layers, num_heads = values.get("num_hidden_layers"), values.get("num_attention_heads")
    hidden_size = values.get("hidden_size")
    kv_values = None
    if num_layers and num_heads and hidden_size:
        head_size = values.get("head_dim") or hidden_size // num_heads
        num_kv_heads = values.get("num_key_value_heads") or num_heads
        kv_values = 2 * num_layers * num_kv_heads * head_size
    return Shape(
        model_type=values.get("model_type"),
        is_moe=any((values.get(key) or 0) > 1 for key in EXPERT_KEYS),
        window_tokens=values.get("max_position_embeddings"),
        kv_values_per_token=kv_values,
    )


def thinks(template: str | None) -> bool:
    """Whether a chat template tells thinking from answers."""
    return template is not None and any(mark in template for mark in THINKING_MARKS)
