"""Scoring answers by the official rules of HotpotQA and LoCoMo.

Both benchmarks compare bags of normalised words, but not the same words: HotpotQA drops
articles and punctuation; LoCoMo also drops "and" and stems what is left. Each adds one
rule that a plain F1 lacks. HotpotQA refuses partial credit where either side is a bare yes,
no or noanswer. LoCoMo scores by category: a multi-hop gold answer is a comma-separated
list whose parts are scored apart, an open-domain one carries its explanation behind a
semicolon, and an adversarial question is right only if the answer says that nothing is known.

Models that were trained on neither answer in sentences, which a word F1 takes for noise. So every
answer has a score of ours beside the official ones: whether it contains the gold answer.

Units: all scores are fractions from 0 to 1.

Source: the rules of the two official evaluation scripts (HotpotQA v1, LoCoMo task_eval),
rewritten; the comparison counts the same words in the same way.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from blockwise.config.datasets import DatasetFormat
from blockwise.data.documents import Question

HOTPOTQA_DROPPED = re.compile(r"\b(a|an|the)\b")
LOCOMO_DROPPED = re.compile(r"\b(a|an|the|and)\b")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)

CLOSED_ANSWERS = frozenset({"yes", "no", "noanswer"})
"""HotpotQA answers that are right or wrong as a whole."""

YES_OR_NO = frozenset({"yes", "no"})
"""Normalised golds that the first word of an answer must be."""

REFUSALS = ("no information available", "not mentioned")
"""LoCoMo: phrases that make the answer to an adversarial question right."""

MULTI_HOP, OPEN_DOMAIN, ADVERSARIAL = "1", "3", "5"
"""LoCoMo categories with a rule of their own; 2 and 4 are plain F1."""


@dataclass(frozen=True)
class Score:
    """One scored answer; `exact_match` is None where the official rules define none."""

    exact_match: float | None
    f1: float
    contains_gold: float  # 1 or 0; see `contains_gold`


@dataclass(frozen=True)
class Overlap:
    """How far an answer and its gold agree."""

    exact_match: float
    f1: float


def score_answer(dataset_format: DatasetFormat, answer: str, question: Question) -> Score:
    """Score one answer: by the official rules of its dataset, and by whether it has the gold.

    LoCoMo has an F1 of its own, HotpotQA (and what is in its form) EM and F1 over words.
    """
    contained = float(contains_gold(dataset_format, answer, question))
    if dataset_format is DatasetFormat.LOCOMO:
        f1 = score_locomo(answer, question.answer, category=question.category)
        return Score(exact_match=None, f1=f1, contains_gold=contained)
    overlap = score_hotpotqa(answer, question.answer)
    return Score(exact_match=overlap.exact_match, f1=overlap.f1, contains_gold=contained)


def contains_gold(dataset_format: DatasetFormat, answer: str, question: Question) -> bool:
    """Whether the normalised gold stands in the normalised answer as a run of whole words.

    Of a gold with commas it is enough that each part stands somewhere in the answer, in any
    order; parts that normalise to nothing ask for nothing. A gold of yes or no is the answer's
    first word. LoCoMo: an adversarial question wants a refusal, as in the official rule, and
    the explanation behind an open-domain gold's semicolon is no part of it. A gold that
    normalises to nothing is in no answer.

    Source: a measure of ours, with the normalisation of each official script.
    """
    gold = question.answer
    if dataset_format is DatasetFormat.LOCOMO:
        if question.category == ADVERSARIAL:
            return _is_refusal(answer)
        if question.category == OPEN_DOMAIN:
            gold = _without_explanation(gold)
    if normalize_hotpotqa(gold) in YES_OR_NO:  # unstemmed: LoCoMo's stem of yes is "ye"
        return normalize_hotpotqa(answer).split()[:1] == [normalize_hotpotqa(gold)]
    words_of = normalize_locomo if dataset_format is DatasetFormat.LOCOMO else _hotpotqa_words
    words, wanted = words_of(answer), words_of(gold)
    if not wanted:
        return False
    parts = [part for part in map(words_of, gold.split(",")) if part]
    holds_parts = bool(parts) and all(_holds_run(words, part) for part in parts)
    return holds_parts or _holds_run(words, wanted)


def normalize_hotpotqa(text: str) -> str:
    """Lower-case, without punctuation, articles and surplus whitespace."""
    return " ".join(HOTPOTQA_DROPPED.sub(" ", text.lower().translate(WITHOUT_PUNCTUATION)).split())


def score_hotpotqa(prediction: str, gold: str) -> Overlap:
    """Answer EM and F1 of HotpotQA.

    EM compares the normalised texts, so two answers that normalise to nothing match
    exactly and still share no word: EM 1, F1 0, as in the official script.
    """
    predicted, wanted = normalize_hotpotqa(prediction), normalize_hotpotqa(gold)
    exact_match = float(predicted == wanted)
    if predicted != wanted and (predicted in CLOSED_ANSWERS or wanted in CLOSED_ANSWERS):
        return Overlap(0.0, 0.0)
    return Overlap(exact_match, _word_f1(predicted.split(), wanted.split()))


def score_locomo(prediction: str, gold: str, *, category: str) -> float:
    """LoCoMo score of one answer.

    Args:
        prediction: the model's answer.
        gold: the gold answer; ignored for category 5, which has none.
        category: "1" multi-hop, "2" temporal, "3" open-domain, "4" single-hop, "5" adversarial.
    """
    if category == ADVERSARIAL:
        return float(_is_refusal(prediction))
    if category == MULTI_HOP:
        predicted_parts = prediction.split(",")
        best = [
            max(_stemmed_f1(predicted, part) for predicted in predicted_parts)
            for part in gold.split(",")
        ]
        return sum(best) / len(best)
    if category == OPEN_DOMAIN:
        gold = _without_explanation(gold)
    return _stemmed_f1(prediction, gold)


def normalize_locomo(text: str) -> list[str]:
    """Stemmed words, lower-case, without punctuation, articles and "and"."""
    bare = LOCOMO_DROPPED.sub(" ", text.lower().translate(WITHOUT_PUNCTUATION))
    return [_stem(word) for word in bare.split()]


def _is_refusal(answer: str) -> bool:
    return any(refusal in answer.lower() for refusal in REFUSALS)


def _without_explanation(gold: str) -> str:
    return gold.split(";", maxsplit=1)[0]


def _hotpotqa_words(text: str) -> list[str]:
    return normalize_hotpotqa(text).split()


def _holds_run(words: Sequence[str], run: Sequence[str]) -> bool:
    """Whether some words in a row are these."""
    size = len(run)
    return any(words[start : start + size] == run for start in range(len(words) - size + 1))


def _stemmed_f1(prediction: str, gold: str) -> float:
    return _word_f1(normalize_locomo(prediction), normalize_locomo(gold))


def _word_f1(predicted: Sequence[str], gold: Sequence[str]) -> float:
    """F1 of two bags of words: a word counts as often as both sides hold it."""
    num_shared = (Counter(predicted) & Counter(gold)).total()
    if num_shared == 0:
        return 0.0
    precision, recall = num_shared / len(predicted), num_shared / len(gold)
    return 2 * precision * recall / (precision + recall)


@cache
def _stemmer() -> Any:
    """NLTK's Porter stemmer in its default mode; imported late, it costs a second."""
    from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]  # noqa: PLC0415

    return PorterStemmer()


@lru_cache(maxsize=65_536)  # more than the distinct words of LoCoMo; bounds a long table job
def _stem(word: str) -> str:
    return str(_stemmer().stem(word))
