"""The compactor's command line: a conversation in, a shorter one out, against any server.

    blockwise compact --base-url URL --model M --layout L --block-size B < in > out

Reads OpenAI chat messages (a list, or an object with a list `messages` and perhaps the agent's
`tools`) and writes them in the same form with everything but the verbatim part replaced by
summaries. One line of JSON on standard error records volumes and times. Whatever is wrong ends with
exit status 2, one line on standard error and nothing on standard output; the input is only ever
read.
"""

import asyncio
import json
import logging
import math
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
from huggingface_hub.utils.tqdm import disable_progress_bars

from blockwise.command_line import Value, run
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
from blockwise.errors import BlockwiseError, CompactionError, ConfigError
from blockwise.serving.api_key import NO_KEY, read_key


async def compacted(arguments: SimpleNamespace, conversation: Conversation) -> CompactedMessages:
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


def _positive(text: str) -> int:
    return _whole_number(text, 1)


def _count(text: str) -> int:
    return _whole_number(text, 0)


def _whole_number(text: str, limit: int) -> int:
    if not text.removeprefix("-").isdecimal() or int(text) < limit:
        raise ValueError(f"{text!r} is no whole number of at least {limit}")
    return int(text)


def _temperature(text: str) -> float:
    value = _number(text)
    if not 0 <= value < math.inf:
        raise ValueError(f"{text!r} is no number of at least 0")
    return value


def _seconds(text: str) -> float:
    value = _number(text)
    if not 0 < value < math.inf:
        raise ValueError(f"{text!r} is no number above 0")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError(f"{text!r} is no URL; it starts with http:// or https://")
    return endpoint(text).rstrip("/")


TOKENS, COUNT = Value("tokens", _positive), Value("number", _count)
REQUEST = RequestDefaults()

SERVER_OPTIONS = (
    click.option("--base-url", type=Value("url", _url), required=True,
                 help="Up to and including /v1."),
    click.option("--model", required=True, help="Name that the server gives it."),
    click.option("--tokenizer", metavar="MODEL",
                 help="Folder or hub id.  [default: a folder that the server names, else count "
                 "by length]"),
    click.option("--tokenizer-revision", metavar="COMMIT", help="Of a hub id."),
    click.option("--window", type=TOKENS,
                 help="Context window of the model.  [default: what the server says]"),
    click.option("--api-key-env", type=Value("name", name_of_a_variable),
                 help="Environment variable that holds the key."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of sampling."),
    click.option("--temperature", type=Value("number", _temperature), show_default=True,
                 default=REQUEST.temperature, help="Of sampling."),
    click.option("--timeout", type=Value("seconds", _seconds), show_default=True,
                 default=REQUEST.timeout_s, help="Limit of one worker."),
)  # fmt: skip


def _choice(values: type[StrEnum]) -> click.Choice[str]:
    return click.Choice([value.value for value in values])


COMPACTION_OPTIONS = (
    click.option("--layout", type=click.Choice([SEQUENTIAL, *known_layouts()]), required=True,
                 help="How a worker is shown its history block; sequential: one worker over "
                 "everything."),
    click.option("--block-size", type=TOKENS,
                 help=f"Size B of a history block; {SEQUENTIAL} has one, whatever B."),
    click.option("--boundary", type=_choice(Boundary), default=Boundary.TURN.value,
                 show_default=True, help="Where history blocks may be cut."),
    click.option("--open-block", type=_choice(OpenBlock), default=OpenBlock.COMPACT.value,
                 show_default=True, help="The last history block, which is still open."),
    click.option("--keep-last", type=COUNT, default=0, metavar="TURNS",
                 help="Messages at the end that stay verbatim, at least; one that waits always "
                 "does."),
    click.option("--keep-last-tokens", type=COUNT, default=0, metavar="TOKENS",
                 help="The last messages that hold at most so many tokens stay too.  "
                 "[default: 0]"),
    click.option("--pin", type=COUNT, multiple=True,
                 help="Number of a message that stays, counted from 0; may be given several "
                 "times."),
    click.option("--tau", type=TOKENS,
                 help="Leave a history of at most so many tokens as it is.  "
                 "[default: compact any]"),
    click.option("--prompt", type=click.Path(path_type=Path), metavar="FILE.md",
                 help="What workers are told.  [default: the study's prompt `detailed`]"),
    click.option("--accept", type=_choice(SummaryFault), multiple=True,
                 help="Keep a summary with this fault instead of refusing it; may be given "
                 "several times."),
    click.option("--resummarize", is_flag=True,
                 help="Summarise an earlier summary with the rest.  [default: it is carried as "
                 "it is]"),
    click.option("--on-broken-tools", type=_choice(OnBrokenTools), show_default=True,
                 default=OnBrokenTools.REFUSE.value,
                 help="Tool results without calls, and calls without results."),
    click.option("--on-media", type=_choice(OnMedia), default=OnMedia.PLACEHOLDER.value,
                 show_default=True, help="Images and the like that are to be summarised."),
    click.option("--on-oversize", type=_choice(OnOversize), default=OnOversize.REFUSE.value,
                 show_default=True,
                 help="What the window does not hold: refuse it, or cut it into pieces."),
    click.option("--keep-identifiers", type=COUNT, default=0,
                 help="Add so many identifiers that summaries lost (paths, numbers, codes).  "
                 "[default: none]"),
    click.option("--max-concurrent-workers", type=Value("workers", _positive),
                 help="[default: all at once]"),
    click.option("--max-tokens", type=TOKENS,
                 help="Cap of each worker, thinking included.  [default: the block size, or what "
                 "the window leaves]"),
    click.option("--volume", type=TOKENS,
                 help="Exact total of all workers, instead of --max-tokens; the server must "
                 "honour vLLM's min_tokens and ignore_eos."),
)  # fmt: skip


def _with_options(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(SERVER_OPTIONS + COMPACTION_OPTIONS):
        function = option(function)
    return function


def _refuse_contradictions(arguments: SimpleNamespace) -> None:
    if arguments.max_tokens and arguments.volume:
        raise click.UsageError("--volume is not allowed with --max-tokens")
    if arguments.layout != SEQUENTIAL and arguments.block_size is None:
        raise click.UsageError(f"--layout {arguments.layout} needs --block-size")
    if not (arguments.block_size or arguments.max_tokens or arguments.volume):
        raise click.UsageError(f"--layout {SEQUENTIAL} needs --max-tokens or --volume")


def _compactor(arguments: SimpleNamespace) -> ChatCompactor:
    # Standard error is for the record alone; transformers also says there that torch is missing.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    for library in ("transformers", "huggingface_hub"):
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


def _pin(arguments: SimpleNamespace) -> Pin:
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


def compact(arguments: SimpleNamespace) -> None:
    """Compact standard input as the command line says, and write what comes of it.

    Raises:
        BlockwiseError: something is wrong; nothing was written.
    """
    conversation = read_conversation(sys.stdin.buffer.read())
    done = asyncio.run(compacted(arguments, conversation))
    document = conversation.with_messages(done.messages)
    text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()
    print(done.record.model_dump_json(), file=sys.stderr)


@click.command("compact")
@_with_options
def command(**options: Any) -> None:
    """Compact a conversation: OpenAI messages on standard input and output.

    One line of JSON on standard error records tokens and times of every worker.
    """
    arguments = SimpleNamespace(**options)
    _refuse_contradictions(arguments)
    try:
        compact(arguments)
    except BlockwiseError as error:  # standard error holds one line, whatever happens
        raise BlockwiseError(" ".join(str(error).split())) from error


if __name__ == "__main__":
    run(command)
