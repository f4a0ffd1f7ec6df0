import hashlib
import io

import pytest

from blockwise.errors import ArtifactError
from blockwise.run import listing
from blockwise.run.manifest import Manifest


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {
        "results/default/tables/cells.csv": 'cell,text\n1,"two\nlines"\n2,plain\n',
        "results/default/tables/PROVENANCE.json": "{}",
        "figures/default/wall.csv": "x\n1\n",
        "figures/default/wall.pdf": "pdf",
        "figures/default/wall.png": "png",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "results/default/tables/of_an_older_config.csv").write_text("x\n1\n")
    return Manifest(
        commit=None,
        dirty=None,
        packages={},
        written_at="",
        command="",
        files={name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()},
    )


def test_tables_come_with_their_rows_and_leftovers_are_not_shown(manifest):
    assert listing.list_tables(manifest) == [("results/default/tables/cells.csv", 2)]


def test_figures_come_once_with_their_formats(manifest):
    assert listing.list_figures(manifest) == [("figures/default/wall", "pdf png")]


def test_paths_are_printed_whole_on_a_narrow_terminal(manifest, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = io.StringIO()
    listing.print_listing(manifest, stream)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert "results/default/tables/cells.csv     2" in lines
    assert "figures/default/wall  pdf png" in lines


def test_a_table_that_has_gone_is_named_with_the_remedy(manifest, tmp_path):
    (tmp_path / "results/default/tables/cells.csv").unlink()
    with pytest.raises(ArtifactError, match=r"tables/cells\.csv.*make verify"):
        listing.list_tables(manifest)
