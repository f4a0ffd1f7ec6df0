"""Scoring answers: what the rules of all formats share.

Official rules compare bags of normalised words. Which words count, and what else is asked of an
answer, is each format's own (`blockwise.data.formats`).

Models that were trained on no benchmark answer in sentences, which a word F1 takes for noise. So
every answer has a score of ours beside the official ones: whether it contains the gold answer.

Units: all scores are fractions from 0 to 1.

Source: the normalisation and the F1 of SQuAD's evaluation script, which HotpotQA took over,
rewritten; the comparison counts the same words in the same way.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

ARTICLES = re.compile(r"\b(a|an|the)\b")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)

YES_OR_NO = frozenset({"yes", "no"})
"""Normalised golds that the first word of an answer must be."""


@dataclass(frozen=True)
class Score:
    """One scored answer; `exact_match` is None where the official rules define none."""

    exact_match: float | None
    f1: float
    contains_gold: float  # 1 or 0; see `contains_gold`


def normalize(text: str, dropped: re.Pattern[str] = ARTICLES) -> str:
    """Lower-case, without punctuation, articles (or other dropped words) and surplus whitespace."""
    return " ".join(dropped.sub(" ", text.lower().translate(WITHOUT_PUNCTUATION)).split())


def plain_words(text: str) -> list[str]:
    """The words of a text that count where nothing else is said: unstemmed, without articles."""
    return normalize(text).split()


def word_f1(predicted: Sequence[str], gold: Sequence[str]) -> float:
    """F1 of two bags of words: a word counts as often as both sides hold it."""
    num_shared = (Counter(predicted) & Counter(gold)).total()
    if num_shared == 0:
        return 0.0
    precision, recall = num_shared / len(predicted), num_shared / len(gold)
    return 2 * precision * recall / (precision + recall)


def contains_gold(
    answer: str, gold: str, words_of: Callable[[str], list[str]] = plain_words
) -> bool:
    """Whether the normalised gold stands in the normalised answer as a run of whole words.

    Of a gold with commas it is enough that each part stands somewhere in the answer, in any
    order; parts that normalise to nothing ask for nothing. A gold of yes or no is the answer's
    first word. A gold that normalises to nothing is in no answer.

    Args:
        answer: what the model said.
        gold: the gold answer.
        words_of: the words of a text that count.

    Source: a measure of ours, with the normalisation of each official script.
    """
    if normalize(gold) in YES_OR_NO:  # unstemmed: the Porter stem of yes is "ye"
        return plain_words(answer)[:1] == [normalize(gold)]
    words, wanted = words_of(answer), words_of(gold)
    if not wanted:
        return False
    parts = [part for part in map(words_of, gold.split(",")) if part]
    holds_parts = bool(parts) and all(_holds_run(words, part) for part in parts)
    return holds_parts or _holds_run(words, wanted)


def is_refusal(answer: str, phrases: Iterable[str]) -> bool:
    """Whether an answer says, in one of these lower-case phrases, that it is not known."""
    return any(phrase in answer.lower() for phrase in phrases)


def _holds_run(words: Sequence[str], run: Sequence[str]) -> bool:
    """Whether some words in a row are these."""
    size = len(run)
    return any(words[start : start + size] == run for start in range(len(words) - size + 1))
