"""Fetch a backbone's published model and leave a record of its files."""

import argparse
import sys
from pathlib import Path

from blockwise.artifacts import read_model, write_model
from blockwise.config.backbones import GgufModel
from blockwise.config.profile import Profile
from blockwise.errors import run_command
from blockwise.models.gguf_model import fetch_gguf
from blockwise.models.hub_model import fetch_model


def main() -> None:
    """Command line: fetch one backbone's model and write the record of its files."""
    parser = argparse.ArgumentParser(description="Fetch a backbone's published model.")
    parser.add_argument("--config", type=Path, required=True, help="resolved profile, JSON")
    parser.add_argument("--backbone", required=True, help="its name in the profile")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    name = arguments.backbone
    backbone = read_model(arguments.config, Profile).backbones[name]
    if isinstance(backbone.model, GgufModel):
        gguf = fetch_gguf(name, backbone.model, _report)
        write_model(arguments.output, gguf)
        _report(f"{gguf.file}: {gguf.num_bytes} bytes in {gguf.path}, from {gguf.origin}")
        return
    fetched = fetch_model(name, backbone)
    write_model(arguments.output, fetched)
    files = f"{len(fetched.files)} files, {fetched.num_bytes} bytes in {fetched.folder}"
    _report(f"{fetched.id}: {files}")


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(main)
