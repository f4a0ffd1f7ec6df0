"""A key is sent and written nowhere: no message, record, configuration or key of a cell has it."""

import asyncio
import copy
import http.server
import json
import threading

import pytest
import yaml

from blockwise import compact
from blockwise.artifacts import canonical_json
from blockwise.command_line import call
from blockwise.compaction.judgements import Item, JudgeIdentity
from blockwise.compaction.judging import JudgeClient
from blockwise.compaction.plan import engine_identity
from blockwise.config.backbones import ExternalEngine, PathModel, RequestDefaults
from blockwise.config.judge import Judge
from blockwise.config.load import load_profile
from blockwise.errors import ConfigError, EngineError
from blockwise.provenance import command_line, cpu_model, git_state, package_versions
from blockwise.serving import client as engine_module
from blockwise.serving.api_key import read_key, without_key
from blockwise.serving.client import ChatRequest, EngineClient
from blockwise.serving.http_json import HttpError, get_text
from blockwise.serving.server import Server
from blockwise.serving.vllm_command import vllm_command, vllm_environment
from hostile.test_hostile_config import CONFIG
from serving.stub_server import StubServer
from serving_fixtures import tiny_backbone

CANARY = "sk-canary-4f9d2c7b1e8a4b6f"
PIECE_CHARS = 10  # of a key that is cut, so many in a row would be as bad
MESSAGES = [{"role": "user", "content": "Where does Mira live?"}]


def assert_unsaid(*texts):
    pieces = {CANARY[i : i + PIECE_CHARS] for i in range(len(CANARY) - PIECE_CHARS + 1)}
    for text in texts:
        assert not [piece for piece in pieces if piece in text], text


@pytest.fixture(autouse=True)
def no_wait(monkeypatch):
    monkeypatch.setattr(engine_module, "RETRY_WAIT_S", 0.0)


def external_backbone():
    engine = ExternalEngine(kind="external", url="http://h/v1", served_model="m", version="1")
    model = PathModel(source="path", path="unused")
    return tiny_backbone(engine=engine, model=model, request=RequestDefaults(timeout_s=5.0))


def ask(renderer, behaviours, key=CANARY):
    """Completion, or the error with everything that it was raised from but the library's own."""

    async def run():
        num_tokens = renderer.count(MESSAGES, add_generation_prompt=True)
        async with StubServer(behaviours, num_tokens).running() as stub:
            server = Server(stub.base_url, "m", "id", 0.0, None, key)
            async with EngineClient(server, external_backbone(), renderer) as engine:
                try:
                    answer = await engine.complete(ChatRequest(MESSAGES, 8), max_attempts=2)
                except EngineError as error:
                    answer = error
            assert stub.key == key
            return answer

    return asyncio.run(run())


@pytest.mark.parametrize(
    "behaviour", ["echo_500", "echo_401", "echo_event", "echo_at_the_cut", "echo_no_json"]
)
def test_an_error_that_quotes_the_key_is_told_without_it(tiny_renderer, behaviour):
    error = ask(tiny_renderer, [behaviour])
    assert isinstance(error, EngineError)
    assert_unsaid(str(error), repr(error))
    if behaviour == "echo_401":
        assert "Bearer [key] is refused" in str(error)


def test_the_reason_of_a_retry_is_recorded_without_the_key(tiny_renderer):
    answer = ask(tiny_renderer, ["echo_500", "good"])
    assert answer.num_retries == 1
    assert_unsaid(*answer.retry_reasons)
    assert "[key]" in answer.retry_reasons[0]


def test_an_answer_that_holds_the_key_is_dropped(tiny_renderer):
    error = ask(tiny_renderer, ["echo_answer"])
    assert isinstance(error, EngineError)
    assert "answers with the key that it was sent" in str(error)
    assert_unsaid(str(error))


def test_a_placeholder_is_no_key_and_may_stand_in_answers(tiny_renderer):
    assert ask(tiny_renderer, ["echo_answer"], key="EMPTY").text == "EMPTY"


class Echo(http.server.BaseHTTPRequestHandler):
    """Says what it was sent: as a page, as the words of a status, or as JSON."""

    def do_GET(self):
        key = self.headers["Authorization"]
        if self.path == "/status":
            self.send_response(403, key)
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"version": key}).encode())

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": f"WRONG {self.headers['Authorization']}"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        content = {"id": "1", "object": "x", "created": 0, "model": "m", "choices": [choice]}
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def echo():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_what_an_endpoint_says_of_itself_comes_without_the_key(echo):
    assert json.loads(get_text(f"{echo}/version", CANARY)) == {"version": "Bearer [key]"}
    with pytest.raises(HttpError, match=r"HTTP 403 Bearer \[key\]") as caught:
        get_text(f"{echo}/status", CANARY)
    assert_unsaid(str(caught.value))
    for unsendable in (f"{CANARY}\n", f"{CANARY}\u20ac", f"{CANARY}\u2028x"):
        with pytest.raises(HttpError) as caught:
            get_text(f"{echo}/version", unsendable)
        assert_unsaid(str(caught.value).replace("[key]", ""))


def test_a_verdict_that_quotes_the_key_is_kept_without_it(echo, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", CANARY)
    judge = Judge(url=f"{echo}/v1", served_model="m", version="1", api_key_env="JUDGE_KEY")
    identity = JudgeIdentity(
        served_model="m", version="1", prompt="{{question}}{{gold}}{{answer}}", max_reply_tokens=9
    )

    async def run():
        async with JudgeClient(judge, identity) as client:
            return await client.ask(Item("q", "g", "a"))

    verdict = asyncio.run(run())
    assert verdict.reply == "WRONG Bearer [key]"
    assert_unsaid(verdict.model_dump_json())


@pytest.mark.parametrize("held", ["", " \n", f"{CANARY} {CANARY}", f"{CANARY}\x00", f"{CANARY}é"])
def test_a_variable_that_holds_no_key_is_refused_unseen(monkeypatch, held):
    monkeypatch.setattr("os.environ", {"SOME_KEY": held})
    with pytest.raises(
        ConfigError, match=r"SOME_KEY \(here\) (is not set|holds \d+ characters)"
    ) as e:
        read_key("SOME_KEY", "here", "the server")
    assert_unsaid(str(e.value))


def test_a_key_is_found_in_json_and_in_python_too():
    key = 'sk-"quoted"\\key'
    for text in (key, json.dumps({"k": key}), repr(key), f"b{key!r}"):
        assert without_key(text, key) != text
        assert "quoted" not in without_key(text, key)


EXTERNAL = ("backbones", "elsewhere", "engine")
OWN = ("backbones", "small", "engine")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((*EXTERNAL, "api_key_env"), CANARY),
        ((*EXTERNAL, "api_key"), CANARY),
        ((*EXTERNAL, "url"), f"http://user:{CANARY}@host/v1"),
        ((*EXTERNAL, "url"), f"http://{CANARY}@host/v1"),
        ((*EXTERNAL, "url"), f"htp://{CANARY}@host/v1"),
        ((*EXTERNAL, "url"), f"http://host/v1?api_key={CANARY}"),
        ((*EXTERNAL, "url"), ["http://host/v1", f"http://host/v1#{CANARY}"]),
        ((*OWN, "arguments"), {"api-key": CANARY}),
        ((*OWN, "arguments"), {"api_key": CANARY}),
        ((*OWN, "arguments"), {"hf-token": CANARY}),
        ((*OWN, "environment"), {"VLLM_API_KEY": CANARY}),
        ((*OWN, "environment"), {"HF_TOKEN": CANARY}),
        ((*OWN, "environment"), {"AWS_SECRET_ACCESS_KEY": CANARY}),
        (("judge", "api_key_env"), CANARY),
        (("judge", "url"), f"http://host/v1?key={CANARY}"),
        (("datasets", "hotpotqa", "source", "url"), f"https://me:{CANARY}@host/a.json"),
    ],
)
def test_a_key_in_a_configuration_is_refused_unseen(tmp_path, place, value):
    content = copy.deepcopy(CONFIG)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=place[0]) as caught:
        load_profile([file])
    assert_unsaid(str(caught.value))


@pytest.mark.parametrize(
    "words",
    [["--api-key-env", CANARY], ["--base-url", f"http://x:{CANARY}@h/v1"],
     ["--base-url", f"http://h/v1?key={CANARY}"]],
)  # fmt: skip
def test_a_key_on_the_command_line_is_refused_unseen(words):
    fixed = ["--base-url", "http://h/v1", "--model", "m", "--layout", "sequential"]
    with pytest.raises(ConfigError) as caught:
        call(compact.command, [*fixed, "--max-tokens", "5", *words])
    assert_unsaid(str(caught.value))


def test_keys_of_the_environment_are_in_nothing_that_is_recorded(monkeypatch, tmp_path):
    names = ("OPENAI_API_KEY", "SOME_KEY", "HF_TOKEN", "VLLM_API_KEY", "VLLM_SECRET")
    for name in names:
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(CONFIG))
    profile = load_profile([file])
    identities = {name: engine_identity(one) for name, one in profile.backbones.items()}
    assert identities["small"].environment == {"VLLM_CPU_KVCACHE_SPACE": "1"}
    record = [
        profile.model_dump(mode="json"),
        {name: one.model_dump(mode="json") for name, one in identities.items()},
        command_line(), cpu_model(), git_state(), package_versions(),
    ]  # fmt: skip
    assert_unsaid(canonical_json(record), repr(profile))


def test_a_server_of_ours_asks_no_key_of_anybody(monkeypatch, tiny_model):
    """vLLM would take one from its environment, and refuse every client of ours."""
    monkeypatch.setenv("VLLM_API_KEY", CANARY)
    monkeypatch.setenv("HF_TOKEN", CANARY)  # is inherited: it may serve a gated model
    environment = vllm_environment(tiny_backbone(), {})
    assert "VLLM_API_KEY" not in environment
    assert environment["HF_TOKEN"] == CANARY
    command = vllm_command("tiny", tiny_backbone(), tiny_model, "start", 1)
    assert_unsaid(" ".join(command))
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command.count("--host") == 1
