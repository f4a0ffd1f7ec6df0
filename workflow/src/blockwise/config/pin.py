"""Pin what is `unpinned`: resolve revisions and digests online and write them into the files.

    python -m blockwise.config.pin config/config.yaml config/paper.yaml

A value is only written after the hub or the file itself has given it; nothing is guessed.
Comments and layout of the YAML files stay as they are.
"""

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml
from huggingface_hub import HfApi

from blockwise.artifacts import digest_file, write_bytes
from blockwise.config.base import UNPINNED
from blockwise.config.datasets import local_file
from blockwise.config.load import load_profile, unpinned
from blockwise.config.profile import Profile
from blockwise.errors import ConfigError, run_command

TIMEOUT_S = 60.0


def resolve(profile: Profile, key: tuple[str, ...]) -> str:
    """Ask the hub for a commit, or hash the file behind a URL.

    Raises:
        ConfigError: it cannot be reached; the value stays unpinned.
    """
    entry: Any = profile
    for part in key[:-1]:
        entry = entry[part] if isinstance(entry, Mapping) else getattr(entry, part)
    shown = ".".join(key)
    try:
        if key[-1] == "sha256":
            return _digest_of_url(entry.url)
        is_dataset = key[0] == "datasets" or key[:2] == ("mxfp4", "corpus")
        ask = HfApi().dataset_info if is_dataset else HfApi().model_info
        commit = ask(entry.id).sha
    except Exception as error:  # the hub client raises many kinds; all mean the same here
        raise ConfigError(
            f"{shown} stays {UNPINNED!r}: {error}. Pinning needs the network and, for gated "
            "models, a token in HF_TOKEN"
        ) from error
    if commit is None:
        raise ConfigError(f"{shown} stays {UNPINNED!r}: the hub gave no commit")
    return commit


def _digest_of_url(url: str) -> str:
    file = local_file(url)
    if file is not None:
        return digest_file(file)
    digest = hashlib.sha256()
    with httpx.stream("GET", url, follow_redirects=True, timeout=TIMEOUT_S) as response:
        response.raise_for_status()
        for chunk in response.iter_bytes():
            digest.update(chunk)
    return digest.hexdigest()


def write_value(files: list[Path], key: tuple[str, ...], value: str) -> Path:
    """Replace the `unpinned` of a key in the last file that gives it; return that file.

    Raises:
        ConfigError: no file writes the key out.
    """
    for file in reversed(files):
        text = file.read_text()
        node = _find(yaml.compose(text, Loader=yaml.SafeLoader), key)
        if isinstance(node, yaml.ScalarNode) and node.value == UNPINNED:
            begin, end = node.start_mark.index, node.end_mark.index
            write_bytes(file, (text[:begin] + value + text[end:]).encode())
            return file
    raise ConfigError(f"no file says `{'.'.join(key)}: {UNPINNED}`; write it out and pin again")


def _find(node: yaml.Node | None, path: tuple[str, ...]) -> yaml.Node | None:
    for part in path:
        if not isinstance(node, yaml.MappingNode):
            return None
        node = next((value for name, value in node.value if name.value == part), None)
    return node


def main() -> None:
    """Command line: pin every unpinned key of a profile."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="configuration files, base first")
    files = parser.parse_args().files
    profile = load_profile(files)
    keys = unpinned(profile)
    for key in keys:
        value = resolve(profile, key)
        print(f"{write_value(files, key, value)}: {'.'.join(key)} = {value}")
    if not keys:
        print("everything is pinned already")


if __name__ == "__main__":
    run_command(main)
