"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

import processes

pytest_plugins = ["serving_fixtures"]

ENGINE_TEST_LIMIT_S = 900  # a start of vLLM, then a whole workflow, on a machine that others load
PROJECT_FOLDER = Path(__file__).parents[2]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return processes.make_scheduler(config, log)


def pytest_collection_modifyitems(items):
    for item in items:
        if "engine_server" in item.fixturenames or item.get_closest_marker(processes.ENGINE):
            item.add_marker(pytest.mark.timeout(ENGINE_TEST_LIMIT_S))
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: processes.group_of(item.path) != processes.ENGINE)


@pytest.fixture(scope="session")
def project_folder() -> Path:
    return PROJECT_FOLDER


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = PROJECT_FOLDER.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data samples in ../shared/data, which are not here")
    return folder
