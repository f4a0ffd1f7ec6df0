"""Holds a crate against the Workflow Run Crate profile with RO-Crate's own validator.

    python envs/validate_crate.py results/default/crate [--severity recommended]

It runs in the environment of crate.lock (`make check-crate`), and offline: the JSON-LD context of
RO-Crate 1.1, which the validator would fetch, is a file of the rocrate library, and is laid into
the validator's cache.
"""

import argparse
import json
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from requests.structures import CaseInsensitiveDict
from requests_cache import CachedRequest, CachedResponse, CachedSession
from rocrate_validator import services
from rocrate_validator.models import Severity, ValidationResult, ValidationSettings

PROFILE = "workflow-run-crate"
CONTEXT_URL = "https://w3id.org/ro/crate/1.1/context"


def lay_context(cache: Path) -> None:
    """Put the context into a cache of the validator's as if it had been fetched."""
    content = (files("rocrate") / "data" / "ro-crate.jsonld").read_bytes()
    shipped = json.loads(content)["@id"]
    if shipped != CONTEXT_URL:
        raise SystemExit(
            f"error: this rocrate ships the context {shipped}, and the crate is read with "
            f"{CONTEXT_URL}; pin rocrate in envs/crate.in to a version that ships that one"
        )
    headers = CaseInsensitiveDict({"Content-Type": "application/ld+json"})
    request = CachedRequest(method="GET", url=CONTEXT_URL)
    response = CachedResponse(
        status_code=200, url=CONTEXT_URL, headers=headers, content=content, request=request
    )
    with CachedSession(str(cache), backend="sqlite") as session:
        session.cache.save_response(response, session.cache.create_key(request))


def validate(crate: Path, severity: Severity) -> ValidationResult:
    """Validate a crate against the profile and all that it builds on."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "contexts"
        lay_context(cache)
        return services.validate(
            ValidationSettings(
                rocrate_uri=str(crate),
                profile_identifier=PROFILE,
                requirement_severity=severity,
                cache_path=cache,
                offline=True,
            )
        )


def main() -> int:
    """Command line: a crate, and how much of the profile it must keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("crate", type=Path)
    parser.add_argument(
        "--severity", default="required", choices=[one.name.lower() for one in Severity]
    )
    arguments = parser.parse_args()
    severity = Severity[arguments.severity.upper()]
    result = validate(arguments.crate, severity)
    for issue in result.get_issues(severity):
        print(f"  {issue.severity.name} {issue.check.identifier}: {issue.message}")
    num_checks = len(result.executed_checks)
    num_issues = len(result.get_issues(severity))
    print(
        f"{arguments.crate}: {num_checks} checks of {PROFILE} and what it builds on, "
        f"{num_issues} issues at {arguments.severity}"
    )
    return 1 if num_issues or not num_checks else 0


if __name__ == "__main__":
    sys.exit(main())
