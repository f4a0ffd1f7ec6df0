"""The entry of a backbone, ready to paste: `blockwise backbone MODEL`.

The entry is checked by the configuration's own rules before it is printed. What stands above it as
comments says what was read, the memory that it needs, and what could not be found out.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click
import yaml

from blockwise.command_line import Value, run
from blockwise.config.backbones import Backbone
from blockwise.describe.facts import (
    DATE_VARIABLE,
    PARSER_OF_THINK_TAGS,
    PARSERS,
    PINNED_DATE,
    TODAY,
    ModelFacts,
    thinks,
)
from blockwise.describe.read_model import entry_name, read_model
from blockwise.errors import ConfigError
from blockwise.estimate.hardware import (
    H100_GB_PER_S,
    H100_GIB,
    H100_TFLOPS,
    ModelSize,
    cpu,
    gpu,
    memory_problems,
    value_bytes,
)
from blockwise.run.job_resources import CPU_KV_VARIABLE

GIB = 2**30
GB = 1e9
KV_WINDOWS = 1  # the KV cache must hold one window, or a session that fills it is thrown out of it
LINE_CHARS = 100


def backbone_entry(facts: ModelFacts, window_tokens: int, gpus: int) -> dict[str, Any]:
    """The entry of a model, as the configuration writes it.

    Raises:
        ConfigError: its parameters could not be counted, so nothing can be said of its size.
    """
    arguments: dict[str, Any] = {"tensor-parallel-size": gpus} if gpus else {"enforce-eager": True}
    reasoning = thinks(facts.chat_template)
    if reasoning:
        parser = PARSERS.get(facts.shape.model_type or "", PARSER_OF_THINK_TAGS)
        arguments["reasoning-parser"] = parser
    engine: dict[str, Any] = {"kind": "vllm", "arguments": arguments}
    entry: dict[str, Any] = {
        "model": dict(facts.source),
        "architecture": "moe" if facts.shape.is_moe else "dense",
        "reasoning": reasoning,
        "num_parameters": facts.num_parameters,
        "context_window_tokens": window_tokens,
        "engine": engine,
        **({"gpus": gpus} if gpus else {}),
    }
    if facts.chat_template and DATE_VARIABLE in facts.chat_template:
        entry["request"] = {"chat_template_arguments": {DATE_VARIABLE: PINNED_DATE}}
    size = model_size(facts, Backbone.model_validate(entry))
    if not gpus and size is not None:
        space_gib = math.ceil(KV_WINDOWS * window_tokens * size.kv_bytes_per_token / GIB)
        engine["environment"] = {CPU_KV_VARIABLE: str(max(1, space_gib))}
    return entry


def model_size(facts: ModelFacts, backbone: Backbone) -> ModelSize | None:
    """What serving it takes; None where its settings do not say."""
    if facts.shape.kv_values_per_token is None:
        return None
    width = value_bytes(backbone)
    return ModelSize(
        weights_bytes=width * backbone.num_parameters,
        active_parameters=backbone.num_parameters,
        kv_bytes_per_token=width * facts.shape.kv_values_per_token,
        attention_size=0,  # no speed is said here
        source="its settings",
    )


def remarks(name: str, facts: ModelFacts, entry: Mapping[str, Any]) -> list[str]:
    """What a reader of the entry should know, a line each."""
    backbone = Backbone.model_validate(entry)
    size, template = model_size(facts, backbone), facts.chat_template
    lines = [f"read from {facts.read_from}"]
    unknown = list(facts.notes)
    if size is not None:
        window_gb = backbone.context_window_tokens * size.kv_bytes_per_token / GB
        lines.append(
            f"memory: {size.weights_bytes / GB:.3g} GB of weights and {window_gb:.3g} GB of KV "
            f"cache for one window, at {value_bytes(backbone)} bytes a value"
        )
        device = gpu(H100_GIB, H100_TFLOPS, H100_GB_PER_S) if backbone.gpus else cpu()
        lines += memory_problems(name, backbone, size, device)
    else:
        unknown.append("memory: the settings do not give layers, heads and their size")
    lines.append(f"request form: {backbone.request.form}, by the model's own chat template")
    if template is None:
        unknown.append(
            "chat template: there is none, and every request needs one; take an instruction-tuned "
            "model, or add chat_template.jinja"
        )
    elif TODAY in template and DATE_VARIABLE not in template:
        unknown.append("chat template: it writes today's date, which breaks cached prefixes")
    parser = entry["engine"]["arguments"].get("reasoning-parser")
    if parser is not None and facts.shape.model_type not in PARSERS:
        unknown.append(f"reasoning parser: {parser} is taken for <think> tags; vLLM lists others")
    if parser is None:
        unknown.append("whether it thinks before it answers; its template does not mention it")
    unknown.append(
        "whether vLLM serves it here and its prefixes stay stable; `blockwise preflight THIS_FILE "
        f"--backbone {name}` says so in a minute"
    )
    return [*lines, *(f"not found out: {line}" for line in unknown)]


def printed(name: str, entry: Mapping[str, Any], lines: list[str]) -> str:
    """The entry as YAML below its remarks: an overlay by itself."""
    comments = "".join(f"# {line}\n" for line in lines)
    body = yaml.safe_dump(
        {"backbones": {name: dict(entry)}},
        sort_keys=False,
        default_flow_style=None,
        width=LINE_CHARS,
        allow_unicode=True,
    )
    return comments + body


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is no whole number of at least 1")
    return int(text)


@click.command("backbone")
@click.argument("model")
@click.option("--name", help="Of the entry.  [default: the model's, in small letters]")
@click.option(
    "--window",
    type=Value("tokens", _positive),
    help="Context window to serve.  [default: the model's own]",
)
@click.option(
    "--parameters",
    type=Value("number", _positive),
    help="How many it has, where its files do not tell.",
)
@click.option("--gpus", type=Value("number", _positive), help="GPUs of one server.  [default: CPU]")
def command(
    model: str, name: str | None, window: int | None, parameters: int | None, gpus: int | None
) -> None:
    """Print the configuration's entry of MODEL, ready to paste.

    MODEL is a hub id (org/name), a folder of Hugging Face files, or a GGUF file. Above the entry
    stands what was read, the memory that it needs, and what could not be found out. Nothing but
    settings and tokenizer files is fetched.
    """
    facts = read_model(model)
    if parameters is not None:
        facts = replace(facts, num_parameters=parameters)
    if facts.num_parameters is None:
        raise ConfigError(f"{'; '.join(facts.notes)}; give their number as --parameters")
    window = window or facts.shape.window_tokens
    if window is None:
        raise ConfigError(f"{model} does not tell its context window; give it as --window TOKENS")
    name = entry_name(name or facts.name)
    entry = backbone_entry(facts, window, gpus or 0)
    click.echo(printed(name, entry, remarks(name, facts, entry)), nl=False)


if __name__ == "__main__":
    run(command)
