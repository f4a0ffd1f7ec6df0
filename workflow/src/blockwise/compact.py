"""The compactor's command line: a conversation in, a shorter one out, against any server.

    python -m blockwise.compact --base-url URL --model M --layout L --block-size B < in > out

Reads OpenAI chat messages (a list, or an object with a list `messages` and perhaps the agent's
`tools`) and writes them in the same form with everything but the verbatim part replaced by
summaries. One line of JSON on standard error records volumes and times. Whatever is wrong ends with
exit status 2, one line on standard error and nothing on standard output; the input is only ever
read.
"""

import argparse
import asyncio
import json
import logging
import math
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from huggingface_hub.utils.tqdm import disable_progress_bars

from blockwise.compaction.compactor import CompactionRule
from blockwise.compaction.conversation import OnBrokenTools, OnMedia, read_history
from blockwise.compaction.conversation_document import Conversation, read_conversation
from blockwise.compaction.messages import CompactedMessages, compact_messages
from blockwise.config.arms import SEQUENTIAL, known_layouts
from blockwise.config.backbones import (
    Architecture,
    Backbone,
    ExternalEngine,
    PathModel,
    RequestDefaults,
)
from blockwise.config.experiments import Boundary, SummaryFault, VolumeMode
from blockwise.config.keys import endpoint, name_of_a_variable
from blockwise.config.prompts import load_prompt, prompt_path
from blockwise.errors import BlockwiseError, ConfigError, ServerError, run_command
from blockwise.models.renderer import Renderer
from blockwise.serving.api_key import NO_KEY, read_key
from blockwise.serving.client import EngineClient
from blockwise.serving.http_json import HttpError
from blockwise.serving.running_server import Server
from blockwise.serving.served_models import served_models

DEFAULT_PROMPT = prompt_path(Path(__file__).parents[3] / "config" / "prompts", "detailed")


class _Parser(argparse.ArgumentParser):
    """A parser whose refusals are ours: one line, exit status 2."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see python -m blockwise.compact --help")


def find_server(base_url: str, model: str, api_key: str) -> tuple[Server, int | None]:
    """A server that answers and serves the model, and the window where it tells.

    Raises:
        ServerError: it cannot be reached, or does not serve the model.
    """
    try:
        served = served_models(base_url, api_key)
    except HttpError as problem:
        raise ServerError(
            f"no server to use: {problem}. Check that it runs, --base-url (it ends in /v1) and "
            "--api-key-env"
        ) from problem
    if served and model not in served:
        raise ServerError(
            f"{base_url} does not serve {model!r}; it serves {', '.join(served)}. "
            "Give one of these as --model"
        )
    server = Server(base_url, model, uuid.uuid4().hex, 0.0, None, api_key)
    return server, served[model].max_model_len if served else None


async def run(arguments: argparse.Namespace, conversation: Conversation) -> CompactedMessages:
    """Compact one conversation as the command line says.

    Raises:
        BlockwiseError: the server, the tokenizer or the compaction failed.
    """
    rule = _rule(arguments)
    if arguments.on_broken_tools == OnBrokenTools.REFUSE:
        read_history(conversation.messages)
    server, served_window = find_server(
        arguments.base_url, arguments.model, _api_key(arguments.api_key_env)
    )
    window_tokens = arguments.window or served_window
    if window_tokens is None:
        raise ConfigError(
            f"{arguments.base_url} does not tell the context window of {arguments.model}; give it "
            "as --window TOKENS"
        )
    backbone = _backbone(arguments, window_tokens)
    renderer = _renderer(arguments)
    async with EngineClient(server, backbone, renderer, exact_prompts=False) as engine:
        return await compact_messages(
            engine,
            renderer,
            conversation.messages,
            rule,
            tau_tokens=arguments.tau,
            seed=arguments.seed,
            tools=conversation.tools,
            on_media=OnMedia(arguments.on_media),
            on_broken_tools=OnBrokenTools(arguments.on_broken_tools),
        )


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; None takes the process's own.

    Raises:
        ConfigError: it is refused.
    """
    parser = _Parser(
        prog="python -m blockwise.compact",
        description="Compact a conversation: OpenAI messages on standard input and output.",
        allow_abbrev=False,
    )
    _add_server_options(parser)
    _add_compaction_options(parser)
    arguments = parser.parse_args(words)
    if arguments.layout != SEQUENTIAL and arguments.block_size is None:
        parser.error(f"--layout {arguments.layout} needs --block-size")
    if not (arguments.block_size or arguments.max_tokens or arguments.volume):
        parser.error(f"--layout {SEQUENTIAL} needs --max-tokens or --volume")
    return arguments


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    defaults = RequestDefaults()
    add = parser.add_argument_group("server").add_argument
    add("--base-url", type=_url, required=True, help="up to and including /v1")
    add("--model", required=True, help="name that the server gives it")
    add("--tokenizer", metavar="MODEL", help="folder or hub id (default: the model's name)")
    add("--tokenizer-revision", metavar="COMMIT", help="of a hub id")
    text = "context window of the model (default: what the server says)"
    add("--window", type=_positive, metavar="TOKENS", help=text)
    add(
        "--api-key-env",
        type=_variable,
        metavar="NAME",
        help="environment variable that holds the key",
    )
    add("--seed", type=int, default=0, help="of sampling (default: 0)")
    text = "of sampling (default: %(default)g)"
    add("--temperature", type=_temperature, default=defaults.temperature, help=text)
    text = "limit of one worker (default: %(default)g)"
    add("--timeout", type=_seconds, default=defaults.timeout_s, metavar="SECONDS", help=text)


def _add_compaction_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("compaction")
    add = group.add_argument
    text = "how a worker is shown its history block; sequential: one worker over everything"
    add("--layout", choices=[SEQUENTIAL, *known_layouts()], required=True, help=text)
    text = f"size B of a history block; {SEQUENTIAL} has one, whatever B"
    add("--block-size", type=_positive, metavar="TOKENS", help=text)
    boundaries = [boundary.value for boundary in Boundary]
    text = "where history blocks may be cut (default: %(default)s)"
    add("--boundary", choices=boundaries, default=Boundary.TURN.value, help=text)
    text = "messages at the end that stay verbatim, at least; one that waits always does"
    add("--keep-last", type=_count, default=0, metavar="TURNS", help=text)
    text = "leave a history of at most so many tokens as it is (default: compact any)"
    add("--tau", type=_positive, metavar="TOKENS", help=text)
    text = "what workers are told (default: config/prompts/detailed.md of the repository)"
    add("--prompt", type=Path, default=DEFAULT_PROMPT, metavar="FILE.md", help=text)
    faults = [fault.value for fault in SummaryFault]
    text = "keep a summary with this fault instead of refusing it; may be given several times"
    add("--accept", choices=faults, action="append", default=[], help=text)
    text = "summarise an earlier summary with the rest (default: it is carried as it is)"
    add("--resummarize", action="store_true", help=text)
    text = "tool results without calls, and calls without results (default: %(default)s)"
    ways = [way.value for way in OnBrokenTools]
    add("--on-broken-tools", choices=ways, default=OnBrokenTools.REFUSE.value, help=text)
    text = "images and the like that are to be summarised (default: %(default)s)"
    ways = [way.value for way in OnMedia]
    add("--on-media", choices=ways, default=OnMedia.PLACEHOLDER.value, help=text)
    text = "add so many identifiers that summaries lost (paths, numbers, codes; default: none)"
    add("--keep-identifiers", type=_count, default=0, metavar="NUMBER", help=text)
    text = "default: all at once"
    add("--max-concurrent-workers", type=_positive, metavar="WORKERS", help=text)
    volume = group.add_mutually_exclusive_group()
    text = "cap of each worker, thinking included (default: the block size)"
    volume.add_argument("--max-tokens", type=_positive, metavar="TOKENS", help=text)
    text = "exact total of all workers; the server must honour vLLM's min_tokens and ignore_eos"
    volume.add_argument("--volume", type=_positive, metavar="TOKENS", help=text)


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} is no URL; it starts with http:// or https://")
    return _checked(endpoint, text).rstrip("/")


def _variable(text: str) -> str:
    return _checked(name_of_a_variable, text)


def _checked(check: Callable[[str], str], text: str) -> str:
    """What a configuration would refuse is refused here in the same words."""
    try:
        return check(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _count(text: str) -> int:
    return _whole_number(text, 0)


def _positive(text: str) -> int:
    return _whole_number(text, 1)


def _whole_number(text: str, limit: int) -> int:
    if not text.removeprefix("-").isdecimal() or int(text) < limit:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {limit}")
    return int(text)


def _temperature(text: str) -> float:
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 0")
    return value


def _seconds(text: str) -> float:
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _rule(arguments: argparse.Namespace) -> CompactionRule:
    is_sequential = arguments.layout == SEQUENTIAL
    forced_tokens = arguments.volume
    return CompactionRule(
        layout=arguments.layout,
        block_size_tokens=None if is_sequential else arguments.block_size,
        boundary=Boundary(arguments.boundary),
        prompt=_prompt(arguments.prompt),
        volume_mode=VolumeMode.FORCED if forced_tokens else VolumeMode.NATURAL,
        volume_tokens=forced_tokens or arguments.max_tokens or arguments.block_size,
        last_turns=arguments.keep_last,
        max_concurrent_workers=arguments.max_concurrent_workers,
        accept=frozenset(map(SummaryFault, arguments.accept)),
        carries_summaries=not arguments.resummarize,
        keep_identifiers=arguments.keep_identifiers,
    )


def _prompt(path: Path) -> str:
    if prompt_path(path.parent, path.stem) != path:
        raise ConfigError(f"--prompt {path} is not named *.md; rename it")
    if path == DEFAULT_PROMPT and not path.is_file():
        raise ConfigError(
            f"the default prompt {path} is not there: blockwise runs outside its repository; name "
            "a file with --prompt"
        )
    return load_prompt(path.parent, path.stem).text


def _api_key(variable: str | None) -> str:
    if variable is None:
        return NO_KEY
    return read_key(variable, "--api-key-env", "the server")


def _backbone(arguments: argparse.Namespace, window_tokens: int) -> Backbone:
    """The served model as a client sees it.

    Architecture, reasoning and size only label tables; no request depends on them.
    """
    name = arguments.tokenizer or arguments.model
    return Backbone(
        model=PathModel(source="path", path=name),
        architecture=Architecture.DENSE,
        reasoning=False,
        num_parameters=1.0,
        context_window_tokens=window_tokens,
        engine=ExternalEngine(
            kind="external",
            url=arguments.base_url,
            served_model=arguments.model,
            version="unknown",
        ),
        request=RequestDefaults(temperature=arguments.temperature, timeout_s=arguments.timeout),
    )


def _renderer(arguments: argparse.Namespace) -> Renderer:
    for library in ("transformers", "huggingface_hub"):  # standard error is for the record alone
        logging.getLogger(library).setLevel(logging.ERROR)
    disable_progress_bars()
    name = arguments.tokenizer or arguments.model
    try:
        return Renderer(name, revision=arguments.tokenizer_revision)
    except ConfigError as error:
        raise ConfigError(f"--tokenizer: {error}") from error


def compact() -> None:
    """Do what the command line asks, and write what comes of it.

    Raises:
        BlockwiseError: something is wrong; nothing was written.
    """
    arguments = parse_arguments()
    conversation = read_conversation(sys.stdin.buffer.read())
    compacted = asyncio.run(run(arguments, conversation))
    document = conversation.with_messages(compacted.messages)
    text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()
    print(compacted.record.model_dump_json(), file=sys.stderr)


def main() -> None:
    """Command line; an error is put into one line."""
    try:
        compact()
    except BlockwiseError as error:
        raise BlockwiseError(" ".join(str(error).split())) from error


if __name__ == "__main__":
    run_command(main)
