"""The contract's table is that of the tests, and every line of the contract has one."""

import pytest

from blockwise.dev.contract_table import BEGIN, END, PAGE, page_text, table
from blockwise.errors import ArtifactError

LINES = {
    "A": range(1, 7),
    "B": range(1, 6),
    "C": range(1, 8),
    "D": range(1, 7),
    "E": range(1, 5),
}


def test_every_line_of_the_contract_has_a_test():
    rows = [row.split("|")[1].strip() for row in table().splitlines()[2:]]
    assert rows == [*(f"{part}{number}" for part in LINES for number in LINES[part]), "F"]


def test_the_page_holds_the_table_of_now():
    text = PAGE.read_text(encoding="utf-8")
    assert page_text(text) == text


def test_only_what_stands_between_the_marks_is_written():
    assert page_text(f"a\n{BEGIN}\nold\n{END}\nb") == f"a\n{BEGIN}\n{table()}\n{END}\nb"
    with pytest.raises(ArtifactError, match="put them where the table stands"):
        page_text("a page without marks")
