"""Which questions a score of recall is over: the headline, or a category that stands apart.

Recall is that of questions that only the text answers. LoCoMo's open-domain questions, which a
model answers from what it knows, and its adversarial ones, which a refusal answers, have rows of
their own and enter nothing else (METHOD, Gates).
"""

from blockwise.config.datasets import DatasetFormat
from blockwise.data.formats.locomo import HEADLINE_CATEGORIES
from blockwise.tables.columns import text

HEADLINE = "headline"
CATEGORIES = text(
    "categories",
    "Questions of the row. headline: those that only the text answers (HotpotQA: all; LoCoMo: "
    "categories 1, 2 and 4); 3, 5: LoCoMo's open-domain and adversarial ones, apart.",
)


def categories_of(dataset_format: str, category: str) -> str:
    """`headline`, or the category of the question where it stands apart."""
    if dataset_format == DatasetFormat.LOCOMO and category not in HEADLINE_CATEGORIES:
        return category
    return HEADLINE
