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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from huggingface_hub.utils.tqdm import disable_progress_bars

from blockwise.compaction.chat import ChatCompactor, default_prompt
from blockwise.compaction.conversation import (
    OnBrokenTools,
    OnMedia,
    Pin,
    pins_system_messages,
    read_history,
)
from blockwise.compaction.conversation_document import Conversation, read_conversation
from blockwise.compaction.messages import CompactedMessages, OnOversize
from blockwise.compaction.messages_record import Outcome
from blockwise.config.arms import SEQUENTIAL, known_layouts
from blockwise.config.backbones import RequestDefaults
from blockwise.config.choices import Boundary, OpenBlock, SummaryFault
from blockwise.config.keys import endpoint, name_of_a_variable
from blockwise.config.prompts import load_prompt, prompt_path
from blockwise.errors import BlockwiseError, CompactionError, ConfigError, run_command
from blockwise.serving.api_key import NO_KEY, read_key


class _Parser(argparse.ArgumentParser):
    """A parser whose refusals are ours: one line, exit status 2."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see python -m blockwise.compact --help")


async def run(arguments: argparse.Namespace, conversation: Conversation) -> CompactedMessages:
    """Compact one conversation as the command line says.

    Raises:
        BlockwiseError: the server, the tokenizer or the compaction failed.
    """
    compactor = _compactor(arguments)
    if arguments.on_broken_tools == OnBrokenTools.REFUSE:
        read_history(conversation.messages)
    async with compactor:
        done = await compactor.compact(
            conversation.messages,
            tools=conversation.tools,
            tau=arguments.tau,
            keep=arguments.keep_last,
            keep_tokens=arguments.keep_last_tokens,
            pin=_pin(arguments),
        )
    if done.status is Outcome.FAILED:
        raise CompactionError(done.reason)
    return done


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
    text = "folder or hub id (default: a folder that the server names, else count by length)"
    add("--tokenizer", metavar="MODEL", help=text)
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
    ways = [way.value for way in OpenBlock]
    text = "the last history block, which is still open (default: %(default)s)"
    add("--open-block", choices=ways, default=OpenBlock.COMPACT.value, help=text)
    text = "messages at the end that stay verbatim, at least; one that waits always does"
    add("--keep-last", type=_count, default=0, metavar="TURNS", help=text)
    text = "the last messages that hold at most so many tokens stay too (default: 0)"
    add("--keep-last-tokens", type=_count, default=0, metavar="TOKENS", help=text)
    text = "number of a message that stays, counted from 0; may be given several times"
    add("--pin", type=_count, action="append", default=[], metavar="NUMBER", help=text)
    text = "leave a history of at most so many tokens as it is (default: compact any)"
    add("--tau", type=_positive, metavar="TOKENS", help=text)
    text = "what workers are told (default: config/prompts/detailed.md of the repository)"
    add("--prompt", type=Path, metavar="FILE.md", help=text)
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
    text = "what the window does not hold: refuse it, or cut it into pieces (default: %(default)s)"
    ways = [way.value for way in OnOversize]
    add("--on-oversize", choices=ways, default=OnOversize.REFUSE.value, help=text)
    text = "add so many identifiers that summaries lost (paths, numbers, codes; default: none)"
    add("--keep-identifiers", type=_count, default=0, metavar="NUMBER", help=text)
    text = "default: all at once"
    add("--max-concurrent-workers", type=_positive, metavar="WORKERS", help=text)
    volume = group.add_mutually_exclusive_group()
    text = (
        "cap of each worker, thinking included (default: the block size, or what the window leaves)"
    )
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


def _compactor(arguments: argparse.Namespace) -> ChatCompactor:
    for library in ("transformers", "huggingface_hub"):  # standard error is for the record alone
        logging.getLogger(library).setLevel(logging.ERROR)
    disable_progress_bars()
    return ChatCompactor(
        arguments.base_url,
        arguments.model,
        layout=arguments.layout,
        block_size=arguments.block_size,
        boundary=arguments.boundary,
        open_block=arguments.open_block,
        prompt=_prompt(arguments.prompt),
        max_tokens=arguments.max_tokens,
        volume=arguments.volume,
        accept=arguments.accept,
        resummarize=arguments.resummarize,
        keep_identifiers=arguments.keep_identifiers,
        on_media=arguments.on_media,
        on_broken_tools=arguments.on_broken_tools,
        on_oversize=arguments.on_oversize,
        max_concurrent_workers=arguments.max_concurrent_workers,
        tokenizer=arguments.tokenizer,
        tokenizer_revision=arguments.tokenizer_revision,
        window=arguments.window,
        api_key=_api_key(arguments.api_key_env),
        temperature=arguments.temperature,
        timeout=arguments.timeout,
        seed=arguments.seed,
    )


def _pin(arguments: argparse.Namespace) -> Pin:
    """System messages, and the messages that the command line names."""
    return lambda place, message: place in arguments.pin or pins_system_messages(place, message)


def _prompt(path: Path | None) -> str:
    if path is None:
        return default_prompt()
    if prompt_path(path.parent, path.stem) != path:
        raise ConfigError(f"--prompt {path} is not named *.md; rename it")
    return load_prompt(path.parent, path.stem).text


def _api_key(variable: str | None) -> str:
    if variable is None:
        return NO_KEY
    return read_key(variable, "--api-key-env", "the server")


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
