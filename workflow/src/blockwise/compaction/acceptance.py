"""When a worker's answer is a summary, and in which words it is refused where it is none.

Both rules that read the text count runs of words. A language that does not set its words apart has
few runs, and nothing of it is refused by them:

- a *loop*: of at least 40 runs of four words fewer than half are distinct;
- an *echo*: eight words in a row are those of the request itself, in its last message, and stand
  nowhere in the history that the worker was shown.

A third reads its beginning, in English alone: a *refusal* starts with an apology whose first
sentence says that the model cannot do it or does not know enough.

Measured on 214 summaries of Qwen2.5-Coder 0.5B and 1.5B that one reader had classed
(workflow/docs/prompts.md): 23 of 28 loops and 3 of 5 echoes are found, and none of the 105 that
say what the text says is refused. Of 154 further ones, of real data, all three rules refuse 28, all
rightly (workflow/docs/compactor.md).
"""

import re
from dataclasses import dataclass

from blockwise.config.choices import SummaryFault
from blockwise.serving.client import ChatRequest, Completion

LOOP_WORDS = 4
MIN_LOOP_RUNS = 40  # a shorter text may say one thing twice
MIN_DISTINCT_FRAC = 0.5
ECHO_WORDS = 8
REFUSAL = re.compile(
    r"(?:i['\u2019]?m sorry|i am sorry|sorry|i apologi[sz]e),? but (?:i|as an ai)\b[^.!?\n]{0,60}?"
    r"\b(?:can['\u2019]?t|cannot|unable|not able|don['\u2019]?t have|do not have)\b",
    re.IGNORECASE,
)
THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
WORD = re.compile(r"\w+")


IN_WORDS = {
    SummaryFault.LENGTH: "its budget of tokens ended it in mid-sentence; raise the volume",
    SummaryFault.EMPTY: "it holds no word; raise the volume or change the prompt",
    SummaryFault.CONTENT_FILTER: "the server filtered it; leave out what it objects to",
    SummaryFault.TOOL_CALLS: "it calls a tool; use a model that can be told to write text",
    SummaryFault.ECHO: "it repeats what it was asked; use another prompt or a larger model",
    SummaryFault.REFUSAL: "the model refuses; use another prompt or another model",
    SummaryFault.LOOP: "it says one thing over and over; use a repetition penalty, a larger model",
}


@dataclass(frozen=True)
class Answer:
    """What a worker came to."""

    request: ChatRequest  # the one that was answered
    completion: Completion
    fault: SummaryFault | None
    refused: tuple[Completion, ...]


def summary_of(answer: Completion) -> str:
    """The text that stays: without thinking, also where the server leaves that in the text."""
    return THINKING.sub("", answer.text).strip()


def fault_of(answer: Completion, request: ChatRequest) -> SummaryFault | None:
    """Why an answer is no summary; None: it is one.

    Args:
        answer: of a worker whose volume is its own; one of forced volume always ends by length.
        request: what it was asked.
    """
    for fault in (SummaryFault.CONTENT_FILTER, SummaryFault.TOOL_CALLS):
        if answer.finish_reason == fault:
            return fault
    text = summary_of(answer)
    if not WORD.search(text):
        return SummaryFault.EMPTY
    if REFUSAL.match(text):
        return SummaryFault.REFUSAL
    if _is_loop(text):  # before the length: a larger budget would only make it longer
        return SummaryFault.LOOP
    if _is_echo(text, request):
        return SummaryFault.ECHO
    return SummaryFault.LENGTH if answer.finish_reason == SummaryFault.LENGTH else None


def _is_loop(text: str) -> bool:
    runs = _runs(text, LOOP_WORDS)
    return len(runs) >= MIN_LOOP_RUNS and len(set(runs)) < MIN_DISTINCT_FRAC * len(runs)


def _is_echo(text: str, request: ChatRequest) -> bool:
    *shown, asked = (str(message.get("content") or "") for message in request.messages)
    repeated = set(_runs(text, ECHO_WORDS)) & set(_runs(asked, ECHO_WORDS))
    if not repeated:
        return False
    in_history = {run for message in shown for run in _runs(message, ECHO_WORDS)}
    return not repeated <= in_history


def _runs(text: str, num_words: int) -> list[tuple[str, ...]]:
    """All runs of so many words, in order."""
    words = WORD.findall(text.lower())
    return [tuple(words[at : at + num_words]) for at in range(len(words) - num_words + 1)]
