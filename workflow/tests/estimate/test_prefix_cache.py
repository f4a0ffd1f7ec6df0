"""What the dry engine takes for cached."""

import pytest

from blockwise.estimate.dry_engine import PrefixCache
from blockwise.serving.engine import ChatRequest


class Letters:
    """A token a letter, and one a message."""

    def count(self, messages, add_generation_prompt):
        return sum(1 + len(one["content"]) for one in messages) + add_generation_prompt

    def count_text(self, text):
        return len(text)


def sent(cache, *contents):
    messages = [{"role": "user", "content": content} for content in contents]
    return cache.cached_tokens(ChatRequest(messages, 1), Letters().count(messages, True))


@pytest.mark.parametrize(("finds_cut_history", "cut", "whole"), [(True, 22, 34), (False, 0, 33)])
def test_a_cut_history_is_found_where_the_engine_finds_parts(finds_cut_history, cut, whole):
    cache = PrefixCache(Letters(), 1, finds_cut_history)
    assert sent(cache, "a" * 10, "b" * 10, "c" * 10) == 0
    assert sent(cache, "a" * 10, "b" * 10, "x") == cut
    # With the opening of the answer; where parts are not found, what it could find again itself.
    assert sent(cache, "a" * 10, "b" * 10, "c" * 10, "d") == whole


@pytest.mark.parametrize("finds_cut_history", [True, False])
def test_a_repeated_prompt_is_found_but_for_its_last_token(finds_cut_history):
    cache = PrefixCache(Letters(), 1, finds_cut_history)
    sent(cache, "a" * 10)
    assert sent(cache, "a" * 10) == 11
