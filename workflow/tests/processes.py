"""Who runs what where several processes share the tests out (`pytest -n 2`, as `make test` does).

A file stays whole: its tests share what its fixtures made, some of them in their order. Files with
tests of the engine stay together, because these share one server. They take longest, so they
come first; beside them another process does all the rest.
"""

import functools
from pathlib import Path

ENGINE = "engine"
SIGNS_OF_THE_ENGINE = ("mark.engine", "engine_server")


@functools.cache
def group_of(file: Path) -> str:
    """The name of the group that a test file belongs to."""
    text = file.read_text(encoding="utf-8")
    return ENGINE if any(sign in text for sign in SIGNS_OF_THE_ENGINE) else str(file)


def make_scheduler(config, log):
    """xdist's scheduler of whole groups, which it takes in the order in which they come."""
    # Only here: a run in one process needs no xdist.
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(config.rootpath / nodeid.partition("::")[0])

    config.option.loadscopereorder = False  # not by number of tests
    return GroupScheduling(config, log)
