"""The transcripts are whole sessions, and every arm of every session has its row."""

import argparse
import asyncio

import pytest

from blockwise.bench.transcripts import COLUMNS, TRANSCRIPTS, arms, as_markdown, run
from blockwise.compaction.conversation import read_history, unread_parts
from blockwise.compaction.conversation_document import read_conversation
from blockwise.compaction.identifiers import identifiers
from compaction.summariser import serving

SESSIONS = sorted(TRANSCRIPTS.glob("*.json"))


@pytest.mark.parametrize("file", SESSIONS, ids=lambda file: file.stem)
def test_a_transcript_is_an_agents_session(file):
    conversation = read_conversation(file.read_bytes())
    history = read_history(conversation.messages)
    assert len(conversation.tools) == 5
    assert len(history.group_starts()) > 10
    assert any(len(one.get("tool_calls") or ()) > 1 for one in conversation.messages)
    assert any("exit 1" in turn.text or "exit 2" in turn.text for turn in history.turns)
    assert len(identifiers("\n".join(turn.text for turn in history.turns))) > 40


def test_one_of_them_holds_images():
    conversations = [read_conversation(file.read_bytes()).messages for file in SESSIONS]
    assert any(unread_parts(one) for messages in conversations for one in messages)


def test_every_arm_of_every_session_has_its_row(tiny_renderer, tiny_model):
    with serving(tiny_renderer, max_model_len=32_768) as stub:
        arguments = argparse.Namespace(
            base_url=stub.base_url,
            model="m",
            tokenizer=tiny_model.tokenizer_path,
            transcripts=TRANSCRIPTS,
            block_size=1024,
            max_tokens=64,
        )
        rows = asyncio.run(run(arguments))
    assert len(rows) == len(SESSIONS) * len(arms())
    assert all(len(row) == len(COLUMNS) for row in rows)
    assert {row[5].split()[-1] for row in rows} == {"(compacted)"}
    assert {"tools" in body for body in stub.requests} == {True, False}
    assert as_markdown(rows).count("\n") == len(rows) + 1
