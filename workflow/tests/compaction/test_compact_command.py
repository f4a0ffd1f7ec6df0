"""The compactor's command line: two streams that parse, or one line that says what to mend."""

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest
from summariser import serving

from blockwise import compact
from blockwise.command_line import call, run
from blockwise.compaction.compactor import WRAPPER_HEADING
from blockwise.errors import BlockwiseError
from blockwise.serving import client as engine_module

CHAT = [
    {"role": "system", "content": "Be brief.", "note": "mine"},
    *(
        {"role": role, "content": f"{role} {n}: Mira lives in Tarvos. Ünïcode 日本 🙂 {{x}} %s"}
        for n in range(8)
        for role in ("user", "assistant")
    ),
]
UNREACHABLE = "http://127.0.0.1:9/v1"  # the discard port: nothing listens there


@pytest.fixture
def command(monkeypatch, capsysbinary, tiny_model):
    """Run the command in this process: its output, its record, or the text of its error."""
    monkeypatch.setattr(engine_module, "RETRY_WAIT_S", 0.0)

    def run(base_url, *options, given=CHAT, layout="target_block", block_size="150"):
        content = given if isinstance(given, bytes) else json.dumps(given).encode()
        fixed = ["--model", "m", "--layout", layout, "--tokenizer", tiny_model.tokenizer_path]
        words = ["--base-url", base_url, *fixed, "--block-size", block_size, *options]
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        try:
            call(compact.command, words)
        except BlockwiseError as error:
            written = capsysbinary.readouterr()
            assert (written.out, "\n" in str(error)) == (b"", False)
            return SimpleNamespace(error=str(error))
        written = capsysbinary.readouterr()
        return SimpleNamespace(output=json.loads(written.out), record=json.loads(written.err))

    return run


TOOL = {"type": "function", "function": {"name": "ls", "parameters": {"type": "object"}}}


def test_the_agents_tools_are_sent_and_none_may_be_called(command, tiny_renderer):
    given = {"messages": CHAT, "tools": [TOOL], "model": "m"}
    with serving(tiny_renderer) as stub:
        done = command(stub.base_url, given=given)
    assert stub.requests
    assert {body["tool_choice"] for body in stub.requests} == {"none"}
    assert all(body["tools"] == [TOOL] for body in stub.requests)
    assert (done.output["tools"], done.output["model"]) == ([TOOL], "m")
    assert len(done.output["messages"]) < len(CHAT)


@pytest.mark.parametrize("tools", ["ls", [{"function": {"name": "ls"}}], [{"type": "function"}]])
def test_what_is_no_list_of_tools_is_refused(command, tools):
    done = command(UNREACHABLE, given={"messages": CHAT, "tools": tools})
    assert "'tools' is no list of OpenAI tools" in done.error


def test_a_list_goes_in_and_a_shorter_one_comes_out(command, tiny_renderer):
    with serving(tiny_renderer) as stub:
        done = command(stub.base_url, "--keep-last", "2", "--seed", "7", "--max-tokens", "64")
    assert done.output[0] == CHAT[0]
    assert done.output[-2:] == CHAT[-2:]
    assert done.output[1]["content"].startswith(WRAPPER_HEADING)
    assert len(done.output) == 4
    assert done.record["outcome"] == "compacted"
    assert done.record["num_blocks"] == len(stub.requests) > 1
    assert done.record["output_tokens"] == 5 * len(stub.requests)
    assert {body["max_tokens"] for body in stub.requests} == {64}
    assert not any({"cache_salt", "min_tokens", "ignore_eos"} & set(body) for body in stub.requests)
    assert all(
        "one third as long as the text" in body["messages"][-1]["content"] for body in stub.requests
    )


def test_an_object_comes_out_as_one_and_tau_leaves_it_alone(command, tiny_renderer):
    given = {"model": "x", "messages": CHAT, "metadata": {"id": 1.5}}
    with serving(tiny_renderer) as stub:
        kept = command(stub.base_url, "--tau", "8000", given=given)
        done = command(stub.base_url, "--tau", "100", given=given)
    assert kept.output == given
    assert (kept.record["outcome"], kept.record["num_blocks"]) == ("unchanged", 0)
    assert done.output == {**given, "messages": done.output["messages"]}
    assert len(done.output["messages"]) == 2


def test_a_forced_volume_is_split_and_sequential_takes_one_worker(command, tiny_renderer):
    with serving(tiny_renderer) as stub:
        one = command(stub.base_url, "--volume", "50", layout="sequential")
        assert [body["min_tokens"] for body in stub.requests] == [50]
        many = command(stub.base_url, "--volume", "50", "--max-concurrent-workers", "1")
    assert one.record["block_size_tokens"] is None
    assert (one.record["num_blocks"], one.record["output_tokens"]) == (1, 50)
    assert many.record["num_blocks"] > 1
    assert many.record["output_tokens"] == 50
    starts = [(worker["start_s"], worker["wall_s"]) for worker in many.record["workers"]]
    assert all(a + wall <= b for (a, wall), (b, _) in pairwise(starts))


def test_prompt_and_key_come_from_where_they_are_said_to(
    command, tiny_renderer, tmp_path, monkeypatch
):
    prompt = tmp_path / "mine.md"
    prompt.write_text("---\ntarget_frac: 0.2\n---\nKeep {names} only.\n")
    monkeypatch.setenv("MY_KEY", "very-secret\n")
    with serving(tiny_renderer) as stub:
        done = command(stub.base_url, "--prompt", str(prompt), "--api-key-env", "MY_KEY")
    assert all(
        body["messages"][-1]["content"].endswith("Keep {names} only.") for body in stub.requests
    )
    assert "very-secret" not in json.dumps(done.record)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"block_size": "0"}, "'--block-size': '0' is no whole number of at least 1"),
        ({"block_size": "-5"}, "'--block-size': '-5' is no whole number of at least 1"),
        ({"layout": "spiral"}, "'spiral' is not one of .*target_block"),
        (
            {"options": ["--volume", "9", "--max-tokens", "9"]},
            "--volume is not allowed with --max-tokens",
        ),
        ({"options": ["--timeout", "0"]}, "'--timeout': '0' is no number above 0"),
        ({"options": ["--keep-last", "x"]}, "'--keep-last': 'x' is no whole number"),
        ({"options": ["--prompt", "prompt.txt"]}, r"not named \*\.md"),
        ({"options": ["--prompt", "absent.md"]}, "cannot read the prompt absent.md"),
        ({"options": ["--api-key-env", "NO_SUCH_KEY"]}, "NO_SUCH_KEY .* is not set"),
        ({"given": b""}, r"standard input \(0 bytes\) is not JSON"),
        ({"given": b"\xff\xfe["}, "is not JSON"),
        ({"given": b'[{"role": "user", "content": "\\ud800"}]'}, r"messages\[0\] holds half"),
        ({"given": b'[{"role": "user", "content": "x", "score": NaN}]'}, "NaN is no JSON value"),
        ({"given": b"3"}, "no list of messages"),
        ({"given": {"turns": []}}, "no list of messages"),
        ({"given": []}, "there is no message"),
        ({"given": [{"content": "x"}]}, "the role is None"),
        ({"given": [*CHAT, {"role": "tool", "tool_call_id": "a"}]}, "result for call 'a'"),
        ({}, "no server to use: .* cannot be reached"),
    ],
)
def test_what_is_wrong_before_a_server_answers_is_said_in_one_line(command, options, problem):
    words = options.pop("options", [])
    error = command(UNREACHABLE, *words, **options).error
    assert re.search(problem, error), error


@pytest.mark.parametrize(
    ("entry", "options", "problem"),
    [
        ({"id": "other"}, [], "does not serve 'm'; it serves other"),
        ({"max_model_len": None}, [], "does not tell the context window.*--window"),
        ({}, ["--window", "300"], "the window has 300"),
        ({}, ["--keep-last", "20"], "no turn is left to compact"),
        ({}, ["--tokenizer", "/no/such/folder"], "tokenizer: cannot load a tokenizer"),
        ({}, ["--volume", "1"], "cannot be split over"),
    ],
)
def test_what_a_server_or_a_size_forbids_is_said_in_one_line(
    command, tiny_renderer, entry, options, problem
):
    with serving(tiny_renderer, **entry) as stub:
        error = command(stub.base_url, *options).error
    assert re.search(problem, error), error


def test_a_worker_that_keeps_failing_fails_the_call(command, tiny_renderer):
    with serving(tiny_renderer, ["summary", "error_500"]) as stub:
        assert "the engine core is dead" in command(stub.base_url).error


def test_a_process_writes_one_record_and_nothing_else_to_standard_error(tiny_renderer, tiny_model):
    with serving(tiny_renderer) as stub:
        words = ["--base-url", stub.base_url, "--model", "m", "--max-tokens", "64"]
        words += ["--tokenizer", tiny_model.tokenizer_path, "--layout", "sequential"]
        done = subprocess.run(
            [sys.executable, "-m", "blockwise.compact", *words],
            input=json.dumps(CHAT).encode(),
            capture_output=True,
            timeout=200,
            check=True,
        )
    assert len(json.loads(done.stdout)) == 2
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["num_blocks"] == 1


def test_a_refusal_is_one_line_and_exit_status_2(monkeypatch, capsysbinary):
    words = ["--base-url", UNREACHABLE, "--model", "m", "--layout", "sequential"]
    monkeypatch.setattr(sys, "argv", ["compact", *words])
    with pytest.raises(SystemExit) as ended:
        run(compact.command)
    assert ended.value.code == 2
    written = capsysbinary.readouterr()
    (line,) = written.err.splitlines()
    assert b"error: --layout sequential needs --max-tokens or --volume" in line
    assert written.out == b""


@pytest.mark.engine
def test_every_mode_compacts_on_a_real_server(command, engine_server):
    words = ["--model", engine_server.server.served_model, "--volume", "40", "--keep-last", "1"]
    given = [
        *CHAT,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "find", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "Tarvos"}]},
        {"role": "user", "content": "Where?"},
    ]
    for layout in ("sequential", "target_block"):
        done = command(engine_server.server.base_url, *words, given=given, layout=layout)
        assert [message["role"] for message in done.output] == ["system", "user", "user"]
        assert done.output[-1] == given[-1]
        assert done.record["output_tokens"] == 40
        assert done.record["uncached_tokens"] <= done.record["prompt_tokens"]
        for worker in done.record["workers"]:
            assert worker["rendered_prompt_tokens"] == worker["prompt_tokens"]


def process(stub, tiny_model, **streams):
    """The command as a process of its own."""
    words = ["--base-url", stub.base_url, "--model", "m", "--max-tokens", "64"]
    words += ["--tokenizer", tiny_model.tokenizer_path, "--layout", "sequential"]
    return subprocess.Popen(
        [sys.executable, "-m", "blockwise.compact", *words],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **streams,
    )


def test_f_ctrl_c_ends_in_one_line(tiny_renderer, tiny_model):
    with serving(tiny_renderer, ["silence"]) as stub:
        stub._silence = lambda writer, body: asyncio.sleep(120)
        running = process(stub, tiny_model, stdout=subprocess.PIPE)
        running.stdin.write(json.dumps(CHAT).encode())
        running.stdin.close()
        deadline_s = time.monotonic() + 120
        while not stub.requests and time.monotonic() < deadline_s:
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        said, written = running.stderr.read(), running.stdout.read()
        assert running.wait(60) == 130
    assert (said, written) == (b"error: interrupted\n", b"")


def test_f_a_closed_pipe_ends_in_one_line(tiny_renderer, tiny_model):
    with serving(tiny_renderer) as stub:
        reading, writing = os.pipe()
        os.close(reading)  # nobody will read
        running = process(stub, tiny_model, stdout=writing)
        os.close(writing)
        said = running.communicate(json.dumps(CHAT).encode(), timeout=120)[1]
    assert running.returncode == 141
    assert said == b"error: nobody reads the output any more\n"
