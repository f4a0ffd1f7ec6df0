"""Whether sessions fit: what can be known before a server starts is refused before it does.

What is left after a compaction is the system prompt, the turns kept verbatim, the summaries
and the next turn; if that can exceed tau, the agent would compact for ever. A history must fit
the window together with the compaction prompt and its answer, and a session must be long
enough for the history that an experiment asks of it.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise

from blockwise.compaction.agent import ACKNOWLEDGEMENT, SYSTEM_PROMPT, turn_text
from blockwise.compaction.cell_spec import CellSpec
from blockwise.compaction.compactor import WRAPPER_ROLE, wrapper_text
from blockwise.compaction.history import SYSTEM_ROLE
from blockwise.compaction.protocols.deferred import part_starts
from blockwise.config.choices import OpenBlock, VolumeMode
from blockwise.data.documents import Document, Question, Session
from blockwise.errors import CompactionError, ConfigError
from blockwise.models.renderer import Message, Renderer

SCOPE_TOKENS = 256  # a layout's instruction with two quotations took up to 169
MAX_PROBLEMS = 10  # one message stays readable; the first ones show the pattern


def check_sessions_fit(
    cells: Iterable[tuple[str, CellSpec]], sessions: Mapping[str, Session], renderer: Renderer
) -> None:
    """Refuse cells whose session cannot be played as asked.

    Args:
        cells: name of the experiment and cell.
        sessions: by id.
        renderer: template and tokenizer of the backbone.

    Raises:
        ConfigError: naming experiment, session, document, sizes and remedy.
    """
    problems: list[str] = []
    seen = set()
    for name, spec in cells:
        session = sessions[spec.session_id]
        most = _most_summary_tokens(spec)
        case = (name, session.id, most, spec.tau_tokens, spec.history_tokens, spec.open_block)
        if spec.is_reference or case in seen:
            continue
        seen.add(case)
        found = [*_window_problems(spec, renderer)]
        if spec.ask_after:
            found += _part_problems(spec, session, renderer)
        if spec.tau_tokens is not None:
            found += _tau_problems(spec, spec.tau_tokens, session, most, renderer)
        if spec.history_tokens is not None:
            found += _length_problems(spec.history_tokens, session, renderer)
        problems += [f"experiments.{name}: {problem}" for problem in found]
    if problems:
        listed = list(dict.fromkeys(problems))[:MAX_PROBLEMS]
        raise ConfigError("\n  - ".join(["sessions do not fit:", *listed]))


def full_history_tokens(session: Session, renderer: Renderer) -> int:
    """Rendered tokens of a request that shows every document and asks the longest question."""
    questions = [question for document in session.documents for question in document.questions]
    asked = max((turn_text(None, question) for question in questions), key=len, default="")
    messages = [*_shown(session.documents), {"role": "user", "content": asked}]
    return renderer.count(messages, add_generation_prompt=True)


def _shown(documents: Iterable[Document]) -> list[Message]:
    messages: list[Message] = [{"role": SYSTEM_ROLE, "content": SYSTEM_PROMPT}]
    for document in documents:
        messages.append({"role": "user", "content": turn_text(document, None)})
        messages.append({"role": "assistant", "content": ACKNOWLEDGEMENT})
    return messages


def _window_problems(spec: CellSpec, renderer: Renderer) -> list[str]:
    window_tokens = spec.engine.context_window_tokens
    history_tokens = spec.tau_tokens or spec.history_tokens or 0
    prompts = [spec.prompt, *spec.block_prompts.values()]
    asked = max(renderer.count_text(prompt) for prompt in prompts)
    asked += SCOPE_TOKENS + max(_most_answer_tokens(spec), spec.budget_tokens or 0)
    if history_tokens + asked <= window_tokens:
        return []
    return [
        f"a compaction request of up to {history_tokens} tokens of history and {asked} for prompt "
        f"and answer exceeds the window of {window_tokens}; lower tau_tokens (or history_tokens) "
        "or the volume"
    ]


def _tau_problems(
    spec: CellSpec, tau_tokens: int, session: Session, most: int, renderer: Renderer
) -> list[str]:
    problems = []
    verbatim_tokens = _verbatim_tokens(session, spec.last_turns, renderer)
    verbatim_tokens += _open_block_tokens(spec, session, renderer)
    for document in session.documents:
        needed = _tokens_beside_summaries(document, renderer) + most + spec.answer_tokens
        needed += verbatim_tokens
        if needed > tau_tokens:
            problems.append(
                f"document {document.id} of session {session.id} cannot follow a compaction: with "
                f"{most} tokens of summaries, {verbatim_tokens} kept verbatim and the answer it "
                f"needs {needed}, tau_tokens is {tau_tokens}; raise tau_tokens, lower the volume "
                "or verbatim.last_turns, or leave the document out"
            )
    return problems


def _part_problems(spec: CellSpec, session: Session, renderer: Renderer) -> list[str]:
    """A part of a session and what a strategy left of those before it must fit below tau."""
    assert spec.budget_tokens is not None, spec.label
    assert spec.tau_tokens is not None, spec.label
    try:
        starts = part_starts(session, max(spec.ask_after))
    except CompactionError as error:
        return [str(error)]
    longest = max(
        renderer.count(_shown(session.documents[start:stop]), add_generation_prompt=False)
        for start, stop in pairwise(starts)
    )
    needed = longest + spec.budget_tokens + spec.answer_tokens
    if needed <= spec.tau_tokens:
        return []
    return [
        f"a part of session {session.id} takes up to {longest} tokens, with budget_tokens and an "
        f"answer {needed}, tau_tokens is {spec.tau_tokens}; raise tau_tokens or ask_after, or "
        "lower the dataset's sessions.target_tokens"
    ]


def _length_problems(history_tokens: int, session: Session, renderer: Renderer) -> list[str]:
    first = renderer.count(_shown(session.documents[:1]), add_generation_prompt=False)
    if first > history_tokens:
        return [
            f"the first document of session {session.id} makes a history of {first} tokens, "
            f"history_tokens is {history_tokens}; raise it"
        ]
    whole = renderer.count(_shown(session.documents), add_generation_prompt=False)
    if whole < history_tokens:
        return [
            f"session {session.id} makes a history of {whole} tokens at most, history_tokens is "
            f"{history_tokens}; lower it or raise the dataset's sessions.target_tokens"
        ]
    return []


def _verbatim_tokens(session: Session, last_turns: int, renderer: Renderer) -> int:
    """Most that `last_turns` turns can hold: every second one brings a document."""
    sizes = sorted(renderer.count_text(document.text) for document in session.documents)
    return sum(sizes[len(sizes) - min(len(sizes), (last_turns + 1) // 2) :])


def _most_answer_tokens(spec: CellSpec) -> int:
    """Most tokens that one compaction request decodes: sequential's may be for all workers."""
    return _most_summary_tokens(spec) if spec.block_size_tokens is None else spec.volume_tokens


def _open_block_tokens(spec: CellSpec, session: Session, renderer: Renderer) -> int:
    """Most that an open history block which stays verbatim can hold.

    Its cut is made at the first exchange past a target, and no exchange begins past the next one.
    """
    if spec.open_block is OpenBlock.COMPACT or spec.block_size_tokens is None:
        return 0
    longest = max(
        _exchange_tokens(document, question, renderer)
        for document in session.documents
        for question in document.questions[:1] or [None]
    )
    return spec.block_size_tokens + longest


def _exchange_tokens(document: Document, question: Question | None, renderer: Renderer) -> int:
    messages = [
        {"role": "user", "content": turn_text(document, question)},
        {"role": "assistant", "content": question.answer if question else ACKNOWLEDGEMENT},
    ]
    return renderer.count(messages, add_generation_prompt=False)


def _most_summary_tokens(spec: CellSpec) -> int:
    """Most tokens of summaries that one compaction leaves."""
    if spec.budget_tokens is not None:
        return spec.budget_tokens
    size = spec.block_size_tokens
    if spec.volume_mode == VolumeMode.FORCED:
        size = spec.volume_block_size_tokens
    if size is None:
        return spec.volume_tokens
    length = spec.tau_tokens or spec.history_tokens or 0
    return -(-length // size) * spec.volume_tokens


def _tokens_beside_summaries(document: Document, renderer: Renderer) -> int:
    question = document.questions[0] if document.questions else None
    messages = [
        {"role": SYSTEM_ROLE, "content": SYSTEM_PROMPT},
        {"role": WRAPPER_ROLE, "content": wrapper_text([])},
        {"role": "user", "content": turn_text(document, question)},
    ]
    return renderer.count(messages, add_generation_prompt=True)
