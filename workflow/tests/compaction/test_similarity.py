"""Which summaries are compared, with what, and what the artifact says about it."""

import sys

import pytest

from blockwise.artifacts import read_model, write_json
from blockwise.compaction import similarity
from blockwise.compaction.records import Batch
from blockwise.compaction.similarity import (
    Similarities,
    compare_summaries,
    group_repeats,
    read_repeats,
    summary_of,
)
from blockwise.config.embedder import HubEmbedder, PathEmbedder, TfidfEmbedder
from blockwise.config.experiments import Study
from blockwise.config.load import load_profile
from blockwise.errors import ArtifactError, ConfigError
from record_factory import loaded, record, request, store_batch

TFIDF = TfidfEmbedder(kind="tfidf")
WORDS = ("the", "city", "was", "founded", "by", "a", "king", "of", "river", "people")


def repeat_of(repeat, *texts, arm="sequential", **spec):
    """One repeat of an input; a text for each worker."""
    told = {"protocol": "single", "volume_mode": "natural", "repeat": repeat, "layout": arm}
    workers = [request("worker", text=text, worker_index=k) for k, text in enumerate(texts)]
    return record(arm, repeat=repeat, spec={**told, **spec}, requests=tuple(workers))


def compare(tmp_path, records, embedder=TFIDF):
    cells = [loaded(one, study=Study.STABILITY, experiment="stability") for one in records]
    batch = read_model(store_batch(tmp_path, cells)[0], Batch)
    return compare_summaries(batch, records, embedder)


def test_cosines_are_symmetric_and_tell_same_from_different(tmp_path):
    texts = ["a king founded it", "a king founded it", "the river runs dry", "a king saw the river"]
    result = compare(tmp_path, [repeat_of(index, text) for index, text in enumerate(texts)])
    (group,) = result.groups
    matrix = group.cosines
    assert all(matrix[one][other] == matrix[other][one] for one in range(4) for other in range(4))
    assert [matrix[index][index] for index in range(4)] == [1.0] * 4
    assert matrix[0][1] == 1.0
    assert matrix[0][2] == 0.0
    assert 0 < matrix[0][3] < 1
    assert result.embedder.startswith("TF-IDF of words (scikit-learn ")


def test_repeats_of_an_input_form_a_group_in_their_order():
    cells = [
        repeat_of(1, "x"),
        repeat_of(0, "x"),
        repeat_of(0, "x", arm="target_block"),
        repeat_of(0, "x", seed=7),
    ]
    groups = group_repeats(cells)
    assert [[cell.repeat for cell in group] for group in groups] == [[0, 1], [0], [0]]


def test_the_weights_of_words_come_from_all_summaries_of_the_batch(tmp_path):
    pair = [repeat_of(0, "king river"), repeat_of(1, "king people")]
    others = [repeat_of(index, "king", arm="target_block") for index in range(2)]
    alone = compare(tmp_path / "alone", pair).groups[0].cosines[0][1]
    beside = compare(tmp_path / "beside", [*pair, *others]).groups[0].cosines[0][1]
    assert beside < alone  # `king` is common there and counts for less


def test_single_letters_and_digits_are_words(tmp_path):
    result = compare(tmp_path, [repeat_of(0, "won 3 of them"), repeat_of(1, "won 4 of them")])
    assert result.groups[0].cosines[0][1] < 1.0


def test_a_summary_without_a_word_has_no_cosine_and_says_why(tmp_path):
    cells = [repeat_of(0, "a king"), repeat_of(1, " ... "), repeat_of(2, "a king")]
    (group,) = compare(tmp_path, cells).groups
    assert group.cosines[1] == (None, None, None)
    assert (group.cosines[0][1], group.cosines[0][2]) == (None, 1.0)
    assert group.undefined_reasons == (None, similarity.NO_WORD, None)


def test_nothing_to_compare_needs_no_embedder(tmp_path):
    nowhere = PathEmbedder(kind="path", path=str(tmp_path / "absent"))
    result = compare(tmp_path, [repeat_of(0, "")], nowhere)
    assert result.embedder is None
    assert result.groups[0].cosines == ((None,),)


def test_a_summary_is_the_workers_texts_in_order():
    cell = repeat_of(0, "first ", " second")
    backwards = cell.model_copy(update={"requests": cell.requests[::-1]})
    assert summary_of(cell) == summary_of(backwards) == "first\n\nsecond"


def test_a_cell_without_a_single_compaction_is_refused():
    cell = repeat_of(0, "x").model_copy(update={"compactions": ()})
    with pytest.raises(ArtifactError, match="0 compactions"):
        summary_of(cell)


def test_only_cells_of_the_study_are_read_and_a_shared_one_once(tmp_path):
    cell = repeat_of(0, "x")
    other = repeat_of(0, "x", arm="target_block")
    cells = [
        loaded(cell, study=Study.STABILITY, experiment="one"),
        loaded(cell, study=Study.STABILITY, experiment="two"),
        loaded(other, study=Study.VOLUME_CONTROL, experiment="three"),
    ]
    batch_path, store = store_batch(tmp_path, cells)
    assert read_repeats(read_model(batch_path, Batch), store) == [cell]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A sentence-embedding model of random weights."""
    import torch  # noqa: PLC0415  seconds that only these tests spend
    from transformers import BertConfig, BertModel, BertTokenizerFast  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("embedder") / "tiny"
    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_a_model_in_a_folder_embeds_and_is_named_by_its_content(tmp_path, model_folder):
    embedder = PathEmbedder(kind="path", path=str(model_folder))
    texts = ["a king founded the city", "a king founded the city", "river of people"]
    cells = [repeat_of(index, text) for index, text in enumerate(texts)]
    result = compare(tmp_path, cells, embedder)
    matrix = result.groups[0].cosines
    assert matrix[0][1] == 1.0
    assert -1 <= matrix[0][2] < 1
    assert result == compare(tmp_path, cells, embedder)
    assert result.embedder.startswith("tiny (digest ")
    assert "first 32 tokens of a summary" in result.embedder
    assert str(model_folder.parent) not in result.embedder


@pytest.mark.parametrize(
    ("embedder", "message"),
    [
        (HubEmbedder(kind="hub", id="some/model"), "make pin"),
        (PathEmbedder(kind="path", path="no/such/folder"), "no/such/folder is no folder"),
    ],
)
def test_an_embedder_that_cannot_be_used_is_refused_in_one_line(tmp_path, embedder, message):
    with pytest.raises(ConfigError, match=message):
        compare(tmp_path, [repeat_of(0, "x")], embedder)


def test_a_folder_without_a_model_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    embedder = PathEmbedder(kind="path", path=str(tmp_path / "folder"))
    with pytest.raises(ConfigError, match="is no sentence-embedding model"):
        compare(tmp_path, [repeat_of(0, "x")], embedder)


def test_the_command_writes_the_artifact(tmp_path, monkeypatch, project_folder):
    cells = [
        loaded(repeat_of(index, "a king", f"river {index}"), study=Study.STABILITY)
        for index in range(3)
    ]
    batch_path, store = store_batch(tmp_path, cells)
    config, output = tmp_path / "config.json", tmp_path / "similarity.json"
    profile = load_profile([project_folder / "config/config.yaml"])
    write_json(config, profile.model_dump(mode="json"))
    words = ["--config", config, "--batch", batch_path, "--store", store, "--output", output]
    monkeypatch.setattr(sys, "argv", ["similarity", *map(str, words)])
    similarity.main()
    result = read_model(output, Similarities)
    assert (result.backbone, result.dataset) == ("smollm2-135m", "hotpotqa")
    assert [len(group.cell_keys) for group in result.groups] == [3]
