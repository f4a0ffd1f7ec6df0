"""C2: three families of chat templates, written here, and a compaction that each of them takes."""

import asyncio
import shutil

import pytest
from doubles import CachingEngine, ForgetfulEngine, rule

from blockwise.compaction import target_name
from blockwise.compaction.messages import Policy, compact_messages
from blockwise.compaction.messages_record import Outcome
from blockwise.config.arms import SEQUENTIAL, known_layouts
from blockwise.errors import EngineError
from blockwise.models.renderer import Renderer

CHATML = """\
{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
LLAMA3 = """\
{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>

{{ message.content | trim }}<|eot_id|>{% endfor %}\
{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""
STRICT = """\
{% if messages[0].role == 'system' %}{% set system = messages[0].content %}\
{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}\
{% for message in rest %}\
{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if message.role == 'user' %}[INST] {% if loop.first and system %}{{ system }}

{% endif %}{{ message.content }}[/INST]{% else %} {{ message.content }}</s>{% endif %}\
{% endfor %}"""
TEMPLATES = {"ChatML": CHATML, "Llama 3": LLAMA3, "strict alternation": STRICT}
SUMMARY = "The user asked what has to be done and the assistant said it."


@pytest.fixture(params=TEMPLATES)
def renderer(request, tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model.tokenizer_path, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATES[request.param])
    return Renderer(str(folder))


def chat(num_exchanges=4):
    return [
        {"role": "system", "content": "You are a careful engineer."},
        *(
            {"role": role, "content": f"{role} says in message {number} what has to be done. " * 6}
            for number in range(num_exchanges)
            for role in ("user", "assistant")
        ),
    ]


def compact(renderer, messages, layout, block_size=300, tau_tokens=None):
    engine = ForgetfulEngine(lambda request: SUMMARY)
    engine.window_tokens = 1_000_000
    engine.renderer = renderer
    size = None if layout == SEQUENTIAL else block_size
    own = rule(layout=layout, block_size_tokens=size)
    call = compact_messages(engine, renderer, messages, own, policy=Policy(tau_tokens=tau_tokens))
    return asyncio.run(call), engine


@pytest.mark.parametrize("layout", [SEQUENTIAL, *known_layouts()])
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("has_tau", [False, True])
def test_c2_what_is_sent_and_what_comes_out_can_be_rendered(renderer, layout, waits, has_tau):
    messages = [*chat(), {"role": "user", "content": "And now?"}] if waits else chat()
    length = renderer.count(messages, add_generation_prompt=False)
    done, engine = compact(renderer, messages, layout, tau_tokens=length - 1 if has_tau else None)
    assert done.record.outcome is Outcome.COMPACTED
    for request in engine.requests:
        renderer.render(request.messages, add_generation_prompt=True)
    renderer.render(done.messages, add_generation_prompt=True)
    assert done.messages[-1]["content"].endswith("And now?" if waits else ">")
    assert SUMMARY in done.messages[1]["content"]


def test_c2_what_the_template_refuses_afterwards_is_refused_before_anything_is_paid(renderer):
    messages = chat()
    messages.insert(3, {"role": "system", "content": "From here on answer in French."})
    if renderer.takes_user_runs:
        assert compact(renderer, messages, SEQUENTIAL)[0].messages[2] == messages[3]
        return
    with pytest.raises(EngineError, match="roles must alternate"):
        compact(renderer, messages, SEQUENTIAL)


WITH_TOOLS = """\
{% if tools %}<|im_start|>system
{{ messages[0].content }}
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}{% for message in messages %}{% if not (tools and loop.first) %}\
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"Use it to {name}. " * 20}}
    for name in ("read_file", "run_tests")
]


@pytest.mark.parametrize("template", [WITH_TOOLS, CHATML], ids=["with tools", "without"])
def test_c1_workers_begin_as_the_agent_does_tools_included(template, tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model.tokenizer_path, folder)
    (folder / "chat_template.jinja").write_text(template)
    renderer = Renderer(str(folder))
    messages = chat()
    engine = CachingEngine(lambda request: SUMMARY)
    engine.renderer = renderer
    with_tools = renderer.with_tools(TOOLS)
    done = asyncio.run(compact_messages(engine, with_tools, messages, rule()))

    agents = with_tools.render(messages, add_generation_prompt=False)
    assert done.record.history_before_tokens == len(agents)
    assert (len(agents) > renderer.count(messages, False)) == (template == WITH_TOOLS)
    for request in engine.requests:
        prompt = with_tools.render(request.messages, add_generation_prompt=True)
        assert with_tools.count(request.messages, add_generation_prompt=True) == len(prompt)
        shown = with_tools.count(request.messages[:-1], add_generation_prompt=False)
        assert prompt[:shown] == agents[:shown]
    assert with_tools.count(messages[:3], False) == len(with_tools.render(messages[:3], False))
    assert renderer.count(messages, False) == len(renderer.render(messages, False))


def test_e1_a_long_history_is_tokenized_once_and_a_place_looked_for_once(
    tiny_renderer, monkeypatch
):
    """A cliff at 4,096 messages and 28 searches a worker took minutes of 10,000 messages."""
    messages = chat(2500)
    num_searches = 0
    search = target_name._places

    def counted(quotation, text):
        nonlocal num_searches
        num_searches += 1
        return search(quotation, text)

    monkeypatch.setattr(target_name, "_places", counted)
    tiny_renderer.count(messages, add_generation_prompt=False)
    before = tiny_renderer._message_tokens.cache_info().misses
    done, engine = compact(tiny_renderer, messages, "suffix_target", block_size=20_000)
    num_workers = len(engine.requests)
    assert num_workers == done.record.num_blocks > 10
    assert num_searches <= 2 * num_workers * len(messages)  # the place, or the one behind it
    assert tiny_renderer._message_tokens.cache_info().misses - before < 5 * num_workers
