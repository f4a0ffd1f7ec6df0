"""Where pip looks for packages, said to uv, which does not read pip's configuration.

Standard library only: it is read before anything is installed.
"""

import shlex
from collections.abc import Iterable
from pathlib import Path

UV_OPTIONS = {"index-url": "--default-index", "find-links": "--find-links"}


def index_options(pip_config: Iterable[str]) -> list[str]:
    """Translate the index settings of `pip config list` into options of uv.

    Lines read `global.find-links='/a /b'` or `:env:.find-links='/a'`; as in pip, the
    environment wins over files. A folder that does not exist is left out, and so are extra
    indexes: beside one that holds only some wheels of a release, uv 0.13 resolves to another
    version on every second run.
    """
    settings: dict[str, str] = {}
    for line in pip_config:
        key, _, value = line.strip().partition("=")
        scope, _, name = key.rpartition(".")
        if name in UV_OPTIONS and not (name in settings and scope != ":env:"):
            settings[name] = " ".join(shlex.split(value))
    return [
        word
        for name, value in sorted(settings.items())
        for place in value.split()
        if name != "find-links" or "://" in place or Path(place).is_dir()
        for word in (UV_OPTIONS[name], place)
    ]
