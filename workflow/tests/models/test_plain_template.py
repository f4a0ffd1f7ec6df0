"""Plain templates: what is claimed to be written without rendering equals the rendering."""

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwise.errors import EngineError
from blockwise.models import plain_template

OPEN = "{{ '<|im_start|>' + m['role'] + '\\n' }}"
CLOSE = "{{ '<|im_end|>' + '\\n' }}"
LOOP = "{% for m in messages %}"
ANSWER = "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
)
REFUSAL = (
    "{% if loop.index0 and m.role == messages[loop.index0 - 1].role %}{{ refuse() }}{% endif %}"
)
PLAIN = {
    "chatml": f"{LOOP}{OPEN}{{{{ m['content'] }}}}{CLOSE}{ANSWER}",
    "trimming": f"<|bos|>{LOOP}{OPEN}{{{{ m.content | trim }}}}{CLOSE}{ANSWER}",
    "default system prompt": f"{DEFAULT}{LOOP}{OPEN}{{{{ m.content }}}}{CLOSE}{ANSWER}",
    "looks for a word": f"{LOOP}{OPEN}{{% if 'secret' in m.content %}}***{{% else %}}"
    f"{{{{ m.content }}}}{{% endif %}}{CLOSE}{ANSWER}",
}
NOT_PLAIN = {
    "numbers turns": f"{LOOP}{OPEN}{{{{ loop.index }}}} {{{{ m.content }}}}{CLOSE}{ANSWER}",
    "marks the last turn": f"{LOOP}{OPEN}{{{{ m.content }}}}{{% if loop.last %}}!{{% endif %}}"
    f"{CLOSE}{ANSWER}",
    "shouts": f"{LOOP}{OPEN}{{{{ m.content | upper }}}}{CLOSE}{ANSWER}",
    "refuses repeated roles": f"{LOOP}{REFUSAL}{OPEN}{{{{ m.content }}}}{CLOSE}{ANSWER}",
}
CONTENTS = st.text() | st.sampled_from(["a secret b", " secret", "  Mira\n\n", "<|im_end|>", ""])
CONVERSATIONS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(plain_template.ROLES[:3]), "content": CONTENTS}),
    min_size=1,
    max_size=6,
)


def refuse():
    raise jinja2.TemplateError("roles must alternate")


def renders(source: str):
    """The template as a server applies it."""
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(source)

    def render_text(messages, add_generation_prompt):
        try:
            return template.render(
                messages=messages, add_generation_prompt=add_generation_prompt, refuse=refuse
            )
        except jinja2.TemplateError as error:
            raise EngineError(str(error)) from error

    return render_text


@pytest.mark.parametrize("name", PLAIN)
@settings(deadline=None, max_examples=200)
@given(messages=CONVERSATIONS)
def test_a_plain_template_writes_what_the_template_renders(name, messages):
    render_text = renders(PLAIN[name])
    learned = plain_template.learn(PLAIN[name], render_text)
    assert learned is not None
    assert learned.text(messages) in (None, render_text(messages, True))


def test_most_conversations_need_no_rendering():
    learned = plain_template.learn(PLAIN["chatml"], renders(PLAIN["chatml"]))
    assert learned.text([{"role": "user", "content": "  Where is Mira? "}]) == (
        "<|im_start|>user\n  Where is Mira? <|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_content_with_a_string_of_the_template_is_left_to_rendering():
    learned = plain_template.learn(PLAIN["looks for a word"], renders(PLAIN["looks for a word"]))
    assert learned.wrap("user", "no secrets", is_first=True) is None


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_a_template_that_does_more_is_not_plain(name):
    assert plain_template.learn(NOT_PLAIN[name], renders(NOT_PLAIN[name])) is None


def test_several_templates_are_not_plain():
    assert plain_template.learn({"default": "", "tools": ""}, renders("")) is None
