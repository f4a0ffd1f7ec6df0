"""The contract's most important lines on real vLLM, with published models where they lie here."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from blockwise.compaction.chat import ChatCompactor
from blockwise.compaction.compactor import WRAPPER_HEADING
from blockwise.compaction.messages_record import Outcome
from blockwise.config.backbones import GgufModel, VllmEngine
from blockwise.errors import CompactionError
from blockwise.models.model_files import MODELS_VARIABLE
from blockwise.models.prepare import prepare_model
from blockwise.models.renderer import CountedBy, Renderer
from blockwise.serving.client import ChatRequest, EngineClient
from blockwise.serving.devices import LOCK_FOLDER_VARIABLE
from blockwise.serving.server import managed_server
from serving_fixtures import tiny_backbone

SMOLLM2 = GgufModel(
    source="gguf",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
QWEN = GgufModel(
    source="gguf",
    file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
)
WINDOW_TOKENS = 4096
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Use it to {name.replace('_', ' ')} of the project. " * 4,
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
        },
    }
    for name in ("read_file", "run_tests", "list_files")
]
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module", params=[SMOLLM2, QWEN], ids=["smollm2-135m", "qwen2.5-coder-0.5b"])
def served(request, tmp_path_factory):
    """A server of the model, and its renderer."""
    model = request.param
    if not (Path(os.environ.get(MODELS_VARIABLE) or "absent") / model.file).is_file():
        pytest.skip(f"needs {model.file} in the folder that {MODELS_VARIABLE} names")
    folder = tmp_path_factory.mktemp("published")
    engine = VllmEngine(
        kind="vllm",
        arguments={"enforce-eager": True},
        environment={"VLLM_CPU_KVCACHE_SPACE": "1"},
        startup_timeout_s=600,
    )
    backbone = tiny_backbone(model=model, context_window_tokens=WINDOW_TOKENS, engine=engine)
    prepared = prepare_model("published", backbone, folder / "published")
    renderer = Renderer(prepared.tokenizer_path)
    running = managed_server("published", backbone, prepared, folder / "server.log", print)
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(LOCK_FOLDER_VARIABLE, str(folder))
            server = stack.enter_context(running)
        yield server, backbone, renderer


def chat(num_exchanges=3):
    texts = [
        "The build of the parser fails with E0425 in src/parser/lexer.rs, line 212.",
        "I read src/parser/lexer.rs: the name `token_kind` is gone since commit 9f8e7d6c.",
        "Bring it back, and keep the port of the server at 8080.",
        "I restored it in commit 41ab77e2 and all 318 tests pass; the port is still 8080.",
        "Then write release notes for version 2.13.0 in docs/notes.md.",
        "docs/notes.md names the lost name, both commits and the fix.",
    ]
    system = {"role": "system", "content": "You are a careful engineer of a small team."}
    turns = [
        {"role": role, "content": texts[(2 * number + place) % len(texts)] + f" (step {number})"}
        for number in range(num_exchanges)
        for place, role in enumerate(("user", "assistant"))
    ]
    return [system, *turns]


def compact(served, messages, *, calls=({},), **arguments):
    """The results of some calls; the summaries are of a fixed length unless a test says else."""
    server, _, renderer = served
    values = {"block_size": 150, "tokenizer": renderer._tokenizer.name_or_path}
    if not {"max_tokens", "volume"} & arguments.keys():
        values["volume"] = 24

    async def ask():
        async with ChatCompactor(
            server.base_url, server.served_model, **{**values, **arguments}
        ) as compactor:
            return [await compactor.compact(messages, **call) for call in calls]

    return asyncio.run(ask())


def test_a1_a_summary_that_its_budget_cuts_is_refused_or_accepted_by_name(served):
    (refused,) = compact(served, chat(6), max_tokens=5)
    assert refused.status is Outcome.FAILED
    assert "its budget of tokens ended it" in refused.reason
    assert refused.messages == chat(6)
    (accepted,) = compact(served, chat(6), max_tokens=5, accept=["length", "echo"])
    assert accepted.status is Outcome.COMPACTED
    assert accepted.record.num_length_finishes >= 1


def test_a4_what_is_not_shorter_is_not_taken(served):
    (done,) = compact(served, chat(1), layout="sequential", volume=300)
    assert done.status is Outcome.CANNOT_SHRINK
    assert done.messages == chat(1)


def test_a5_what_cannot_get_below_tau_is_not_paid_for(served):
    (done,) = compact(served, chat(6), calls=[{"tau": 60, "keep": 4}])
    assert done.status is Outcome.CANNOT_SHRINK
    assert done.record.prompt_tokens == 0


def test_a6_identifiers_survive_where_they_are_asked_to(served):
    (done,) = compact(served, chat(6), keep_identifiers=20)
    assert done.record.num_identifiers >= 6
    assert done.record.num_identifiers_kept == done.record.num_identifiers
    assert "9f8e7d6c" in str(done.messages)


def test_b1_b2_b3_what_must_stay_stays(served):
    waits = {"role": "user", "content": "STOP: only touch docs/"}
    pinned = {"role": "user", "content": "Never push to main."}
    messages = [*chat(4), pinned, *chat(2)[1:], waits]
    (done,) = compact(served, messages, calls=[{"pin": lambda _, one: one == pinned}])
    assert done.status is Outcome.COMPACTED
    assert done.messages[0] == messages[0]
    assert done.messages[2:] == [pinned, waits]


def test_b4_what_was_appended_meanwhile_stays(served):
    (done,) = compact(served, chat(6))
    new = {"role": "user", "content": "And now?"}
    assert done.apply([*chat(6), new]) == [*done.messages, new]
    with pytest.raises(CompactionError, match="its result does not fit"):
        done.apply(chat(6)[:-1])


def test_b5_an_earlier_summary_is_carried(served):
    (first,) = compact(served, chat(6))
    (second,) = compact(served, [*first.messages, *chat(6)[1:]])
    earlier = first.messages[1]["content"].splitlines()[2]
    assert earlier in second.messages[1]["content"]
    assert second.messages[1]["content"].count(WRAPPER_HEADING) == 1


def test_c1_workers_with_tools_find_what_the_agents_next_turn_finds(served):
    server, backbone, renderer = served
    messages = chat(12)
    offering = renderer.with_tools(TOOLS)

    async def turn(shown):
        async with EngineClient(server, backbone, renderer) as plain:
            engine = plain.with_tools(TOOLS, offering)
            return await engine.complete(ChatRequest(shown, max_tokens=1))

    asyncio.run(turn(messages))  # the agent's last turn fills the cache
    (done,) = compact(served, messages, block_size=300, calls=[{"tools": TOOLS}])
    follows = asyncio.run(turn([*messages, {"role": "user", "content": "And now?"}]))
    last = done.record.workers[-1]
    assert last.rendered_prompt_tokens == last.prompt_tokens
    assert follows.cached_tokens - last.cached_tokens <= 128  # one block of the CPU's cache
    assert last.cached_tokens > 0.8 * offering.count(messages, False) - 128


def test_c4_twenty_workers_at_once(served):
    (done,) = compact(served, chat(30), block_size=60, volume=40 * 8)
    assert done.status is Outcome.COMPACTED
    assert done.record.num_blocks >= 20


def test_c5_what_the_window_does_not_hold_is_cut_into_pieces(served):
    messages = [*chat(3), {"role": "user", "content": " ".join(f"row {n};" for n in range(1800))}]
    messages.append({"role": "assistant", "content": "I have read the rows."})
    (done,) = compact(
        served, messages, layout="independent", block_size=3000, on_oversize="split", volume=60
    )
    assert done.status is Outcome.COMPACTED
    assert done.record.is_split
    assert done.record.num_blocks >= 2


def test_c6_the_server_counts_what_a_tokenizer_would(served):
    (exact,) = compact(served, chat(6))
    folder = Path(served[2]._tokenizer.name_or_path)
    away = folder.rename(f"{folder}.away")  # the server names this folder, and it would be used
    try:
        (counted,) = compact(served, chat(6), tokenizer=None)
    finally:
        away.rename(folder)
    assert counted.record.counted_by is CountedBy.SERVER
    assert counted.tokens_before == exact.tokens_before
    assert counted.status is Outcome.COMPACTED


def test_d1_d2_d3_odd_messages_are_shown_and_recorded(served):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [
        *chat(5),
        {"role": "user", "content": [{"type": "text", "text": "Look:"}, image]},
        {"role": "assistant", "content": None, "refusal": "I cannot see it."},
        {"role": "tool", "tool_call_id": "gone", "content": "a result that lost its call"},
        {"role": "assistant", "content": "Well."},
    ]
    (done,) = compact(served, messages, on_broken_tools="repair")
    assert done.status is Outcome.COMPACTED
    assert (done.record.num_placeholders, len(done.record.repairs)) == (1, 1)
