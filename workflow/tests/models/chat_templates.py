"""Three families of chat templates, written here, that know tools; none is a publisher's own."""

CHATML = """\
{% if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}You may call:
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}\
{% for message in messages %}\
{% if message.role == 'tool' %}\
{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}
<tool_response>
{{ message.content }}
</tool_response>\
{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>
{% endif %}\
{% elif message.role != 'system' or not loop.first %}<|im_start|>{{ message.role }}
{{ message.content }}{% for call in message.tool_calls %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endif %}{% endfor %}\
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

LLAMA3 = """\
{% set seen = namespace(user=false) %}\
{% for message in messages %}\
{% if message.role == 'tool' %}<|start_header_id|>ipython<|end_header_id|>

{{ message.content | tojson }}<|eot_id|>\
{% elif message.tool_calls %}<|start_header_id|>assistant<|end_header_id|>

{{ message.content | trim }}{% for call in message.tool_calls %}\
{"name": "{{ call.function.name }}", "parameters": {{ call.function.arguments | tojson }}}\
{% endfor %}<|eot_id|>\
{% else %}<|start_header_id|>{{ message.role }}<|end_header_id|>

{% if tools and message.role == 'user' and not seen.user %}{% set seen.user = true %}\
Answer with a call of one of these where it helps:
{% for tool in tools %}{{ tool | tojson(indent=4) }}

{% endfor %}{% endif %}{{ message.content | trim }}<|eot_id|>{% endif %}{% endfor %}\
{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""

STRICT = """\
{% if messages[0].role == 'system' %}{% set system = messages[0].content %}\
{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}\
{% set turn = namespace(user=true) %}\
{% for message in rest %}\
{% if message.role != 'tool' and not message.tool_calls %}\
{% if (message.role == 'user') != turn.user %}\
{{ raise_exception('roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% set turn.user = not turn.user %}{% endif %}\
{% if message.role == 'user' %}\
{% if tools and loop.first %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}\
[INST] {% if loop.first and system %}{{ system }}

{% endif %}{{ message.content }}[/INST]\
{% elif message.role == 'tool' %}[TOOL_RESULTS] {"content": {{ message.content | tojson }}, \
"call_id": "{{ message.tool_call_id }}"}[/TOOL_RESULTS]\
{% elif message.tool_calls %}{% if message.content %} {{ message.content }}{% endif %}\
[TOOL_CALLS] [{% for call in message.tool_calls %}{"name": "{{ call.function.name }}", \
"arguments": {{ call.function.arguments | tojson }}, "id": "{{ call.id }}"}\
{% if not loop.last %}, {% endif %}{% endfor %}]</s>\
{% else %} {{ message.content }}</s>{% endif %}{% endfor %}"""

FAMILIES = {"ChatML": CHATML, "Llama 3": LLAMA3, "strict alternation": STRICT}
SPECIAL_TOKENS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
)
TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"Use it to {name}. " * 20}}
    for name in ("read_file", "run_tests")
]
