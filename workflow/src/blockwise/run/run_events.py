"""Events of a run: what Snakemake's process says to the one that shows progress, a line each.

A line begins with a character that no job writes, so that the words of jobs and the events of
Snakemake share one stream and keep their order.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from logging import ERROR, LogRecord
from typing import Any

MARK = "\x1e"  # ASCII's record separator


class EventKind(StrEnum):
    """What happened."""

    PLANNED = "planned"  # how many jobs there are
    DESCRIBED = "described"  # what a job is, before it starts
    FINISHED = "finished"
    FAILED = "failed"
    REFUSED = "refused"  # Snakemake itself says what is wrong


@dataclass(frozen=True)
class RunEvent:
    """One event; what does not belong to its kind is empty."""

    kind: EventKind
    job: int = 0
    rule: str = ""
    wildcards: Mapping[str, str] = field(default_factory=dict)
    logs: tuple[str, ...] = ()
    num_jobs: int = 0
    text: str = ""


def encode(record: LogRecord) -> str | None:
    """The line of a record of Snakemake's; None where a reader of the run has no use for it."""
    event = _event_of(record)
    return None if event is None else MARK + json.dumps(asdict(event))


def decode(line: str) -> RunEvent | None:
    """The event of a line; None where it is the words of a job."""
    if not line.startswith(MARK):
        return None
    values = json.loads(line.removeprefix(MARK))
    return RunEvent(**{**values, "kind": EventKind(values["kind"]), "logs": tuple(values["logs"])})


def _event_of(record: LogRecord) -> RunEvent | None:
    values: dict[str, Any] = vars(record)
    match str(values.get("event") or ""):
        case "run_info":
            return RunEvent(EventKind.PLANNED, num_jobs=int(values["stats"]["total"]))
        case "job_info":
            return RunEvent(
                EventKind.DESCRIBED,
                job=int(values["jobid"]),
                rule=str(values["rule_name"]),
                wildcards={key: str(value) for key, value in dict(values["wildcards"]).items()},
                logs=tuple(map(str, values.get("log") or ())),
            )
        case "job_finished":
            return RunEvent(EventKind.FINISHED, job=int(values["job_id"]))
        case "job_error":
            logs = tuple(map(str, values.get("log") or ()))
            return RunEvent(EventKind.FAILED, job=int(values["jobid"]), logs=logs)
        case "" | "error" if record.levelno >= ERROR:
            return RunEvent(EventKind.REFUSED, text=record.getMessage())
    return None
