"""The client and the probe against a real vLLM server."""

import asyncio
import time

import pytest

from blockwise.config.backbones import RequestForm
from blockwise.errors import EngineError
from blockwise.serving.client import ChatRequest, EngineClient
from blockwise.serving.http_json import get_json
from blockwise.serving.probe import probe

pytestmark = pytest.mark.engine

STORY = " ".join(f"In {year} Mira moved to town number {year % 7}." for year in range(1900, 1960))
KV_BLOCK_TOKENS = 128


def with_engine(running, work, **request):
    """Run `work(engine)` in an event loop of its own."""
    defaults = running.backbone.request.model_copy(update=request)
    backbone = running.backbone.model_copy(update={"request": defaults})

    async def run():
        async with EngineClient(running.server, backbone, running.renderer) as engine:
            return await work(engine)

    return asyncio.run(run())


def story(question: str, **options) -> ChatRequest:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": STORY},
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "content": question},
    ]
    return ChatRequest(messages, **{"max_tokens": 16, "min_tokens": 16, **options})


def test_the_server_is_ours_and_logs(engine_server, server_log_path):
    served = get_json(f"{engine_server.server.base_url}/models", "")["data"]
    assert engine_server.server.start_id in {entry["id"] for entry in served}
    assert "--served-model-name" in server_log_path.read_text().splitlines()[0]


def test_forced_lengths_and_accounting_in_both_request_forms(engine_server):
    texts = set()
    for form in RequestForm:

        async def work(engine):
            return await asyncio.gather(
                *(
                    engine.complete(story("Where?", max_tokens=n, min_tokens=n))
                    for n in (3, 40, 130)
                )
            )

        answers = with_engine(engine_server, work, form=form)
        assert [answer.completion_tokens for answer in answers] == [3, 40, 130]
        assert {answer.finish_reason for answer in answers} == {"length"}
        assert len({answer.prompt_tokens for answer in answers}) == 1
        texts.add(answers[1].text)
    assert len(texts) == 1, "both forms must reach the model as the same tokens"


def test_the_first_token_is_timed_by_the_engine(engine_server):
    async def work(engine):
        return await engine.complete(story("When?", max_tokens=256, min_tokens=256))

    answer = with_engine(engine_server, work)
    assert answer.ttft_source == "engine"
    assert 0 < answer.ttft_s < 0.5 * answer.wall_s, "prefill of 900 tokens is no half of it"


def test_the_cache_hits_within_a_salt_only(engine_server):
    async def work(engine):
        before = await engine.metrics()
        first = await engine.complete(story("Why?", cache_salt="one"))
        again = await engine.complete(story("How?", cache_salt="one"))
        other = await engine.complete(story("How?", cache_salt="two"))
        return before, first, again, other, await engine.metrics()

    before, first, again, other, after = with_engine(engine_server, work)
    assert (first.cached_tokens, other.cached_tokens) == (0, 0)
    assert again.cached_tokens >= 4 * KV_BLOCK_TOKENS
    assert again.cached_tokens % KV_BLOCK_TOKENS == 0
    hits = after.prefix_cache_hits_tokens - before.prefix_cache_hits_tokens
    assert hits == again.cached_tokens
    assert after.num_preemptions == before.num_preemptions
    assert after.kv_block_tokens == KV_BLOCK_TOKENS


def test_a_sampled_answer_is_repeated_by_its_seed(engine_server):
    async def work(engine):
        return [await engine.complete(story("Who?", seed=seed)) for seed in (5, 5, 6)]

    first, again, other = with_engine(engine_server, work, temperature=1.0)
    assert first.text == again.text != other.text


def test_a_wrong_template_is_noticed(engine_server):
    class Longer(type(engine_server.renderer)):
        def count(self, messages, add_generation_prompt):
            return super().count(messages, add_generation_prompt) + 1

    renderer = Longer(engine_server.model.tokenizer_path)

    async def run():
        async with EngineClient(engine_server.server, engine_server.backbone, renderer) as engine:
            await engine.complete(story("Where?"))

    with pytest.raises(EngineError, match="its chat template or tokenizer is not ours"):
        asyncio.run(run())


def test_tool_calls_and_any_role_order_are_counted_as_the_server_does(engine_server):
    call = {"name": "find", "arguments": '{"b": [1, "ü"], "a": null}'}
    messages = [
        {"role": "user", "content": "Look it up.  \n"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "🙂 found <|eot|> it"},
        {"role": "user", "content": ""},
        {"role": "user", "content": "Again"},
        {"role": "system", "content": "Be kind."},
    ]

    async def work(engine):
        return await engine.complete(ChatRequest(messages, max_tokens=2, min_tokens=2))

    answer = with_engine(engine_server, work)
    assert answer.prompt_tokens == engine_server.renderer.count(messages, True)


def test_the_probe_fills_the_card_in_time(engine_server):
    start_s = time.perf_counter()

    async def work(engine):
        return await probe(
            engine,
            engine_server.server,
            engine_server.name,
            engine_server.backbone,
            engine_server.model,
        )

    card = with_engine(engine_server, work)
    assert time.perf_counter() - start_s < 10
    assert card.id == engine_server.server.start_id
    assert card.engine.startswith("vllm 0.")
    assert card.model_digest == engine_server.model.digest
    assert card.prefix_caching and card.cut_history_cached
    assert card.prefix_stable
    assert card.prefix_break is None
    assert card.seeded_output_batch_invariant
    assert card.kv_block_tokens == KV_BLOCK_TOKENS
    assert card.kv_cache_tokens > 8192
    assert min(card.decode_1_tokens_per_s, card.decode_8_tokens_per_s) > 0
    assert card.ttft_source == "engine"
    assert card.arguments["flags"]["enforce-eager"] is True
