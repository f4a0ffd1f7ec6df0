"""The client against a server that goes wrong: what is accepted, retried, refused, and said."""

import asyncio
from types import SimpleNamespace

import pytest
from stub_server import StubServer

from blockwise.config.backbones import ExternalEngine, PathModel, RequestDefaults
from blockwise.errors import EngineError
from blockwise.serving import client as engine_module
from blockwise.serving.answer import BusyEngineError, TransientEngineError
from blockwise.serving.client import ChatRequest, Completion, EngineClient
from blockwise.serving.endpoint_metrics import parse_metrics
from blockwise.serving.server import Server
from serving_fixtures import tiny_backbone

MESSAGES = [
    {"role": "system", "content": "Use {braces} and 100% of them."},
    {"role": "user", "content": "Where does Mira live?"},
]


@pytest.fixture(autouse=True)
def no_wait(monkeypatch):
    monkeypatch.setattr(engine_module, "RETRY_WAIT_S", 0.0)


def external_backbone(**request):
    return tiny_backbone(
        engine=ExternalEngine(
            kind="external", url="http://127.0.0.1:9/v1", served_model="m", version="1"
        ),
        model=PathModel(source="path", path="unused"),
        request=RequestDefaults(**{"timeout_s": 5.0, **request}),
    )


def ask(renderer, behaviours, request=None, max_attempts=1, process=None, **defaults):
    """Completion (or the error's text) and the bodies that the server received."""

    async def run():
        num_tokens = renderer.count(MESSAGES, add_generation_prompt=True)
        async with StubServer(behaviours, num_tokens).running() as stub:
            server = Server(stub.base_url, "m", "id", 0.0, None, "very-secret", process)
            async with EngineClient(server, external_backbone(**defaults), renderer) as engine:
                wanted = request or ChatRequest(MESSAGES, max_tokens=8, seed=3)
                try:
                    answer = await engine.complete(wanted, max_attempts=max_attempts)
                except EngineError as error:
                    assert "very-secret" not in str(error)
                    return str(error), stub.requests
                return answer, stub.requests

    return asyncio.run(run())


def test_a_server_of_ours_answers_by_its_own_name_and_no_other(tiny_renderer):
    ours = object()  # a process
    answer, sent = ask(tiny_renderer, ["other_model"], process=ours, max_attempts=2)
    assert "m was asked and somebody-elses answered" in answer
    assert len(sent) == 1
    assert isinstance(ask(tiny_renderer, ["good"], process=ours)[0], Completion)
    assert isinstance(ask(tiny_renderer, ["other_model"])[0], Completion)  # a name of theirs


def test_an_answer_carries_its_accounting(tiny_renderer):
    answer, (body,) = ask(tiny_renderer, ["good"])
    assert isinstance(answer, Completion)
    assert (answer.text, answer.thinking_text, answer.finish_reason) == ("a {b} c", "", "length")
    assert answer.prompt_tokens == tiny_renderer.count(MESSAGES, True)
    assert (answer.cached_tokens, answer.completion_tokens, answer.thinking_tokens) == (3, 8, 0)
    assert 0 < answer.ttft_s <= answer.wall_s < 5
    assert (answer.num_retries, answer.ttft_source) == (0, "client")
    assert body["path"] == "/v1/chat/completions"
    assert body["messages"] == MESSAGES
    assert (body["max_tokens"], body["seed"], body["temperature"]) == (8, 3, 0.0)
    assert body["stream_options"] == {"include_usage": True}
    absent = {"min_tokens", "ignore_eos", "cache_salt", "priority", "chat_template_kwargs"}
    assert not absent & set(body)


def test_the_engines_own_time_to_first_token_is_preferred(tiny_renderer):
    answer, _ = ask(tiny_renderer, ["timed"])
    assert (answer.ttft_s, answer.ttft_source) == (0.75, "engine")


def test_forced_length_salt_and_template_arguments_are_sent(tiny_renderer):
    request = ChatRequest(MESSAGES, max_tokens=8, min_tokens=8, cache_salt="s", priority=5)
    _, (body,) = ask(tiny_renderer, ["good"], request, chat_template_arguments={"date": "1 May"})
    assert (body["min_tokens"], body["ignore_eos"], body["cache_salt"]) == (8, True, "s")
    assert body["priority"] == 5
    assert body["chat_template_kwargs"] == {"date": "1 May"}
    assert "seed" not in body


def test_completion_form_sends_our_token_ids(tiny_renderer):
    answer, (body,) = ask(tiny_renderer, ["good"], form="completion")
    assert body["path"] == "/v1/completions"
    assert body["prompt"] == tiny_renderer.render(MESSAGES, add_generation_prompt=True)
    assert answer.text == "a {b} c"


def test_thinking_is_split_off_and_counted(tiny_renderer):
    answer, _ = ask(tiny_renderer, ["thinking"])
    assert (answer.text, answer.thinking_text) == ("42", "let me see")
    assert answer.thinking_tokens == tiny_renderer.count_text("let me see")
    answer, _ = ask(tiny_renderer, ["counted_thinking"])
    assert answer.thinking_tokens == 7


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("error_500", "HTTP 500: .*the engine core is dead"),
        ("error_400", "HTTP 400: .*the template is unhappy"),
        ("error_404", "HTTP 404: .*does not exist"),
        ("half", "the stream was cut: it ended after 11 characters"),
        ("half_then_done", "the stream was cut"),
        ("truncated_json", "not JSON events"),
        ("error_event", "error inside the stream.*EngineCore died"),
        ("no_usage", "without a usage report"),
        ("hang_up", "the connection to http://127.0.0.1.* failed"),
        ("other_prompt", r"the server counted \d+ prompt tokens, we rendered \d+"),
    ],
)
def test_a_wrong_answer_is_refused_in_words(tiny_renderer, behaviour, said):
    answer, _ = ask(tiny_renderer, [behaviour])
    assert isinstance(answer, str)
    with pytest.raises(EngineError, match=said):
        raise EngineError(answer)


def test_a_forced_answer_of_another_length_is_refused(tiny_renderer):
    request = ChatRequest(MESSAGES, max_tokens=8, min_tokens=8)
    answer, _ = ask(tiny_renderer, ["short"], request)
    assert "7 tokens came where exactly 8 were asked for" in answer
    answer, _ = ask(tiny_renderer, ["short"])
    assert answer.completion_tokens == 7


def test_a_stalled_stream_meets_the_time_limit(tiny_renderer):
    answer, _ = ask(tiny_renderer, ["stall"], timeout_s=0.3)
    assert "did not answer within request.timeout_s = 0.3" in answer


def test_retries_are_counted_and_stop_at_success(tiny_renderer):
    answer, bodies = ask(tiny_renderer, ["error_500", "half", "good"], max_attempts=4)
    assert answer.num_retries == 2
    assert len(bodies) == 3
    assert bodies[0] == bodies[2]


@pytest.mark.parametrize("behaviour", ["error_400", "other_prompt"])
def test_what_cannot_improve_is_not_retried(tiny_renderer, behaviour):
    answer, bodies = ask(tiny_renderer, [behaviour, "good"], max_attempts=3)
    assert isinstance(answer, str)
    assert len(bodies) == 1


def test_the_last_attempt_says_what_happened(tiny_renderer):
    answer, bodies = ask(tiny_renderer, ["error_500", "half"], max_attempts=2)
    assert "the stream was cut" in answer
    assert len(bodies) == 2


def test_a_request_over_the_window_is_never_sent(tiny_renderer):
    request = ChatRequest(MESSAGES, max_tokens=8192)
    answer, bodies = ask(tiny_renderer, ["good"], request)
    assert "exceed the window of 8192" in answer
    assert bodies == []


def test_a_senseless_length_is_refused(tiny_renderer):
    answer, _ = ask(tiny_renderer, ["good"], ChatRequest(MESSAGES, max_tokens=4, min_tokens=5))
    assert "min_tokens 5 and max_tokens 4" in answer


def test_a_server_that_is_gone_is_named(tiny_renderer):
    async def run():
        server = Server("http://127.0.0.1:9/v1", "m", "id", 0.0, None, "k")
        async with EngineClient(server, external_backbone(), tiny_renderer) as engine:
            await engine.complete(ChatRequest(MESSAGES, max_tokens=8))

    with pytest.raises(EngineError, match=r"connection to http://127.0.0.1:9/v1 failed"):
        asyncio.run(run())


def test_a_proxy_of_the_environment_is_for_other_machines(tiny_renderer, monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    answer, _ = ask(tiny_renderer, ["good"])
    assert isinstance(answer, Completion)


def test_metrics_are_summed_over_engine_cores():
    page = """\
# HELP vllm:num_preemptions_total Cumulative number of preemptions.
vllm:num_preemptions_total{engine="0",model_name="m"} 2.0
vllm:num_preemptions_total{engine="1",model_name="m"} 1.0
vllm:num_preemptions_created{engine="0",model_name="m"} 1.7e+09
vllm:prefix_cache_queries_total{engine="0"} 1.2e+06
vllm:prefix_cache_hits_total{engine="0"} 640.0
vllm:cache_config_info{block_size="128",engine="0",note="a \\"b\\"",num_gpu_blocks="10"} 1.0
vllm:cache_config_info{block_size="128",engine="1",num_gpu_blocks="12"} 1.0
"""
    metrics = parse_metrics(page)
    assert metrics.num_preemptions == 3
    assert metrics.prefix_cache_queries_tokens == 1_200_000
    assert metrics.prefix_cache_hits_tokens == 640
    assert (metrics.kv_cache_tokens, metrics.kv_block_tokens) == (22 * 128, 128)


def test_metrics_without_cache_sizes_say_so():
    page = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1.0\n'
    assert parse_metrics(page).kv_cache_tokens is None


def metrics_of(renderer, page):
    async def run():
        async with StubServer([], 0).running() as stub:
            stub.pages["/metrics"] = page
            server = Server(stub.base_url, "m", "id", 0.0, None, "very-secret", None)
            async with EngineClient(server, external_backbone(), renderer) as engine:
                return await engine.metrics()

    return asyncio.run(run())


def test_metrics_of_another_engine_are_none_and_a_broken_page_is_said(tiny_renderer):
    assert metrics_of(tiny_renderer, "llamacpp:prompt_tokens_total 3\n") is None
    assert metrics_of(tiny_renderer, "vllm:num_preemptions_total 3\n").num_preemptions == 3
    with pytest.raises(EngineError, match=r"/metrics is no Prometheus page"):
        metrics_of(tiny_renderer, "<p>vllm:num_preemptions_total is 3</p>\n")


def test_c4_a_full_server_is_asked_again_more_often_than_a_broken_one(tiny_renderer):
    answer, sent = ask(tiny_renderer, ["busy"] * 4 + ["good"], max_attempts=2)
    assert isinstance(answer, Completion)
    assert answer.num_retries == 4
    assert "429" in answer.retry_reasons[0]
    answer, sent = ask(tiny_renderer, ["busy"], max_attempts=2)
    assert "429" in answer
    assert len(sent) == engine_module.BUSY_ATTEMPTS
    answer, sent = ask(tiny_renderer, ["error_500"] * 4 + ["good"], max_attempts=2)
    assert len(sent) == 2
    assert len(ask(tiny_renderer, ["busy"])[1]) == 1  # with one attempt nothing is asked twice


def wait_s(attempt_number, error):
    state = SimpleNamespace(
        attempt_number=attempt_number, outcome=SimpleNamespace(exception=lambda: error)
    )
    return engine_module._wait_s(state)


def test_c4_waits_grow_differ_and_follow_the_server(monkeypatch):
    monkeypatch.setattr(engine_module, "RETRY_WAIT_S", 1.0)
    broken = TransientEngineError("x")
    for attempt, least in ((1, 1.0), (2, 2.0), (3, 4.0), (9, engine_module.MAX_RETRY_WAIT_S)):
        assert least <= wait_s(attempt, broken) <= least + 1.0
    assert len({wait_s(1, broken) for _ in range(20)}) > 10
    assert 7.0 <= wait_s(1, BusyEngineError("x", 7.0)) <= 8.0
    assert 2.0 <= wait_s(2, BusyEngineError("x", None)) <= 3.0
    assert wait_s(1, BusyEngineError("x", 86400.0)) <= engine_module.MAX_RETRY_WAIT_S + 1.0
