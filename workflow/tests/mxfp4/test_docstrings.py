"""English of docstrings: what counts as prose, where it may stand, and that it stands once."""

import re

import numpy as np
import pytest

from blockwise.config.corpora import BpeTokenizer, DocstringCorpus
from blockwise.errors import ConfigError, DatasetError
from blockwise.mxfp4 import docstrings
from blockwise.mxfp4.corpus import TokenCorpus, prepare_corpus
from blockwise.mxfp4.docstrings import is_prose, licences, paragraph_digests, prose_of
from blockwise.mxfp4.encoders import END_OF_DOCUMENT, load_encoder
from blockwise.mxfp4.texts import Piece
from prepared_text import BYTES

PROSE = "The file is read once and what it holds is given back in order."


def documents(folder, **sources):
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    docstrings._paragraphs.cache_clear()
    return {name: folder / f"{name}.py" for name in sources}


@pytest.mark.parametrize(
    ("paragraph", "is_kept"),
    [
        (PROSE, True),
        ("x : int, the number", False),
        (">>> the session of somebody who types a good many words here", False),
        (".. note:: the directive of somebody who types a good many words", False),
        ("a = 1; b = 2; c = 3; d = [4, 5, 6]; e = {7: 8}; f(9) == 10", False),
    ],
)
def test_prose_is_words(paragraph, is_kept):
    assert is_prose(paragraph) is is_kept


def test_only_docstrings_count_and_a_paragraph_counts_once(tmp_path):
    other = PROSE.replace("file", "folder")
    found = documents(
        tmp_path,
        first=f'"""{PROSE}\n\n    >>> 1 + 1\n"""\n# {other}\nx = "{other}"\n',
        second=f'def f():\n    """{PROSE.upper()}\n\n    {other}\n    """\n',
        template="{% nothing that parses %}",
    )
    assert list(prose_of(found, ["first", "second", "template"], set)) == [PROSE, other, ""]
    held_out = list(prose_of(found, ["second"], lambda: paragraph_digests(found, ["first"])))
    assert held_out == [other]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"cannot read .*gone\.py: No such file"):
        list(prose_of({"gone": tmp_path / "gone.py"}, ["gone"], set))


def test_licences_are_stated_and_what_is_not_installed_is_refused():
    assert re.search(r"Python 3\S+ \(PSF\); numpy \S+ \(.*BSD.*\)", licences(["numpy"]))
    with pytest.raises(ConfigError, match="'no-such-thing', which is not installed here"):
        licences(["no-such-thing"])


def test_validation_text_is_never_trained_on(tmp_path):
    settings = DocstringCorpus(kind="docstrings", distributions=["mpmath"], validation_frac=0.1)
    card = prepare_corpus(settings, BYTES, tmp_path, tmp_path)
    corpus = TokenCorpus.open(tmp_path)
    train, validation = (
        {one for one in bytes(np.asarray(tokens, np.uint8)).decode().split("\n\n") if one}
        for tokens in (corpus.train, corpus.validation)
    )
    assert "mpmath" in card.source
    assert len(train) > 1000
    assert len(validation) > 50
    shared = {one for one in train & validation if is_prose(one)}
    assert not shared


def test_byte_pairs_are_learned_from_the_text_and_from_nothing_else():
    texts = [PROSE, PROSE.replace("file", "folder"), "Words enough to merge " * 50] * 5
    first, again = (
        load_encoder(BpeTokenizer(kind="bpe", vocab_size=512), lambda: texts * 40 + _words())
        for _ in range(2)
    )
    assert first.name == again.name
    assert first.vocab_size == 512
    ids = first.encode([Piece(PROSE, ends_document=True), Piece("naïve", ends_document=False)])
    assert list(ids) == list(again.encode([Piece(PROSE, True), Piece("naïve", False)]))
    assert len(ids) < len(PROSE) / 2
    (end,) = set(first.encode([Piece("", ends_document=True)]))
    assert list(ids).count(end) == 1
    assert end not in first.encode([Piece(END_OF_DOCUMENT, ends_document=False)])


def test_too_little_text_for_a_vocabulary_is_refused():
    with pytest.raises(DatasetError, match=r"gives a vocabulary of \d+, not of 4096; lower"):
        load_encoder(BpeTokenizer(kind="bpe", vocab_size=4096), lambda: [PROSE])


def _words():
    rng = np.random.default_rng(0)
    return [
        " ".join("".join(rng.choice(list("abcdefgh"), 4)) for _ in range(50)) for _ in range(40)
    ]
