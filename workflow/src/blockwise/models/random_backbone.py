"""A random backbone: a small model nobody trained, for measuring time without downloads.

What a request costs depends on shapes, token counts and the engine, not on what the weights
know. So a Llama with seeded random weights measures layouts and history block sizes on the real
server as well as a trained one of its size. Its answers are noise: it is no use for recall.
Other families prove that an engine loads and serves an architecture before anybody pays for its
weights.

Its tokenizer is its own: a byte-level BPE, so that any text round-trips, trained on the
synthetic datasets (what the default profile reads) and on frequent English words (so that real
documents cost a realistic number of tokens). Each turn stands between two special tokens;
tokens never merge across a turn, and a conversation is always a token prefix of its
continuation, with no date or default system prompt in it.

The same recipe gives the same bytes with the same package versions.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GenerationConfig,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from blockwise.config.backbones import Family, RandomModel
from blockwise.config.datasets import SyntheticSource
from blockwise.data.synthetic import hotpotqa_rows, locomo_rows
from blockwise.models.common_words import zipf_lines

BOS_TOKEN = "<|bos|>"  # noqa: S105
END_TOKEN = "<|eot|>"  # noqa: S105
ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
SPECIAL_TOKENS = (BOS_TOKEN, END_TOKEN, *ROLE_TOKENS)

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role not in ['system', 'user', 'assistant', 'tool'] -%}
{{- raise_exception('role ' ~ message.role ~ ' is not one of system, user, assistant, tool') -}}
{%- endif -%}
{{- '<|' ~ message.role ~ '|>' -}}
{%- if message.content -%}{{- message.content -}}{%- endif -%}
{%- for call in message.tool_calls or [] -%}
{{- call.function.name ~ ' ' ~ (call.function.arguments | tojson) -}}
{%- endfor -%}
{{- '<|eot|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""

WEIGHT_STD = 0.02  # Llama's own initializer_range: activations stay finite at any depth used here
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""Source: config.json of Llama-3.1-8B-Instruct and Llama-3.3-70B-Instruct."""

CORPUS = SyntheticSource(kind="synthetic", seed=0, num_rows=24)
"""24 rows hold pairs for 4,096 tokens; training on them takes half a second."""


def make_random_backbone(
    recipe: RandomModel, context_window_tokens: int, folder: Path, *, with_weights: bool = True
) -> int:
    """Write the model and its tokenizer into a folder that does not exist yet.

    Weights are stored in bfloat16, as published checkpoints are, and vLLM serves them so unless
    `dtype` says otherwise. On a CPU with native bfloat16 it measured 2.4 times the tokens per
    second of float32 at 8 requests, with room for twice the KV cache.

    Args:
        recipe: sizes and seed.
        context_window_tokens: becomes `max_position_embeddings`.
        folder: where to write; its parent exists.
        with_weights: without them the folder serves an engine that makes its own up.

    Returns:
        The number of parameters.
    """
    folder.mkdir(exist_ok=True)
    tokenizer = train_tokenizer(recipe.vocab_size)
    tokenizer.save_pretrained(folder)
    with torch.device("cpu" if with_weights else "meta"):
        model = _model_of(recipe, context_window_tokens)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=SPECIAL_TOKENS.index(BOS_TOKEN),
        eos_token_id=SPECIAL_TOKENS.index(END_TOKEN),
        do_sample=False,
    )
    num_parameters: int = sum(parameter.numel() for parameter in model.parameters())
    if not with_weights:
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)
        return num_parameters
    draw_weights(model, recipe.seed)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model.to(torch.bfloat16).save_pretrained(folder)
    return num_parameters


def _model_of(recipe: RandomModel, context_window_tokens: int) -> Any:
    shape: dict[str, Any] = {
        "vocab_size": recipe.vocab_size,
        "hidden_size": recipe.hidden_size,
        "intermediate_size": recipe.intermediate_size,
        "num_hidden_layers": recipe.num_layers,
        "num_attention_heads": recipe.num_attention_heads,
        "num_key_value_heads": recipe.num_key_value_heads,
        "max_position_embeddings": context_window_tokens,
        "bos_token_id": SPECIAL_TOKENS.index(BOS_TOKEN),
        "eos_token_id": SPECIAL_TOKENS.index(END_TOKEN),
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    if recipe.family is Family.GPT_OSS:
        return GptOssForCausalLM(  # type: ignore[no-untyped-call]
            GptOssConfig(
                **shape,
                head_dim=recipe.hidden_size // recipe.num_attention_heads,
                num_local_experts=recipe.num_experts,
                num_experts_per_tok=recipe.num_experts_per_token,
                sliding_window=recipe.sliding_window_tokens,
                pad_token_id=None,
            )
        )
    if recipe.family is Family.LLAMA3:
        shape["rope_parameters"] = dict(LLAMA3_ROPE)
    return LlamaForCausalLM(LlamaConfig(**shape))  # type: ignore[no-untyped-call]


def draw_weights(model: torch.nn.Module, seed: int, std: float = WEIGHT_STD) -> None:
    """Draw every matrix from N(0, std^2); norms stay at one, biases at zero.

    Parameters are drawn in the order of their names from one explicit generator, so that
    the weights depend on nothing but the seed and the shapes.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.dim() > 1:
                parameter.normal_(0.0, std, generator=generator)
            else:
                parameter.fill_(1.0 if "norm" in name else 0.0)


def train_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Train the byte-level BPE and wrap it with special tokens and chat template.

    Where the text does not hold enough pairs for `vocab_size`, reserved tokens fill the rest,
    so that every id the model can emit is a token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,  # a pair seen once is chance
        show_progress=False,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(training_lines(), trainer=trainer)
    missing = vocab_size - tokenizer.get_vocab_size()
    tokenizer.add_tokens([f"<|reserved_{index}|>" for index in range(missing)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=BOS_TOKEN,
        eos_token=END_TOKEN,
        additional_special_tokens=list(ROLE_TOKENS),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def training_lines() -> Iterator[str]:
    """Text to train the tokenizer on, always the same."""
    for row in [*hotpotqa_rows(CORPUS), *locomo_rows(CORPUS)]:
        yield from _strings(row)
    yield from zipf_lines()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
    elif value is not None:
        yield json.dumps(value)
