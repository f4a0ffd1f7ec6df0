"""What a cell was told to do, read from its spec.

A record's spec holds every ingredient of the cell's key in words; the tables need a few of
them and name them here, in one place. Keys that no table shows are left alone.
"""

from pydantic import BaseModel, ConfigDict, ValidationError

from blockwise.compaction.records import CellRecord
from blockwise.config.experiments import Boundary, Protocol, Transcript
from blockwise.errors import ArtifactError


class RequestSettings(BaseModel):
    """The part of a spec's request form that tables show."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    temperature: float


class CellSettings(BaseModel):
    """The part of a spec that tables show."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    protocol: Protocol
    transcript: Transcript | None  # None: no answer enters a history
    tau_tokens: int | None  # None: no session, or a reference
    history_tokens: int | None  # None: a session
    boundary: Boundary
    last_turns: int
    volume_mode: str
    volume_tokens: int  # forced: total of a compaction; natural: cap of each worker
    answer_tokens: int
    asks_truncated: bool  # deferred: also asked on the last tokens
    max_concurrent_workers: int | None  # None: all at once
    num_bystanders: int
    request: RequestSettings
    code_digest: str


def settings_of(record: CellRecord) -> CellSettings:
    """The settings in a record's spec.

    Raises:
        ArtifactError: the spec lacks one of them, or holds an unknown value.
    """
    try:
        return CellSettings.model_validate(record.spec)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(
            f"cell {record.cell_key}: spec.{place}: {first['msg']}. It was written by another "
            "version; delete its record file and rerun"
        ) from error
