"""Records: what a cell's says of it, and which another version wrote."""

import pytest
from pydantic import ValidationError

from blockwise.artifacts import digest, read_sealed, write_json, write_sealed
from blockwise.compaction.records import SCHEMA_VERSION, CellRecord
from blockwise.errors import ArtifactError
from record_factory import record

NAMES = ("protocol", "block_size_tokens", "session_id", "seed", "repeat", "server_start")


def test_a_record_is_of_what_its_specification_says(tmp_path):
    made = record("target_block", 512, "s1", seed=3, repeat=2, server_start=1)
    write_sealed(tmp_path / "cell.json", made)
    read = read_sealed(tmp_path / "cell.json", CellRecord)
    assert read.spec == made.spec
    assert {name: getattr(read, name) for name in NAMES} == {
        "protocol": "immediate",
        "block_size_tokens": 512,
        "session_id": "s1",
        "seed": 3,
        "repeat": 2,
        "server_start": 1,
    }
    assert read.arm == "target_block"
    assert not {*NAMES, "arm"} & {*read.model_dump()}


@pytest.mark.parametrize("name", [*NAMES, "arm"])
def test_no_record_can_contradict_its_specification(name):
    content = {**record().model_dump(mode="json"), name: "other"}
    with pytest.raises(ValidationError, match=rf"{name}\n.*not permitted"):
        CellRecord.model_validate(content)


def test_a_record_of_an_earlier_version_is_refused_by_its_version(tmp_path):
    path = tmp_path / "cell.json"
    told = record().model_dump(mode="json")
    spec = {**told["spec"], "bystanders": {}}  # as schema version 4 said that there are none
    content = {**told, "schema_version": SCHEMA_VERSION - 1, "seed": 0, "spec": spec}
    write_json(path, {"record": content, "digest": digest(content)})
    with pytest.raises(
        ArtifactError, match=rf"schema_version: .* should be {SCHEMA_VERSION}.*another version"
    ):
        read_sealed(path, CellRecord)
