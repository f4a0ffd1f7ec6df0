"""The tokenizer of pocket backbones: the words of the synthetic language, bytes for the rest.

A word is a token together with the space behind it. An invented name is two: its first syllables
up to the second vowel, which nearly always tell it apart from the other names around and are the
same wherever it stands, and the rest. A number of the language is one token, any other is cut
after every second digit. Text of other languages falls back to bytes: it round-trips, and costs a
token a byte.

The pieces are a closed list, so nothing is trained: a unigram model in which every piece costs
the same takes the fewest pieces.
"""

import random
import re
from collections.abc import Iterable, Mapping

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from blockwise.config.datasets import Split
from blockwise.data.vocabulary import CODAS, ONSETS, VOWELS
from blockwise.models.random_backbone import BOS_TOKEN, CHAT_TEMPLATE, END_TOKEN, ROLE_TOKENS
from blockwise.pocket.lessons import LONG_NUMBERS, make_lessons

THINK_TOKENS = ("<think>", "</think>")
"""Tokens of their own, but not special: a server leaves special tokens out of the text that its
reasoning parser splits."""

SPECIAL_TOKENS = (BOS_TOKEN, END_TOKEN, *ROLE_TOKENS)
WORD_PATTERN = r"\d+|[^\W\d]\w* ?|\n+|[^\w\s] ?|\s"
"""What is never cut across: digits, a word with its space, a mark with its space, line breaks.

The space behind a number is a token of its own, so that a number is the same token in the
middle of a sentence, at its end, and as an answer.
"""

NAME = re.compile(
    rf"(?:{'|'.join(ONSETS)})(?:{'|'.join(VOWELS)})" * 2 + rf"(?:{'|'.join(CODAS)})", re.I
)
PIECE_SCORE, BYTE_SCORE = -1.0, -100.0
NUM_LESSONS = 600  # whose words are the vocabulary; a test proves that more add nothing
FACTS_PER_LESSON = 40


def make_tokenizer(prompts: Mapping[str, str]) -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template.

    Args:
        prompts: compaction prompts by name, whose words belong to the language.
    """
    pieces = [*_bytes(), *_numbers(), *_name_pieces(), *_words(prompts)]
    vocabulary = [(token, 0.0) for token in (*SPECIAL_TOKENS, *THINK_TOKENS)]
    vocabulary += [(piece, _score(piece)) for piece in dict.fromkeys(pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in THINK_TOKENS])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=BOS_TOKEN,
        eos_token=END_TOKEN,
        additional_special_tokens=list(ROLE_TOKENS),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def is_name(word: str) -> bool:
    """Whether a word is an invented one."""
    return NAME.fullmatch(word) is not None


def _score(piece: str) -> float:
    return BYTE_SCORE if piece.startswith("<0x") else PIECE_SCORE


def _bytes() -> list[str]:
    return [f"<0x{value:02X}>" for value in range(256)]


def _numbers() -> list[str]:
    short = [str(value) for value in range(10)] + [f"{value:02d}" for value in range(100)]
    first, last = LONG_NUMBERS  # each one token
    return short + [str(value) for value in range(first, last + 1)]


def _name_pieces() -> list[str]:
    firsts = [f"{a}{b}{c}".capitalize() for a in ONSETS for b in VOWELS for c in ONSETS]
    return firsts + [f"{b}{c}{space}" for b in VOWELS for c in CODAS for space in ("", " ")]


def _words(prompts: Mapping[str, str]) -> list[str]:
    found = {word for text in _texts(prompts) for word in re.findall(WORD_PATTERN, text)}
    return sorted(
        word for word in found if not is_name(word.strip()) and not word.strip().isdecimal()
    )


def _texts(prompts: Mapping[str, str]) -> Iterable[str]:
    rng = random.Random("vocabulary")
    yield from prompts.values()
    for _ in range(NUM_LESSONS):
        for lesson in make_lessons(rng, FACTS_PER_LESSON, Split.TRAIN, prompts):
            for messages, reply in lesson.conversations:
                yield from (message["content"] for message in messages)
                yield from (reply.thought, reply.text)
