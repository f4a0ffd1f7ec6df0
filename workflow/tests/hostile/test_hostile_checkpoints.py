"""Checkpoints and records of anybody's: nothing in them runs, and damage is one message."""

import json
import os
import pickle
import shutil

import pytest
import torch
from hostile_values import REPEATABLE, spoilt, values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockwise.artifacts import (
    digest,
    digest_file,
    read_model,
    read_sealed,
    write_json,
    write_sealed,
)
from blockwise.compaction.records import Batch, CellRecord
from blockwise.config.pocket import PocketRecipe
from blockwise.config.profile import Profile
from blockwise.data.documents import DocumentSet
from blockwise.errors import ArtifactError
from blockwise.mxfp4 import checkpoint
from blockwise.mxfp4.checkpoint import (
    CheckpointCard,
    Progress,
    load_checkpoint,
    save_checkpoint,
)
from blockwise.pocket.files import taught_prompts
from blockwise.pocket.tokenizer import make_tokenizer
from blockwise.pocket.train import PocketTrainer
from blockwise.run.manifest import Manifest
from blockwise.tables.compaction.parts.load import load_batches
from record_factory import loaded, record, store_batch


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Run:
    """As small a run as a checkpoint can be of."""

    def __init__(self):
        self.model = torch.nn.Linear(3, 2)
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.model(torch.ones(1, 3)).sum().backward()
        self.optimizer.step()
        self.generator = torch.Generator()
        self.progress = Progress(step=1)
        self.averages = {}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save_checkpoint(folder, "k", Run())
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    """A checkpoint of its own, and a way to change one of its files that its card agrees with."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    (step,) = folder.iterdir()

    def replace(name, content):
        (step / name).write_bytes(content)
        card = read_sealed(step / "checkpoint.json", CheckpointCard)
        digests = card.digests | {name: digest_file(step / name)}
        write_sealed(step / "checkpoint.json", card.model_copy(update={"digests": digests}))

    return folder, step, replace


def test_an_undamaged_checkpoint_is_continued_with_all_its_values(saved):
    before, run = Run(), Run()
    run.optimizer.param_groups[0]["lr"] = 5.0
    load_checkpoint(saved, "k", run)
    assert run.progress.step == 1
    assert run.optimizer.param_groups[0]["lr"] == before.optimizer.param_groups[0]["lr"]
    assert int(run.optimizer.state_dict()["state"][0]["step"]) == 1


@pytest.mark.parametrize("exists", [True, False])
def test_one_that_cannot_be_written_says_how_much_is_free(tmp_path, monkeypatch, exists):
    def fail(*_, **__):
        raise RuntimeError("[enforce fail] unexpected pos 704 vs 598")  # of torch on a full disk

    monkeypatch.setattr(checkpoint, "save", fail)
    folder = tmp_path if exists else tmp_path / "none" / "yet"
    with pytest.raises(ArtifactError, match=r"unexpected pos 704 vs 598; [\d,]+ bytes are free"):
        save_checkpoint(folder, "k", Run())


def test_metadata_that_calls_something_is_damage_and_calls_nothing(copied, tmp_path):
    folder, _, replace = copied
    replace(".metadata", pickle.dumps(Bomb(tmp_path / "escaped")))
    with pytest.raises(ArtifactError, match=r"cannot be read \(.*delete it"):
        load_checkpoint(folder, "k", Run())
    assert not (tmp_path / "escaped").exists()


def test_a_value_that_calls_something_is_damage_and_calls_nothing(copied, tmp_path):
    """Numbers beside the tensors are pickles of their own, inside the file of the shards."""
    folder, step, replace = copied
    reader = checkpoint.CheckpointReader(step)
    data = reader.read_metadata().storage_data
    values = [info for index, info in data.items() if index.fqn.endswith(".lr")]
    assert values
    bomb = tmp_path / "escaped"
    (shard,) = step.glob("*.distcp")
    content = bytearray(shard.read_bytes())
    for info in values:
        exploding = pickle.dumps(Bomb(bomb), protocol=2)
        content[info.offset : info.offset + info.length] = exploding.ljust(info.length, b"\0")
    replace(shard.name, bytes(content))
    with pytest.raises(ArtifactError, match=r"cannot be read \(.*delete it"):
        load_checkpoint(folder, "k", Run())
    assert not bomb.exists()


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], **REPEATABLE
)
@given(st.integers(0, 10**6), st.integers(1, 255), st.booleans())
def test_a_checkpoint_with_a_flipped_byte_is_damage_or_loads(copied, place, bits, in_metadata):
    folder, step, _ = copied
    file = step / ".metadata" if in_metadata else next(step.glob("*.distcp"))
    whole = file.read_bytes()
    content = bytearray(whole)
    content[place % len(content)] ^= bits
    file.write_bytes(content)
    try:
        load_checkpoint(folder, "k", Run())
    except ArtifactError as error:
        assert "Traceback" not in str(error)
    finally:
        file.write_bytes(whole)
        for card in step.glob("checkpoint.damaged"):
            card.rename(step / "checkpoint.json")


TINY = PocketRecipe(
    reasoning=False,
    hidden_size=32,
    intermediate_size=32,
    num_layers=1,
    num_attention_heads=1,
    num_key_value_heads=1,
    head_size=32,
    num_steps=2,
    step_tokens=100,
    learning_rate=1e-3,
    decay_steps=1,
)


@pytest.fixture(scope="module")
def trainer(project_folder):
    prompts = taught_prompts(project_folder / "config" / "prompts")
    return PocketTrainer(TINY, make_tokenizer(prompts), prompts)


@settings(max_examples=40, **REPEATABLE)
@given(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([None, [], {}, {"key": "k"}, {"key": "k", "model": {}, "optimizers": []}]),
        st.dictionaries(st.sampled_from(["model", "optimizers", "progress"]), values, max_size=3),
    )
)
def test_a_pocket_checkpoint_of_anything_is_refused_in_words(tmp_path_factory, trainer, content):
    path = tmp_path_factory.getbasetemp() / "anything.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"key": "k", **content} if isinstance(content, dict) else content, path)
    with pytest.raises(ArtifactError, match=r"cannot be read.*delete"):
        trainer.resume(path, "k")


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pocket_checkpoint_that_calls_something_calls_nothing(trainer, tmp_path, is_zip):
    path, bomb = tmp_path / "bomb.pt", tmp_path / "escaped"
    state = {"key": "k", "model": Bomb(bomb)}
    torch.save(state, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ArtifactError, match=r"cannot be read \(UnpicklingError.*delete"):
        trainer.resume(path, "k")
    assert not bomb.exists()


@settings(max_examples=150, **REPEATABLE)
@given(spoilt(record().model_dump(mode="json")), st.booleans())
def test_a_spoilt_record_is_refused_in_words_even_where_its_seal_fits(
    tmp_path_factory, content, is_sealed
):
    path = tmp_path_factory.getbasetemp() / "record.json"
    try:
        seal = digest(content) if is_sealed else "0" * 32
        path.write_text(json.dumps({"digest": seal, "record": content}))
    except (ValueError, TypeError):
        return  # no JSON can hold it
    try:
        read_sealed(path, CellRecord)
    except ArtifactError as error:
        str(error).encode(errors="backslashreplace")


@pytest.mark.parametrize("model", [Batch, CellRecord, DocumentSet, Manifest, Profile])
@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{}", "[]", "NaN", "\0", '{"a": 1' + "0" * 5000 + "}"]
)
def test_a_file_of_anything_is_no_artifact(tmp_path, model, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=r"a\.json"):
        read_model(path, model)


def test_a_batch_that_names_files_elsewhere_is_refused(tmp_path):
    batch, store = store_batch(tmp_path, [loaded()])
    content = json.loads(batch.read_text())
    for name in ("../elsewhere.json", "/etc/passwd", "cells/../../x", "a\0b", ""):
        content["selected"][0]["record_path"] = name
        write_json(batch, content)
        with pytest.raises(ArtifactError, match="is no name of a file below"):
            load_batches([batch], store)
