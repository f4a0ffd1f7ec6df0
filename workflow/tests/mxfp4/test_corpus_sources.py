"""Where the text of a corpus comes from: which files, which side of the split, which hub rows."""

import gzip
import json
import platform

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwise.config.corpora import HubCorpus, StdlibCorpus, StdlibDocsCorpus
from blockwise.errors import ConfigError, DatasetError
from blockwise.mxfp4 import texts
from blockwise.mxfp4.corpus import prepare_corpus
from blockwise.mxfp4.documentation import module_text
from blockwise.mxfp4.texts import open_source, split_by_file
from prepared_text import BYTES, texts_of

# --- files ------------------------------------------------------------------------------


@given(st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=300))
def test_every_file_is_on_one_side(names):
    train, validation = split_by_file(sorted(names))
    assert sorted(train + validation) == sorted(names)
    assert train
    assert validation
    assert split_by_file(sorted(names, reverse=True)) == (train, validation)


def test_about_one_file_in_fifty_validates_and_a_new_one_moves_no_other():
    names = [f"{index}.py" for index in range(5000)]
    _, validation = split_by_file(names)
    assert 70 <= len(validation) <= 130
    assert set(validation) <= set(split_by_file([*names, "new.py"])[1])


def test_standard_library_is_a_corpus(tmp_path):
    card = prepare_corpus(StdlibCorpus(kind="stdlib"), BYTES, tmp_path, tmp_path)
    assert platform.python_version() in card.source
    assert "another version is another text" in card.source
    assert card.num_validation_tokens > 20_000
    assert card.num_train_tokens > 5_000_000


def test_documentation_is_prose_of_modules_and_topics_and_its_tenth_validates(tmp_path):
    source = open_source(StdlibDocsCorpus(kind="stdlib_docs"), tmp_path)
    train, validation = list(source.train.pieces), list(source.validation.pieces)
    assert all(piece.ends_document and piece.text.strip() for piece in [*train, *validation])
    share = len(validation) / (len(train) + len(validation))
    assert 0.05 < share < 0.15
    text = "".join(piece.text for piece in train)
    assert len(text) > 1_000_000
    assert "self._lock = " not in text  # docstrings and topics, not the code around them
    assert source.train.total == len(train)


def test_a_module_that_is_no_python_is_named(tmp_path):
    (tmp_path / "broken.py").write_text("def")
    with pytest.raises(DatasetError, match=r"cannot read the documentation of .*broken\.py"):
        module_text(tmp_path / "broken.py")
    (tmp_path / "two.py").write_text('"""One."""\n\nclass A:\n    """Two."""\n\nx = 1\n')
    assert module_text(tmp_path / "two.py") == "One.\n\nTwo."


def test_standard_library_without_tests_and_what_the_machine_adds(tmp_path, monkeypatch):
    stdlib = tmp_path / "stdlib"
    wanted = ["ast.py", "json/decoder.py", "testing.py"]
    unwanted = ["test/test_ast.py", "idlelib/idle_test/a.py", "site-packages/torch/nn.py"]
    unwanted += ["__pycache__/ast.py", "_sysconfigdata__linux.py", "config-3.11/python-config.py"]
    for name in [*wanted, *unwanted, "sitecustomize.py", "LICENSE.txt"]:
        (stdlib / name).parent.mkdir(parents=True, exist_ok=True)
        (stdlib / name).write_text(f"{name}\n")
    monkeypatch.setattr(texts.sysconfig, "get_paths", lambda: {"stdlib": str(stdlib)})
    prepare_corpus(StdlibCorpus(kind="stdlib"), BYTES, tmp_path / "corpus", tmp_path)
    assert sorted("".join(texts_of(tmp_path / "corpus")).split()) == wanted


# --- hub --------------------------------------------------------------------------------


@pytest.fixture
def hub_folder(tmp_path):
    """A local dataset laid out as C4 is."""
    folder = tmp_path / "hub" / "c4"
    for split, num_shards in (("train", 3), ("validation", 2)):
        for shard in range(num_shards):
            path = folder / "en" / f"c4-{split}.{shard:05d}-of-{num_shards:05d}.json.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [{"text": f"{split} {shard}.{row}\n", "url": "x"} for row in range(30)]
            path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return folder


def hub(folder, **changes):
    values = {
        "kind": "hub",
        "id": str(folder),
        "train_files": ["en/c4-train.00001-*.json.gz", "en/c4-train.00002-*.json.gz"],
        "validation_files": ["en/c4-validation.*.json.gz"],
        "max_train_tokens": 500,
        "max_validation_documents": 40,
    }
    return HubCorpus(**{**values, **changes})


def test_hub_is_streamed_up_to_its_limits(hub_folder, tmp_path):
    card = prepare_corpus(hub(hub_folder), BYTES, tmp_path / "corpus", tmp_path / "cache")
    train, validation = texts_of(tmp_path / "corpus")
    documents = [f"train {shard}.{row}\n" for shard in (1, 2) for row in range(30)]
    assert train == "".join(documents)[:500]
    documents = [f"validation {shard}.{row}\n" for shard in (0, 1) for row in range(30)]
    assert validation == "".join(documents[:40])
    assert card.num_train_tokens == 500
    for word in (str(hub_folder), "500 tokens", "c4-train.00001", "40 documents"):
        assert word in card.source


def test_hub_that_ends_before_its_limit_is_taken_whole(hub_folder, tmp_path):
    source = hub(hub_folder, max_train_tokens=10**9, max_validation_documents=10**9)
    prepare_corpus(source, BYTES, tmp_path / "corpus", tmp_path / "cache")
    train, validation = texts_of(tmp_path / "corpus")
    assert train.count("\n") == 60
    assert validation.count("\n") == 60


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_files": ["en/absent-*.json.gz"]}, ["cannot load", "absent", "kind: path"]),
        ({"text_column": "body"}, ["row 0", "'body'", "text, url", "text_column"]),
    ],
)
def test_hub_failure_names_the_remedy(hub_folder, tmp_path, changes, words):
    with pytest.raises(DatasetError) as caught:
        prepare_corpus(hub(hub_folder, **changes), BYTES, tmp_path / "corpus", tmp_path / "cache")
    for word in words:
        assert word in str(caught.value)


def test_stream_that_breaks_leaves_no_card(hub_folder, tmp_path):
    shard = next(hub_folder.rglob("c4-train.00002-*"))
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"cannot load .*EOFError.*c4-train.00002"):
        prepare_corpus(hub(hub_folder), BYTES, tmp_path / "corpus", tmp_path / "cache")
    assert [path.name for path in (tmp_path / "corpus").iterdir()] == ["validation.bin"]


def test_unpinned_hub_is_not_asked(tmp_path):
    with pytest.raises(ConfigError, match=r"mxfp4.corpus.revision of allenai/c4 is 'unpinned'"):
        prepare_corpus(hub("allenai/c4"), BYTES, tmp_path / "corpus", tmp_path)
