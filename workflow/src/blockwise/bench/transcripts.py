"""What a compaction keeps of a coding agent's session, and what it finds in the cache.

    python -m blockwise.bench.transcripts --base-url URL --model M [--tokenizer FOLDER] > table.md

Plays the sessions in workflow/transcripts, written by hand for this, through every layout on a
server that runs. Before each compaction the agent's own last turn is sent with its tools, as an
agent would have; the workers then find its prefix, or do not. Rows without tools show what that
costs. Every answer counts, whatever the library would refuse: the faults are a column.
"""

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from blockwise.compaction.chat import ChatCompactor
from blockwise.compaction.conversation import plain_messages, read_history
from blockwise.compaction.conversation_document import Conversation, read_conversation
from blockwise.compaction.messages import CompactedMessages
from blockwise.config.arms import SEQUENTIAL, known_layouts
from blockwise.config.choices import SummaryFault
from blockwise.errors import run_command
from blockwise.serving.api_key import NO_KEY

TRANSCRIPTS = Path(__file__).parents[3] / "transcripts"
WITHOUT_TOOLS = ("suffix_target", "target_block")
COLUMNS = (
    "session",
    "layout",
    "tools",
    "blocks",
    "tokens before",
    "after",
    "identifiers kept",
    "cached of prompts",
    "faults",
)


@dataclass(frozen=True)
class Arm:
    """One way to compact a session."""

    layout: str
    has_tools: bool


def arms() -> list[Arm]:
    """Every layout with the agent's tools, and those of the cache without."""
    with_tools = [Arm(layout, has_tools=True) for layout in (SEQUENTIAL, *known_layouts())]
    return [*with_tools, *(Arm(layout, has_tools=False) for layout in WITHOUT_TOOLS)]


def numbered(conversation: Conversation, number: int) -> Conversation:
    """The same session with a number before its first words."""
    first, *others = conversation.messages
    named = {**first, "content": f"Session {number:03}. {first['content']}"}
    return Conversation(conversation.with_messages([named, *others]))


async def play(
    client: openai.AsyncOpenAI, model: str, conversation: Conversation, arm: Arm, **settings: Any
) -> CompactedMessages:
    """Send the agent's last turn, then compact."""
    shown = read_history(plain_messages(conversation.messages)).messages()
    last_turn: dict[str, Any] = {
        "model": model,
        "messages": shown,
        "tools": conversation.tools,
        "tool_choice": "none",
        "max_tokens": 1,
        "temperature": 0.0,
    }
    await client.chat.completions.create(**last_turn)  # fills the cache as the agent's did
    accepted = [fault.value for fault in SummaryFault]
    async with ChatCompactor(
        client, model, layout=arm.layout, accept=accepted, **settings
    ) as compactor:
        return await compactor.compact(
            conversation.messages, tools=conversation.tools if arm.has_tools else ()
        )


def row(session: str, arm: Arm, done: CompactedMessages) -> list[str]:
    """One row of the table."""
    record = done.record
    faults = sorted(worker.fault.value for worker in record.workers if worker.fault)
    cached = record.cached_tokens
    share = f"{cached / record.prompt_tokens:.0%}" if cached is not None and record.workers else "-"
    return [
        session,
        f"`{arm.layout}`",
        "yes" if arm.has_tools else "no",
        str(record.num_blocks),
        str(record.history_before_tokens),
        f"{record.history_after_tokens} ({record.outcome})",
        f"{record.num_identifiers_kept} of {record.num_identifiers}",
        share,
        ", ".join(faults) or "none",
    ]


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """The table."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


async def run(arguments: argparse.Namespace) -> list[list[str]]:
    """All rows, each session through each arm."""
    rows: list[list[str]] = []
    client = openai.AsyncOpenAI(base_url=arguments.base_url, api_key=NO_KEY)
    async with client:
        for file in sorted(arguments.transcripts.glob("*.json")):
            for arm in arms():
                conversation = numbered(read_conversation(file.read_bytes()), len(rows))
                done = await play(
                    client,
                    arguments.model,
                    conversation,
                    arm,
                    block_size=arguments.block_size,
                    max_tokens=arguments.max_tokens,
                    tokenizer=arguments.tokenizer,
                )
                rows.append(row(file.stem, arm, done))
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m blockwise.bench.transcripts", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--base-url", required=True, help="up to and including /v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokenizer", metavar="FOLDER")
    parser.add_argument("--transcripts", type=Path, default=TRANSCRIPTS, metavar="FOLDER")
    parser.add_argument("--block-size", type=int, default=1024, metavar="TOKENS")
    parser.add_argument("--max-tokens", type=int, default=256, metavar="TOKENS")
    print(as_markdown(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    run_command(main)
