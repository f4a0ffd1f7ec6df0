"""The backbone's chat template and tokenizer on our side: a request's length before it is sent.

The agent must know the length of its next request at every turn, and a session grows to 96k
tokens; tokenising all of it at every turn would cost more client time than the compaction under
study. Special tokens are cut out of a text before anything else is tokenised, so the pieces
between them never influence each other: their tokens are computed once and kept, and a
conversation that grew by a turn costs the tokens of that turn; where the template is plain, not
even its rendering (`plain_template`). Each renderer proves on a
sample, when it is made, that this gives exactly the tokenizer's own result, and falls back
to whole texts where it does not.
"""

import copy
import json
import re
import threading
from array import array
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

from jinja2 import TemplateError

from blockwise.errors import ConfigError, EngineError
from blockwise.models import plain_template, round_template, tool_text
from blockwise.models.plain_template import RenderText
from blockwise.models.tokenizer import load_tokenizer

Message = dict[str, Any]
"""An OpenAI-style message: role, content, and perhaps tool_calls or tool_call_id."""

NUM_CACHED_SEGMENTS = 32768  # of an agent that runs for days; about 15 MB of messages of 100 tokens
PLAIN_KEYS = {"role", "content"}
END_MARK = "\ue000\ue001"  # private-use characters, which no text of a conversation holds
SAMPLE: tuple[Message, ...] = (
    {"role": "user", "content": "  Where is Mira?\n\nShe lives in Tarvos; since 1987. \n"},
    {"role": "assistant", "content": "\tIn Tarvos — naïve 日本 🙂  "},
    {"role": "user", "content": "<b>Thanks</b>"},
)
"""Leading, trailing and doubled white space and wide characters: what tokenizers differ in."""


class CountedBy(StrEnum):
    """Whence numbers of tokens are."""

    TOKENIZER = "tokenizer"  # exact
    SERVER = "server"  # by length, in proportion to what the server counts of a whole
    LENGTH = "length"  # by length: an estimate


class Renderer:
    """Renders, counts and cuts text exactly as the backbone's server does."""

    counted_by = CountedBy.TOKENIZER

    def __init__(
        self,
        tokenizer_path: str,
        chat_template_arguments: Mapping[str, Any] | None = None,
        revision: str | None = None,
    ) -> None:
        """Load a tokenizer.

        Args:
            tokenizer_path: a local folder (nothing is fetched) or a hub id.
            chat_template_arguments: extra variables of the template, e.g. a pinned date.
            revision: commit of a hub id.

        Raises:
            ConfigError: there is no fast tokenizer with a chat template.
        """
        try:
            self._tokenizer: Any = load_tokenizer(tokenizer_path, revision)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cannot load a tokenizer from {tokenizer_path}: {error}. Name a folder or hub id "
                "with tokenizer files"
            ) from error
        if not self._tokenizer.is_fast:
            raise ConfigError(
                f"{tokenizer_path} has no fast tokenizer (tokenizer.json), which token boundaries "
                "need; name a model that has one"
            )
        if not self._tokenizer.chat_template:
            raise ConfigError(
                f"{tokenizer_path} has no chat template; use an instruction-tuned model or add "
                "chat_template.jinja"
            )
        self._lock = threading.Lock()  # the tokenizer's own library takes one caller at a time
        self._arguments = dict(chat_template_arguments or {})
        self._borders, self._safe_borders = _border_tokens(self._tokenizer)
        self._segment_ids = lru_cache(maxsize=NUM_CACHED_SEGMENTS)(self._tokenize_segment)
        self.shows_tool_rounds = self._shows_tool_rounds()
        if not self._segments_are_exact():
            self._borders = None
        self._learn_template()
        self.takes_user_runs = self._takes_user_runs()

    def with_tools(self, tools: Sequence[Mapping[str, Any]]) -> "Renderer":
        """The same renderer for requests that offer these tools, which templates write out."""
        other = copy.copy(self)
        other._arguments = {**self._arguments, "tools": [dict(tool) for tool in tools]}
        other._learn_template(self.render_text)
        return other

    def render(self, messages: Sequence[Message], add_generation_prompt: bool) -> list[int]:
        """Token ids of the rendered conversation.

        Raises:
            EngineError: the chat template refuses the conversation.
        """
        text = self.render_text(messages, add_generation_prompt)
        return [token for segment in self._split(text) for token in self._segment_ids(segment)]

    def count(self, messages: Sequence[Message], add_generation_prompt: bool) -> int:
        """Length of `render`; a conversation seen before costs only its new text."""
        rounds = self._count_by_round(messages)
        if rounds is None:
            return self._count_rendered(self.render_text(messages, add_generation_prompt))
        tokens = sum(tokens for _, tokens in rounds)
        return tokens + self._prompt_tokens if add_generation_prompt else tokens

    def ends(self, messages: Sequence[Message]) -> list[int]:
        """`count(messages[:i + 1], False)` for every i, at the cost of two renderings or none.

        Inside a tool round, where a conversation cannot be parted, ends stand in proportion to the
        texts if the template is counted by rounds. One that is not is rendered with a mark after
        each content; where the rest is then what it is without marks, and every turn closes in the
        same way at a border token, the marks tell where turns end. A template that breaks any of
        this is rendered turn by turn.
        """
        rounds = self._count_by_round(messages)
        if rounds is not None:
            return self._ends_of_rounds(messages, rounds)
        marked = [
            {**message, "content": f"{message.get('content') or ''}{END_MARK}"}
            for message in messages
        ]
        pieces = self.render_text(marked, add_generation_prompt=False).split(END_MARK)
        text = "".join(pieces)
        closing = pieces[-1]
        is_plain = (
            len(pieces) == len(messages) + 1
            and all(piece.startswith(closing) for piece in pieces[1:])
            and text == self.render_text(messages, add_generation_prompt=False)
        )
        tokens_at = self._tokens_by_end(text) if is_plain else {}
        stops = [stop + len(closing) for stop in accumulate(map(len, pieces[:-1]))]
        if is_plain and all(stop in tokens_at for stop in stops):
            return [tokens_at[stop] for stop in stops]
        return [
            self.count(messages[: index + 1], add_generation_prompt=False)
            for index in range(len(messages))
        ]

    def _ends_of_rounds(
        self, messages: Sequence[Message], rounds: Sequence[tuple[int, int]]
    ) -> list[int]:
        ends: list[int] = []
        before = 0
        for stop, tokens in rounds:
            if stop - len(ends) > 1:
                sizes = [self.count_text(one["content"]) + 1 for one in messages[len(ends) : stop]]
                shares = accumulate(sizes[:-1])
                ends += [before + tokens * share // sum(sizes) for share in shares]
            before += tokens
            ends.append(before)
        return ends

    def _tokens_by_end(self, text: str) -> dict[int, int]:
        """Tokens of a text up to the end of each of its segments, by the character it ends at."""
        tokens_at, chars, tokens = {}, 0, 0
        for segment in self._split(text):
            chars += len(segment[0]) + len(segment[1])
            tokens += len(self._segment_ids(segment))
            tokens_at[chars] = tokens
        return tokens_at

    def render_text(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        """The conversation as the template writes it, special tokens included."""
        return self._written(self.shown(messages), add_generation_prompt)

    def shown(self, messages: Sequence[Message]) -> list[Message]:
        """The messages with tool rounds in words, where the template would leave them out."""
        return list(messages) if self.shows_tool_rounds else tool_text.in_words(messages)

    def _written(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        try:
            rendered = self._tokenizer.apply_chat_template(
                [_with_parsed_tool_calls(message) for message in messages],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **self._arguments,
            )
        except (TemplateError, IndexError) as error:  # IndexError: transformers, no message at all
            roles = ", ".join(str(message.get("role")) for message in messages)
            raise EngineError(
                f"the chat template refuses a conversation of the roles [{roles}]: {error}"
            ) from error
        return str(rendered)

    def count_text(self, text: str) -> int:
        """Tokens of a bare text; no special token is added."""
        return len(self._encode(text))

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Characters [start, stop) of each token of a bare text, in order.

        A token starts where the one before it ends, white space included, so a text cut at a
        start loses nothing. Tokens that share one character (bytes of a wide one) share its
        offsets: a start is always a place between two characters.
        """
        with self._lock:
            encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        offsets: list[tuple[int, int]] = []
        previous_start, previous_stop = 0, 0
        for raw_start, raw_stop in encoded["offset_mapping"]:
            start = previous_start if raw_start < previous_stop else previous_stop
            stop = max(raw_stop, start)
            offsets.append((start, stop))
            previous_start, previous_stop = start, stop
        return offsets

    def prefix_break(self, messages: Sequence[Message]) -> str | None:
        """Name the first turn after which the rendering of the earlier ones changes.

        The engine's cache, and the claim that a compaction reuses the agent's prefix, need
        render(turns 1..i) to be a token prefix of render(turns 1..i+1) for every i.
        """
        rendered = []
        for stop in range(1, len(messages) + 1):
            try:
                rendered.append(self.render(messages[:stop], add_generation_prompt=False))
            except EngineError as error:
                return f"turn {stop} ({messages[stop - 1]['role']}): {error}"
        for turn, (shorter, longer) in enumerate(pairwise(rendered), start=2):
            if longer[: len(shorter)] != shorter:
                same = next(
                    (i for i, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b),
                    len(longer),
                )
                return (
                    f"turn {turn} ({messages[turn - 1]['role']}): adding it changes the rendering "
                    f"of the turns before it from token {same} of {len(shorter)} on"
                )
        return None

    def _encode(self, text: str) -> list[int]:
        with self._lock:
            return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _split(self, text: str) -> list[tuple[str, str]]:
        """Cut a text before each border token: pairs of (border token or "", text after it)."""
        parts = self._borders.split(text) if self._borders is not None else [text]
        segments = [("", parts[0])] if parts[0] else []
        for border, rest in zip(parts[1::2], parts[2::2], strict=True):
            if border in self._safe_borders or not segments:
                segments.append((border, rest))
            else:  # it eats its neighbours' white space, so it is no place to cut
                opening, before = segments[-1]
                segments[-1] = (opening, before + border + rest)
        return segments

    def _tokenize_segment(self, segment: tuple[str, str]) -> "array[int]":
        border, text = segment
        return array("I", self._encode(border + text))  # 4 bytes a token: thousands are kept

    def _shows_tool_rounds(self) -> bool:
        """Whether the model reads calls, their arguments and their results."""
        messages, texts = tool_text.round_that_shows()
        text = self._text_or_none(messages, add_generation_prompt=True)
        return text is not None and all(word in text for word in texts)

    def _text_or_none(self, messages: Sequence[Message], add_generation_prompt: bool) -> str | None:
        try:
            return self._written(messages, add_generation_prompt)
        except EngineError:
            return None

    def _takes_user_runs(self) -> bool:
        """Whether two messages of the user's may follow each other: some templates refuse it."""
        run = [{"role": "user", "content": text} for text in ("One.", "Two.")]
        return self._text_or_none(run, add_generation_prompt=True) is not None

    def _learn_template(self, render_bare: RenderText | None = None) -> None:
        """How messages and tool rounds are wrapped, where each begins at a place to cut a text."""
        source = self._tokenizer.chat_template
        plain = plain_template.learn(source, self.render_text)
        rounds = round_template.learn(source, self.render_text, render_bare or self.render_text)
        starts = [] if plain is None else [*plain.openings.values(), plain.generation_prompt]
        self._plain = plain if self._begin_at_borders(starts) else None
        prompts = [] if rounds is None else [rounds.generation_prompt]
        self._rounds = rounds if self._begin_at_borders(prompts) else None
        learnt = self._plain or self._rounds
        self._prompt_tokens = self._count_rendered(learnt.generation_prompt) if learnt else 0
        cached = lru_cache(maxsize=NUM_CACHED_SEGMENTS)
        self._message_tokens = cached(self._count_message)
        self._head_tokens = cached(self._count_head)
        self._round_tokens = cached(self._count_round)

    def _begin_at_borders(self, texts: Sequence[str]) -> bool:
        """Whether each of these texts may safely be cut from what stands before it."""
        if self._borders is None:
            return False
        return all(text.startswith(tuple(self._safe_borders)) for text in texts if text)

    def count_added(self, messages: Sequence[Message]) -> list[tuple[int, int]] | None:
        """Where each round ends that is appended to a conversation, and the tokens it adds.

        None where only rendering the whole conversation can tell.
        """
        return self._count_by_round(messages, is_head=False)

    def _count_by_round(
        self, messages: Sequence[Message], *, is_head: bool = True
    ) -> list[tuple[int, int]] | None:
        """Where each round ends, and its tokens; None where the conversation has to be rendered."""
        if not messages or (self._plain is None and self._rounds is None):
            return None
        counted: list[tuple[int, int]] = []
        start = 0
        if is_head and self._plain is None:
            start = round_template.head_stop(messages)
            counted += self._count_system(messages[: round_template.system_stop(messages)])
            before = sum(tokens for _, tokens in counted)
            if not counted or counted[-1][0] < start:
                counted.append((start, self._head_tokens(_key_of(messages[:start])) - before))
        while start < len(messages):
            message = messages[start]
            stop = start + 1
            if self._plain is not None and message.keys() == PLAIN_KEYS:
                tokens = self._message_tokens(
                    message["role"], message["content"], is_head and start == 0
                )
            else:
                stop = round_template.round_stop(messages, start)
                key = _key_of(messages[start:stop])
                tokens = self._round_tokens(key) if start or not is_head else None
            if tokens is None:
                return None
            counted.append((stop, tokens))
            start = stop
        return counted

    def _count_system(self, messages: Sequence[Message]) -> list[tuple[int, int]]:
        """Leading system messages alone; nothing where the template wants a user's behind them."""
        try:
            return [(len(messages), self._head_tokens(_key_of(messages)))] if messages else []
        except EngineError:
            return []

    def _count_message(self, role: str, content: object, is_first: bool) -> int | None:
        assert self._plain is not None
        text = self._plain.wrap(role, content, is_first=is_first)
        return None if text is None else self._count_rendered(text)

    def _count_head(self, key: str) -> int:
        assert self._rounds is not None
        return self._count_rendered(self._rounds.head_text(json.loads(key)))

    def _count_round(self, key: str) -> int | None:
        pair = self._rounds.with_round(json.loads(key)) if self._rounds is not None else None
        if pair is None:
            return None
        shorter, longer = pair
        is_cut = self._begin_at_borders([longer[len(shorter) :]]) or shorter.endswith(
            tuple(self._safe_borders)
        )
        return self._count_rendered(longer) - self._count_rendered(shorter) if is_cut else None

    def _count_rendered(self, text: str) -> int:
        return sum(map(len, map(self._segment_ids, self._split(text))))

    def _segments_are_exact(self) -> bool:
        """Whether segment by segment equals the whole text, on conversations of one to three."""
        for stop in range(1, len(SAMPLE) + 1, 2):  # they end with the user, as templates ask
            text = self.render_text(SAMPLE[:stop], add_generation_prompt=True)
            by_segment = [t for segment in self._split(text) for t in self._segment_ids(segment)]
            if by_segment != self._encode(text):
                return False
        return True


def _border_tokens(tokenizer: Any) -> tuple[re.Pattern[str] | None, frozenset[str]]:
    """All added tokens, longest first, and those at which a text may safely be cut.

    A token that strips white space or stands only as a single word depends on its
    neighbours, so it is matched (it may hide a border) but is none itself.
    """
    added = list(tokenizer.added_tokens_decoder.values())
    safe = {t.content for t in added if not (t.lstrip or t.rstrip or t.single_word or t.normalized)}
    if not safe:
        return None, frozenset()
    alternatives = sorted((token.content for token in added), key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, alternatives))})"), frozenset(safe)


def _key_of(messages: Sequence[Message]) -> str:
    return json.dumps(messages, ensure_ascii=False)


def _with_parsed_tool_calls(message: Message) -> Message:
    """Tool-call arguments as objects: templates expect it, and vLLM hands them over so."""
    if "tool_calls" not in message:
        return message
    calls = message["tool_calls"]
    if not calls:  # templates ask whether the key is there
        return {key: value for key, value in message.items() if key != "tool_calls"}
    parsed = copy.deepcopy(calls)
    for call in parsed:
        function = call.get("function", {})
        arguments = function.get("arguments") or {}
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except ValueError:
                arguments = {}
        function["arguments"] = arguments if isinstance(arguments, dict) else {}
    return {**message, "tool_calls": parsed}
