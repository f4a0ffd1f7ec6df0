"""Which questions a score of recall is over: the headline, or a category that stands apart.

Recall is that of questions that only the text answers; the format of a dataset declares their
categories. LoCoMo's open-domain questions, which a
model answers from what it knows, and its adversarial ones, which a refusal answers, have rows of
their own and enter nothing else (METHOD, Gates).
"""

from blockwise.data.dataset_format import load_format
from blockwise.tables.columns import text

HEADLINE = "headline"
CATEGORIES = text(
    "categories",
    "Questions of the row. headline: those that only the text answers (HotpotQA: all; LoCoMo: "
    "categories 1, 2 and 4); 3, 5: LoCoMo's open-domain and adversarial ones, apart.",
)


def categories_of(dataset_format: str, category: str) -> str:
    """`headline`, or the category of the question where it stands apart."""
    headline = load_format(dataset_format).headline_categories
    return HEADLINE if headline is None or category in headline else category
