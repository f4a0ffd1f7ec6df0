"""The corpus: what becomes of text on its way to a batch, and what is refused."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from blockwise.artifacts import read_model, write_json
from blockwise.config.corpora import HubTokenizer, PathCorpus
from blockwise.config.load import load_profile
from blockwise.config.mxfp4 import MXFP4, LlamaShape
from blockwise.errors import ArtifactError, ConfigError, DatasetError
from blockwise.models.random_backbone import END_TOKEN, train_tokenizer
from blockwise.mxfp4 import corpus as corpus_module
from blockwise.mxfp4 import texts
from blockwise.mxfp4.corpus import CorpusCard, TokenCorpus, prepare_corpus
from prepared_text import BYTES, texts_of

NAMES = [f"part-{index:03d}.txt" for index in range(120)]


def text_of(name):
    return f"{name} says naïve 日本 🙂,\r\n" * 3


@pytest.fixture
def folder(tmp_path):
    """A folder of small text files; each line says which file it is of."""
    folder = tmp_path / "texts"
    for name in NAMES:
        path = folder / name[-5] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text_of(name), newline="")
    return folder


def from_path(folder, output, tokenizer=BYTES, pattern="**/*.txt"):
    source = PathCorpus(kind="path", folder=str(folder), pattern=pattern)
    return prepare_corpus(source, tokenizer, output, output / "cache")


@pytest.fixture
def opened(folder, tmp_path):
    from_path(folder, tmp_path / "corpus")
    return TokenCorpus.open(tmp_path / "corpus")


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tokenizer"
    train_tokenizer(512).save_pretrained(folder)
    return folder


# --- files ------------------------------------------------------------------------------


def test_bytes_come_back_file_by_file(folder, tmp_path):
    card = from_path(folder, tmp_path / "corpus")
    train, validation = texts_of(tmp_path / "corpus")
    whole = {name: text_of(name) for name in NAMES}
    in_validation = [name for name in NAMES if name in validation]
    assert 1 <= len(in_validation) <= 12
    by_path = sorted(NAMES, key=lambda name: (name[-5], name))
    assert validation == "".join(whole[name] for name in by_path if name in in_validation)
    assert train == "".join(whole[name] for name in by_path if name not in in_validation)
    assert (card.vocab_size, card.dtype, card.tokenizer) == (256, "uint16", "UTF-8 bytes")
    assert card.num_train_tokens == len(train.encode())
    assert card.num_validation_tokens == len(validation.encode())


def test_same_text_gives_the_same_bytes(folder, tmp_path):
    first = from_path(folder, tmp_path / "first")
    second = from_path(folder, tmp_path / "second")
    assert first == second
    for file in ("train.bin", "validation.bin", "corpus.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_other_text_gives_another_digest(folder, tmp_path):
    before = from_path(folder, tmp_path / "before").digest
    next(folder.rglob("*.txt")).write_text("edited")
    assert from_path(folder, tmp_path / "after").digest != before


def test_long_files_and_groups_change_nothing(folder, tmp_path, monkeypatch):
    from_path(folder, tmp_path / "whole")
    monkeypatch.setattr(texts, "PIECE_CHARS", 7)
    monkeypatch.setattr(corpus_module, "GROUP_CHARS", 50)
    from_path(folder, tmp_path / "cut")
    assert texts_of(tmp_path / "cut") == texts_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"folder": "absent"}, ["absent is no folder", "mxfp4.corpus.folder"]),
        ({"pattern": "part-000.txt"}, ["0 of the needed 2 files", "pattern"]),
        ({"pattern": "**/part-000.txt"}, ["1 of the needed 2 files", "split the file"]),
        ({"pattern": ""}, ["mxfp4.corpus.pattern ''"]),
        ({"pattern": "/etc/*.txt"}, ["mxfp4.corpus.pattern '/etc/*.txt'"]),
    ],
)
def test_path_without_files_is_refused(folder, tmp_path, change, words):
    source = PathCorpus(**{"kind": "path", "folder": str(folder), **change})
    with pytest.raises(DatasetError) as caught:
        prepare_corpus(source, BYTES, tmp_path / "corpus", tmp_path)
    for word in words:
        assert word in str(caught.value)


def test_file_that_is_no_text_is_named_and_leaves_nothing_half(folder, tmp_path):
    broken = folder / "0" / NAMES[0]
    broken.write_bytes(b"fine until \xff here")
    with pytest.raises(DatasetError, match="is not UTF-8 text") as caught:
        from_path(folder, tmp_path / "corpus")
    assert str(broken) in str(caught.value)
    left = {path.name for path in (tmp_path / "corpus").iterdir()}
    assert left <= {"train.bin", "validation.bin"}  # whole ones, and no card
    assert len(left) < 2


def test_file_that_cannot_be_read_is_named(folder, tmp_path, monkeypatch):
    def refuse(stream):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(texts, "_read_piece", refuse)
    with pytest.raises(DatasetError, match=r"cannot read .*part-.*Permission denied"):
        from_path(folder, tmp_path / "corpus")


def test_text_without_a_token_is_refused(tmp_path):
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text("")
    with pytest.raises(DatasetError, match="would hold 0 tokens"):
        from_path(tmp_path, tmp_path / "corpus")


# --- tokenizers -------------------------------------------------------------------------


def test_tokenizer_of_a_folder_ends_each_document_and_writes_no_other_special_token(
    folder, tmp_path, tokenizer_folder, monkeypatch
):
    monkeypatch.setattr(texts, "PIECE_CHARS", 40)  # a document of several pieces ends once
    for path in folder.rglob("*.txt"):
        path.write_text(path.read_text() + f"{END_TOKEN}<|user|>")
    tokenizer = HubTokenizer(kind="hub", id=str(tokenizer_folder))
    card = from_path(folder, tmp_path / "corpus", tokenizer)
    corpus = TokenCorpus.open(tmp_path / "corpus")
    assert (card.vocab_size, card.dtype) == (512, "uint16")
    assert card.tokenizer.startswith("tokenizer (digest ")
    assert str(tokenizer_folder) not in card.tokenizer
    known = train_tokenizer(512)
    end, user = known.convert_tokens_to_ids([END_TOKEN, "<|user|>"])
    ends = sum(int((split == end).sum()) for split in (corpus.train, corpus.validation))
    assert ends == len(NAMES)
    assert corpus.train[-1] == corpus.validation[-1] == end
    assert user not in corpus.train
    documents = known.decode(corpus.validation).split(f"<|user|>{END_TOKEN}")[:-1]
    assert all(document.startswith("part-") for document in documents)


def test_large_vocabulary_takes_32_bits(tmp_path):
    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(70_000)}))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path / "words")
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text("w65536 w3")
    tokenizer = HubTokenizer(kind="hub", id=str(tmp_path / "words"))
    card = from_path(tmp_path, tmp_path / "corpus", tokenizer, pattern="*.txt")
    corpus = TokenCorpus.open(tmp_path / "corpus")
    assert (card.vocab_size, card.dtype) == (70_000, "uint32")
    assert corpus.train_batch(0, 0, 1, 1).tolist() == [[65536, 3]]
    assert corpus.train.size == 2  # this tokenizer has no token for the end of a document


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        ({"id": "some/tokenizer"}, ["mxfp4.tokenizer.revision", "unpinned", "make pin"]),
        ({"id": "."}, ["cannot load the tokenizer .", "kind: bytes"]),
    ],
)
def test_tokenizer_that_cannot_be_loaded_is_refused(folder, tmp_path, tokenizer, words):
    with pytest.raises(ConfigError) as caught:
        from_path(folder, tmp_path / "corpus", HubTokenizer(kind="hub", **tokenizer))
    for word in words:
        assert word in str(caught.value)


# --- token files ------------------------------------------------------------------------


def _flip(path):
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("file", ["train.bin", "validation.bin"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_flip, "another digest"),
        (lambda path: path.write_bytes(path.read_bytes()[:-2]), "bytes, not"),
        (lambda path: path.unlink(), "cannot read"),
    ],
)
def test_damaged_files_are_refused(folder, tmp_path, file, damage, words):
    from_path(folder, tmp_path / "corpus")
    damage(tmp_path / "corpus" / file)
    with pytest.raises(ArtifactError, match=words) as caught:
        TokenCorpus.open(tmp_path / "corpus")
    assert file in str(caught.value)


def test_corpus_without_a_card_is_refused(folder, tmp_path):
    from_path(folder, tmp_path / "corpus")
    (tmp_path / "corpus" / "corpus.json").unlink()
    with pytest.raises(ArtifactError, match=r"corpus\.json"):
        TokenCorpus.open(tmp_path / "corpus")


# --- batches ----------------------------------------------------------------------------


def test_train_batch_depends_on_its_arguments_only(opened, tmp_path):
    batch = opened.train_batch(7, 3, 4, 16)
    assert batch.shape == (4, 17)
    assert batch.dtype == torch.int64
    opened.train_batch(8, 3, 4, 16)
    assert torch.equal(TokenCorpus.open(tmp_path / "corpus").train_batch(7, 3, 4, 16), batch)
    assert not torch.equal(opened.train_batch(8, 3, 4, 16), batch)
    assert not torch.equal(opened.train_batch(7, 4, 4, 16), batch)


def test_train_batch_is_cut_from_the_train_text(opened):
    train = bytes(opened.train.astype(np.uint8))
    starts = set()
    for row in opened.train_batch(0, 0, 200, 40):
        starts.add(train.find(bytes(row.tolist())))
    assert -1 not in starts
    assert min(starts) < len(train) / 10
    assert max(starts) > len(train) * 9 / 10


def counted(num_tokens):
    """A corpus whose tokens are their own positions."""
    card = CorpusCard(
        source="positions",
        tokenizer="",
        vocab_size=num_tokens,
        dtype="uint32",
        num_train_tokens=num_tokens,
        num_validation_tokens=num_tokens,
        train_sha256="",
        validation_sha256="",
    )
    tokens = np.arange(num_tokens, dtype=np.uint32)
    return TokenCorpus(card, tokens, tokens)


def test_offsets_never_change():
    """A record of an old run must name the text that a rerun reads."""
    corpus = counted(60_000)
    assert corpus.train_batch(0, 0, 3, 1)[:, 0].tolist() == [5106, 15381, 49124]
    assert corpus.train_batch(5, 2, 3, 1)[:, 0].tolist() == [23465, 26555, 11524]
    assert corpus.validation_batch(4, 2)[:, 0].tolist() == [0, 19_999, 39_998, 59_997]


def test_repeated_batches_cycle(opened):
    cycle = [opened.train_batch(step, 0, 4, 16, num_repeated=3) for step in range(7)]
    fresh = [opened.train_batch(step, 0, 4, 16) for step in range(3)]
    for step, batch in enumerate(cycle):
        assert torch.equal(batch, fresh[step % 3])
    assert not torch.equal(cycle[0], cycle[1])


def test_smallest_text_gives_its_one_window(folder, tmp_path):
    card = from_path(folder, tmp_path / "corpus")
    corpus = TokenCorpus.open(tmp_path / "corpus")
    batch = corpus.train_batch(0, 0, 1, card.num_train_tokens - 1)
    assert torch.equal(batch[0], torch.from_numpy(corpus.train.astype(np.int64)))


def test_validation_windows_are_always_the_same(opened):
    batch = opened.validation_batch(5, 20)
    opened.train_batch(0, 0, 5, 20)
    assert torch.equal(opened.validation_batch(5, 20), batch)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 200))
def test_validation_windows_cover_the_text_and_predict_no_token_twice(
    num_sequences, sequence_tokens, num_spare_tokens
):
    num_tokens = num_sequences * sequence_tokens + 1 + num_spare_tokens
    batch = counted(num_tokens).validation_batch(num_sequences, sequence_tokens)
    assert batch.shape == (num_sequences, sequence_tokens + 1)
    assert (batch.diff(dim=1) == 1).all()
    assert batch[:, 1:].unique().numel() == num_sequences * sequence_tokens
    assert batch[0, 0] == 0
    assert num_sequences == 1 or batch[-1, -1] == num_tokens - 1


def test_validation_windows_hold_no_train_text(opened):
    train = bytes(opened.train.astype(np.uint8)).decode()
    validation = bytes(opened.validation.astype(np.uint8)).decode()
    in_train = {name for name in NAMES if name in train}
    in_validation = {name for name in NAMES if name in validation}
    assert in_train.isdisjoint(in_validation)
    assert in_train | in_validation == set(NAMES)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_corpus_too_small_for_a_batch_is_refused(opened, split):
    num_tokens = getattr(opened, split).size
    with pytest.raises(DatasetError) as caught:
        if split == "train":
            opened.train_batch(0, 0, num_tokens, 1)
        else:
            opened.validation_batch(1, num_tokens)
    for word in (split, f"{num_tokens} tokens", str(num_tokens + 1), "larger corpus"):
        assert word in str(caught.value)


# --- command line -----------------------------------------------------------------------


def test_command_prepares_the_corpus_of_a_profile(
    folder, tmp_path, project_folder, monkeypatch, capsys
):
    profile = load_profile([project_folder / "config" / "config.yaml"])
    study = MXFP4(
        model=LlamaShape(
            hidden_size=32,
            intermediate_size=32,
            num_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            sequence_tokens=32,
        ),
        corpus=PathCorpus(kind="path", folder=str(folder)),
        optimizer={"learning_rate": 1e-3, "warmup_steps": 1},
        arms={"F": {"fprop": {}}},
        experiments={
            "outliers": {
                "study": "mxfp4_outliers",
                "arms": ["F"],
                "seeds": [0],
                "outlier_sizes": [4.0],
            }
        },
        caption="a test",
    )
    output = tmp_path / "corpus"
    for name, part in (("with", study), ("without", None)):
        content = profile.model_copy(update={"mxfp4": part}).model_dump(mode="json")
        write_json(tmp_path / f"{name}.json", content)

    def run(name):
        arguments = ["--config", tmp_path / f"{name}.json", "--cache", tmp_path / "cache"]
        arguments += ["--output-dir", output]
        monkeypatch.setattr(sys, "argv", ["corpus", *map(str, arguments)])
        corpus_module.main()

    run("with")
    card = read_model(output / "corpus.json", CorpusCard)
    assert f"{card.num_train_tokens} tokens to train on" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="has no mxfp4 study"):
        run("without")
