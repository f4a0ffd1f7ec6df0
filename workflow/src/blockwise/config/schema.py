"""The JSON Schema of the configuration, generated from the models and committed.

python -m blockwise.config.schema           writes workflow/schemas/config.schema.json
python -m blockwise.config.schema --check   fails if the committed file has drifted
"""

import argparse
import json
from pathlib import Path

from blockwise.artifacts import write_bytes
from blockwise.config.profile import Profile
from blockwise.errors import ConfigError, run_command

SCHEMA_FILE = Path(__file__).parents[3] / "schemas" / "config.schema.json"


def schema_text() -> str:
    """The schema as it must stand in the file."""
    schema = Profile.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write the schema, or check that the committed one is current."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail on drift, write nothing")
    if not parser.parse_args().check:
        write_bytes(SCHEMA_FILE, schema_text().encode())
    elif not SCHEMA_FILE.is_file() or SCHEMA_FILE.read_text() != schema_text():
        raise ConfigError(
            f"{SCHEMA_FILE.name} differs from the configuration models; "
            "run `python -m blockwise.config.schema` and commit the file"
        )


if __name__ == "__main__":
    run_command(main)
