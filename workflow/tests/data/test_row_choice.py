"""Rows chosen by a list of ids: the same ones from any source, in the order of the list."""

import pytest

from blockwise.data.row_choice import choose_rows
from blockwise.errors import DatasetError

OFFICIAL = [{"_id": "a"}, {"_id": "b"}, {"_id": "c"}, "no row"]


def choose(tmp_path, text, rows=OFFICIAL, id_keys=("_id", "id")):
    file = tmp_path / "ids.txt"
    file.write_text(text)
    return choose_rows(rows, file, id_keys=id_keys, origin="dev.json")


def test_rows_come_in_the_order_of_the_list(tmp_path):
    assert choose(tmp_path, "c\n\na\n") == [{"_id": "c"}, {"_id": "a"}]


def test_the_export_of_the_hub_gives_the_same_rows(tmp_path):
    exported = [{"id": row["_id"]} for row in OFFICIAL[:3]]
    assert choose(tmp_path, "c\na", exported) == [{"id": "c"}, {"id": "a"}]


def test_conversations_are_chosen_by_their_sample_id(tmp_path):
    rows = [{"sample_id": "conv-1"}, {"sample_id": "conv-2"}]
    assert choose(tmp_path, "conv-2", rows, ("sample_id",)) == [{"sample_id": "conv-2"}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\nx\ny\n", r"dev.json holds 3 rows .* 2 of the 3 .*: x, y; name a source"),
        ("a\nb\na\n", r"names a twice; mend it"),
        (" \n", r"names no row; mend it"),
    ],
)
def test_a_list_that_cannot_be_followed_is_refused(tmp_path, text, said):
    with pytest.raises(DatasetError, match=said):
        choose(tmp_path, text)


def test_a_list_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"cannot read the list of rows .*none\.txt"):
        choose_rows(OFFICIAL, tmp_path / "none.txt", id_keys=["_id"], origin="dev.json")
